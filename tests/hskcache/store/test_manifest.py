"""Digests change with the content and with nothing else, and a manifest that cannot be true is not believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.spec import Attention
from hskcache.store.consistency import parse_manifest
from hskcache.store.manifest import Manifest, Request

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk" / "manifest.json"
MANIFEST = parse_manifest(GOLDEN.read_bytes(), "manifest.json")
REQUEST = MANIFEST.request

Path_ = tuple[str | int, ...]


def edited(model: type[Any], document: Any, path: Path_, value: Any) -> Any:
    """A model from a document with one key changed."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return model.model_validate_json(json.dumps(copy))


def parse_edited(path: Path_, value: Any) -> Manifest:
    document = json.loads(GOLDEN.read_bytes())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return parse_manifest(json.dumps(document).encode(), "manifest.json")


def leaves(value: Any, path: Path_ = ()) -> list[Path_]:
    if isinstance(value, dict) and value:
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    return [path]


NAMES: set[Path_] = {
    ("teacher", "name"),
    ("teacher", "revision"),
    ("teacher", "config", "_name_or_path"),
    ("data", "name"),
    ("data", "split"),
    ("data", "task"),
    ("data", "provenance"),
}
OTHERS: dict[type, Callable[[Any], Any]] = {
    int: lambda value: value + 1,
    float: lambda value: value / 2,
    str: lambda value: value.replace("0", "1") if len(value) == 64 else value + "x",
    list: lambda value: value[:-1],
}
LITERALS: dict[Path_, Any] = {
    ("spec", "attention"): Attention(heads="mean").model_dump(mode="json"),
    ("spec", "hidden", "depth", "kept"): [1],
    ("spec", "hidden", "depth", "layers"): [3, 6],
    ("spec", "hidden", "depth", "mapping"): "top",
    ("spec", "hidden", "depth", "stored"): "all",
    ("spec", "packing", "pairs"): "next",
    ("spec", "packing", "short_rows"): 0.1,
    ("spec", "packing", "mask"): 0.15,
    ("attention_layers",): [{"student": 1, "teacher": 2}],
    ("spec", "compute_dtype"): "float16",
    ("spec", "hidden", "encoding"): "int4",
    ("spec", "hidden", "length", "score"): "left",
    ("spec", "hidden", "length", "score_layer"): "last",
    ("spec", "hidden", "width", "scheme"): "uniform",
    ("data", "problem"): "regression",
    ("data", "provenance"): {"num_bad": 1, "bad": [{"number": 7, "reason": "the text is empty"}]},
}


@pytest.mark.parametrize(
    "path", leaves(REQUEST.model_dump(mode="json", exclude={"appended"})), ids=lambda path: ".".join(path)
)
def test_request_digest_changes_with_every_key_but_names(path: Path_) -> None:
    document = REQUEST.model_dump(mode="json")
    value: Any = document
    for key in path:
        value = value[key]
    other: Any = LITERALS.get(path)
    if other is None:
        other = not value if isinstance(value, bool) else OTHERS[type(value)](value)
    changed = edited(Request, document, path, other)
    if path in NAMES:
        assert changed.digest == REQUEST.digest
        assert changed.difference(REQUEST) is None
    else:
        assert changed.digest != REQUEST.digest
        assert changed.difference(REQUEST) == (".".join(str(key) for key in path), other, value)


def test_request_without_hidden_states_differs_at_that_key() -> None:
    other = edited(Request, REQUEST.model_dump(mode="json"), ("spec", "hidden"), None)
    assert other.digest != REQUEST.digest
    assert other.fields == ("inputs", "logits")
    difference = REQUEST.difference(other)
    assert difference is not None
    assert difference[0] == "spec.hidden"


@given(st.integers(0, 50), st.integers(1, 60))
def test_shards_cover_every_row_once_in_order(num_rows: int, shard_rows: int) -> None:
    data = REQUEST.data.model_copy(update={"num_rows": num_rows})
    request = REQUEST.model_copy(update={"data": data, "shard_rows": shard_rows})
    assert [row for start, stop in request.shards for row in range(start, stop)] == list(range(num_rows))
    assert request.num_shards == len(request.shards)
    assert all(stop - start == shard_rows for start, stop in request.shards[:-1])


def test_manifest_comes_back_from_its_file() -> None:
    assert parse_manifest(MANIFEST.to_json(), "manifest.json") == MANIFEST
    assert MANIFEST.edits() == []


