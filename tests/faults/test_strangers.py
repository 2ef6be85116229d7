"""Whatever a stranger wrote into a cache, with digests that fit, it is refused in our words or read without harm.

tools/bench fuzz tells tens of thousands of such lies under limits of memory and time; here a hundred and
fifty, and some that are known by name.
"""

import json
import random
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged import a_student, learned
from material import Material
from reading_lies import refusals
from steps import run
from stored import both_manifests
from stories import Truth, signed
from strangers import KINDS, Lie, lie

from hskcache.cache import open_cache
from hskcache.errors import CacheError, DamageError
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.record import CONSTANTS
from hskcache.store.version2 import VERSION_2
from hskcache.text import load_tokenizer
from hskcache.verify import verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


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


@pytest.fixture(scope="module", params=["tiny", "added", "grown", "corpus"])
def older(request: pytest.FixtureRequest) -> Truth:
    """A cache of version 1, which strangers may still hand out."""
    return Truth(GOLDEN / f"{request.param}.hsk")


def test_lies_of_version_1_are_refused_or_harmless(older: Truth, tmp_path: Path) -> None:
    told = Path(shutil.copytree(older.root, tmp_path / "c"))
    assert refusals(told) == 0
    for number in range(20):
        found = lie(older, random.Random(f"version 1 {number}"))
        found.tell(told)
        refusals(told)
        found.take_back(told, older.root)
    assert refusals(told) == 0


def test_the_true_cache_is_refused_by_nothing_and_is_told_as_it_stands(truth: Truth, student: Any) -> None:
    assert refusals(truth.root, lambda root: learned(root, student)) == 0
    assert parse_manifest(signed(truth.story.manifest), "told") == truth.cache.manifest
    files = truth.told(truth.story.refer())
    assert set(files) == {MANIFEST, COPY} | {file.path for file in truth.cache.manifest.index}
    assert all(data == (truth.root / name).read_bytes() for name, data in files.items())


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
    story = truth.story
    story.rename("more", name)
    both_manifests(told, story.refer().signed()[MANIFEST] or b"")
    with pytest.raises(DamageError):
        open_cache(told)
    both_manifests(told, (truth.root / MANIFEST).read_bytes())


def test_a_page_that_sums_up_arrays_of_another_field_is_refused_when_the_cache_is_opened(
    truth: Truth, told: Path
) -> None:
    """Sizes are told by these sums alone, before any record is read."""
    story = truth.story.refer()
    index = story.manifest["index"]
    index["inputs"][0]["arrays"] = index["hidden"][0]["arrays"]
    both_manifests(told, story.signed()[MANIFEST] or b"")
    with pytest.raises(DamageError, match="inputs has no layer_"):
        open_cache(told)
    both_manifests(told, (truth.root / MANIFEST).read_bytes())


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
    record = next(record for record in truth.records if (record.field, record.shard) == shard)
    arrays = truth.arrays(record)
    arrays[name].reshape(-1)[-1] = value
    found = Lie("arrays", what, truth.with_shard(record, VERSION_2.pack(arrays), arrays))
    found.tell(told)
    try:
        with pytest.raises(DamageError, match=what):
            learned(told, student)
        (problem,) = verify(told, deep=True).problems
        assert (problem.field, problem.shard) == (shard[0], None if shard[1] == CONSTANTS else shard[1])
        assert what in problem.what
    finally:
        found.take_back(told, truth.root)


def _beyond(record: Any) -> None:
    record["arrays"]["labels"]["offset"] = record["num_bytes"] - 1


def _upon_each_other(record: Any) -> None:
    record["arrays"]["labels"] |= {key: record["arrays"]["row_ids"][key] for key in ("offset", "num_bytes", "sha256")}


def _other_digest(record: Any) -> None:
    record["arrays"]["labels"]["sha256"] = record["sha256"]


def _of_constants(record: Any) -> None:
    record["file"] = record["file"].replace("000001", "constants")


def _of_another_folder(record: Any) -> None:
    record["file"] = f"../hidden/{record['file']}"


def _more_than_there_is(record: Any) -> None:
    record["num_bytes"] = 1 << 62


@pytest.mark.parametrize(
    "change", [_beyond, _upon_each_other, _other_digest, _of_constants, _of_another_folder, _more_than_there_is]
)
def test_records_that_lie_about_where_arrays_are_are_refused_by_who_reads_them_and_named_by_a_deep_look(
    truth: Truth, told: Path, change: Callable[[Any], None]
) -> None:
    story = truth.story
    change(story.records("inputs")[1])
    found = Lie("places", change.__name__, truth.told(story.refer()))
    found.tell(told)
    try:
        with pytest.raises(DamageError):
            open_cache(told).read("inputs", 1, ["labels"])
        assert {problem.field for problem in verify(told, deep=True).problems} == {"inputs"}
    finally:
        found.take_back(told, truth.root)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", "a\\b", "x" * 300, "", "."])
def test_a_list_of_tokenizer_files_that_leads_elsewhere_is_refused(truth: Truth, told: Path, name: str) -> None:
    story = truth.story
    listed = story.manifest["tokenizer"]
    listed[name] = listed.pop("tokenizer.json")
    pairs = sorted((name, one["sha256"]) for name, one in listed.items())
    story.manifest["request"]["tokenizer"]["sha256"] = sha256_hex(canonical_json(pairs))
    both_manifests(told, story.signed()[MANIFEST] or b"")
    with pytest.raises(DamageError, match="no name within a folder"):
        open_cache(told)
    both_manifests(told, (truth.root / MANIFEST).read_bytes())


def test_a_bomb_is_refused_before_it_takes_memory(truth: Truth, tmp_path: Path) -> None:
    """270 million tokens in a file of a few kB, with digests, shapes and offsets that agree with each other."""
    root = Path(shutil.copytree(truth.root, tmp_path / "c"))
    draw = random.Random(0)
    draw.choice = lambda choices: choices[-1]  # type: ignore[method-assign]
    what, files = KINDS["size"][0](truth, draw)
    assert what.startswith(f"{1 << 27} tokens")
    assert all(len(data) < 1 << 20 for data in files.values() if data is not None)
    Lie("size", what, files).tell(root)

    def limited() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        for names in (None, ["input_ids"], ["input_ids", "token_type_ids", "row_offsets"]):
            with pytest.raises(CacheError):
                open_cache(root).read("inputs", 0, names)

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
