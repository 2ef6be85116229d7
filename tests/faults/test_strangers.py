"""Whatever a stranger wrote into a cache, with digests that fit, it is refused in our words or read without harm.

tools/bench fuzz tells tens of thousands of such lies under limits of memory and time; here a hundred and
fifty, and some that are known by name.
"""

import json
import random
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged import a_student, learned
from material import Material
from steps import run
from stored import shard_file
from strangers import KINDS, Truth, lie, refusals, signed

from hskcache.cache import open_cache
from hskcache.errors import CacheError, DamageError
from hskcache.store.consistency import parse_manifest
from hskcache.store.ledger import Ledger
from hskcache.store.publishing import MANIFEST
from hskcache.text import load_tokenizer
from hskcache.verify import verify


@pytest.fixture(scope="module")
def truth(built: Path) -> Truth:
    return Truth(built)


@pytest.fixture(scope="module")
def told(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for lies that are taken back."""
    return Path(shutil.copytree(built, tmp_path_factory.mktemp("told") / "c"))


@pytest.fixture(scope="module")
def student(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("student") / "c"))
    return a_student(folder)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**64))
def test_lies_with_digests_that_fit_are_refused_or_harmless(truth: Truth, told: Path, student: Any, seed: int) -> None:
    found = lie(truth, random.Random(seed))
    found.tell(told)
    try:
        refusals(told, (lambda root: learned(root, student)) if seed % 4 == 0 else None)
    finally:
        found.take_back(told, truth.root)


def test_the_true_cache_is_refused_by_nothing(truth: Truth, student: Any) -> None:
    assert refusals(truth.root, lambda root: learned(root, student)) == 0
    assert parse_manifest(signed(truth.manifest), "told") == truth.cache.manifest


@pytest.mark.parametrize("kind", KINDS)
def test_lies_of_every_kind_are_told(truth: Truth, kind: str) -> None:
    what, files = KINDS[kind][0](truth, random.Random(0))
    assert what
    assert any(data != _before(truth.root / name) for name, data in files.items())


def _before(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/b", "", ".", "..", "inputs\x00", "İ", "A", "-a", "a" * 101, "a.b", "con:"]
)
def test_a_field_whose_name_leads_elsewhere_is_refused(truth: Truth, told: Path, name: str) -> None:
    document = truth.manifest
    for part in ("fields", "shards", "added", "constants"):
        document[part][name] = document[part].pop("more")
    for record in [*document["shards"][name], document["constants"][name]]:
        record["field"] = name
    (told / MANIFEST).write_bytes(signed(document))
    with pytest.raises(DamageError):
        open_cache(told)
    shutil.copyfile(truth.root / MANIFEST, told / MANIFEST)


@pytest.mark.parametrize(
    ("shard", "name", "value", "what"),
    [
        (("inputs", 1), "input_ids", 60_000, "input_ids holds 60000, of 65 token ids"),
        (("inputs", 0), "token_type_ids", 2, "token_type_ids holds 2, of 2 token types"),
        (("inputs", 2), "labels", 2, "labels holds 2, of 2 classes"),
        (("inputs", 2), "labels", -1, "labels holds -1, of 2 classes"),
        (("few", 0), "layer_02/columns", 64, "layer_02/columns holds 64, of 64 columns"),
        (("more", -1), "layer_01/columns", 65_535, "layer_01/columns holds 65535, of 64 columns"),
        (("hidden", 1), "layer_02/positions", 12, "layer_02/positions points beyond the end of its row"),
    ],
)
def test_integers_beyond_what_they_point_into_are_refused_by_training_and_by_a_deep_look(
    truth: Truth, told: Path, student: Any, shard: tuple[str, int], name: str, value: int, what: str
) -> None:
    ledger = Ledger(told)
    record = ledger.record(*shard)
    arrays = truth.arrays(record)
    arrays[name].reshape(-1)[-1] = value
    ledger.commit(*shard, (record.start, record.stop), arrays)
    ledger.finish(truth.cache.manifest.request, truth.cache.manifest.own_fields, {})
    try:
        if shard[0] in truth.cache.manifest.added:
            _resign(told, ledger.record(*shard).model_dump(mode="json"))
        with pytest.raises(DamageError, match=what):
            learned(told, student)
        (problem,) = verify(told, deep=True).problems
        assert (problem.field, problem.what) == (shard[0], problem.what)
        assert what in problem.what
    finally:
        for path in (shard_file(ledger.root, *shard), ledger.record_path(*shard), told / MANIFEST):
            shutil.copyfile(truth.root / path.relative_to(told), path)


def _resign(root: Path, record: dict[str, Any]) -> None:
    """The manifest with another record of an added field."""
    document = json.loads(Ledger(root).manifest().to_json())
    del document["checksum"]
    if record["shard"] < 0:
        document["constants"][record["field"]] = record
    else:
        document["shards"][record["field"]][record["shard"]] = record
    (root / MANIFEST).write_bytes(signed(document))


def test_a_bomb_is_refused_before_it_takes_memory(truth: Truth, tmp_path: Path) -> None:
    """270 million tokens in a file of a few kB, with digests, shapes and offsets that agree with each other."""
    root = Path(shutil.copytree(truth.root, tmp_path / "c"))
    draw = random.Random(0)
    draw.choice = lambda choices: choices[-1]  # type: ignore[method-assign]
    what, files = KINDS["size"][0](truth, draw)
    assert what.startswith(f"{1 << 27} tokens")
    for name, data in files.items():
        assert data is not None
        assert len(data) < 1 << 20
        (root / name).write_bytes(data)

    def limited() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        with pytest.raises(CacheError):
            open_cache(root).read("inputs", 0)

    if sys.platform == "linux":
        run(limited)


def test_code_beside_a_tokenizer_is_never_run(material: Material, tmp_path: Path) -> None:
    root = Path(shutil.copytree(material.grown, tmp_path / "c"))
    mark = tmp_path / "ran"
    (root / "tokenizer" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass T: pass\n")
    path = root / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": [None, "evil.T"]}, "tokenizer_class": "T"}
    path.write_text(json.dumps(config))
    assert [problem.file for problem in verify(root).problems] == ["tokenizer"]
    with suppress(CacheError):
        load_tokenizer(open_cache(root).tokenizer_path)
    assert not mark.exists()