@pytest.mark.parametrize("name", ["inputs", "logits", "hidden", "hidden_uniform"])
@pytest.mark.parametrize("key", ["sha256", "num_bytes", "num_nonfinite", "start", "shard", "arrays"])
def test_cache_id_changes_with_every_record(name: str, key: str) -> None:
    others = {"sha256": "0" * 64, "num_bytes": 1, "num_nonfinite": 1, "start": 1, "shard": 7, "arrays": {}}
    records = [
        record.model_copy(update={key: others[key]}) if record.stop == 5 else record for record in MANIFEST.shards[name]
    ]
    assert MANIFEST.with_records({name: records}).signed().cache_id != MANIFEST.cache_id


def test_cache_id_changes_with_the_request_and_the_fields_but_not_with_their_order() -> None:
    def identity(**changes: Any) -> str:
        return MANIFEST.model_copy(update=changes).signed().cache_id

    fields = MANIFEST.fields
    assert identity(fields=dict(reversed(fields.items()))) == MANIFEST.cache_id
    assert identity(request_digest="0" * 64) != MANIFEST.cache_id
    other = {**fields, "hidden": fields["hidden"].model_copy(update={"encoding": "int4"})}
    assert identity(fields=other) != MANIFEST.cache_id


@pytest.mark.parametrize("version", [-1, 0, 3, 7])
def test_an_unknown_format_says_which_and_what_to_do(version: int) -> None:
    with pytest.raises(
        MismatchError, match=rf"format version {version}; this hskcache reads 1 and 2: upgrade hskcache"
    ):
        parse_edited(("format_version",), version)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "other"),
        (("format_version",), True),
        (("format_version",), 2),
        (("format_version",), "1"),
        (("cache_id",), "A" * 64),
        (("cache_id",), None),
        (("unknown",), 1),
        (("request", "spec", "hidden", "width", "fraction"), 2),
        (("request", "spec", "hidden", "unknown"), 2),
        (("request", "shard_rows"), 0),
        (("request", "data", "num_rows"), -1),
        (("request", "data", "num_rows"), 7),
        (("request", "data", "num_rows"), 4),
        (("request", "data", "num_rows"), 10**30),
        (("request", "shard_rows"), 5),
        (("request", "teacher", "config"), {"x": float("nan")}),
        (("fields", "inputs", "kind"), "unknown"),
        (("fields", "inputs", "has_labels"), False),
        (("fields", "logits", "num_labels"), 3),
        (("fields", "hidden", "layers"), [2]),
        (("fields", "hidden", "columns"), "indices"),
        (("fields", "hidden", "columns"), "pca"),
        (("fields", "hidden_uniform", "columns"), "all"),
        (("fields", "other"), {"kind": "logits", "num_labels": 2}),
        (("shards", "other"), []),
        (("shards", "../other"), []),
        (("shards", "logits"), []),
        (("shards", "logits", 0, "shard"), 1),
        (("shards", "logits", 0, "field"), "inputs"),
        (("shards", "logits", 0, "field"), "../logits"),
        (("shards", "logits", 1, "start"), 1),
        (("shards", "logits", 1, "stop"), 5),
        (("shards", "logits", 1, "num_bytes"), -1),
        (("shards", "logits", 0, "sha256"), "short"),
        (("constants",), {}),
        (("constants", "hidden_uniform", "shard"), 0),
        (("constants", "hidden_uniform", "stop"), 1),
    ],
    ids=str,
)
def test_manifest_that_cannot_be_true_is_refused_in_one_line_that_names_it(path: Path_, value: Any) -> None:
    with pytest.raises(DamageError, match=r"\Amanifest\.json is damaged: [^\n]+\Z") as error:
        parse_edited(path, value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": "hskcache"}'])
def test_file_that_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DamageError, match=r"manifest\.json is damaged"):
        parse_manifest(data, "manifest.json")


@given(st.data())
def test_no_flipped_byte_of_a_manifest_goes_unnoticed_unless_it_is_a_name(data: st.DataObject) -> None:
    """Names, revisions and the environment are told and not digested; everything else is."""
    raw = bytearray(GOLDEN.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        manifest = parse_manifest(bytes(raw), "manifest.json")
    except CacheError:
        return
    if not manifest.edits():
        undigested = {"environment", "request"}
        assert manifest.model_dump(exclude=undigested) == MANIFEST.model_dump(exclude=undigested)
        assert manifest.request.difference(REQUEST) is None
