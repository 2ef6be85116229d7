"""An added field holds what its teacher computes for the rows of the cache, and no teacher that cannot is let in."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import contents, touched
from forked import heard, start
from stored import shard_file
from twins import make

from hskcache.build.addition import add_field, added, prepare_addition, rows_of
from hskcache.build.build import build, finished
from hskcache.build.corpus import CorpusBuild
from hskcache.build.folder import spool_of
from hskcache.build.job import Job
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from hskcache.spec import Attention, Depth, Length, Spec
from hskcache.store.ledger import Ledger
from hskcache.teacher.load import Teacher, load_encoder, load_teacher
from hskcache.text import Examples
from hskcache.text.tokenize import special_ids
from hskcache.verify import verify

KEEP = {"keep": "1l_4t_0.25h", "encoding": "int8"}


def test_rows_of_a_cache_are_the_rows_that_were_tokenized(cache: Cache, job_of: Any, pairs: Examples) -> None:
    job: Job = job_of("none", rows=pairs)
    build(job, cache.root.parent / "pairs")
    special = special_ids(job.teacher.tokenizer)
    for found, rows in (
        (rows_of(cache, special), job_of("none").rows),
        (rows_of(open_cache(cache.root.parent / "pairs"), special), job.rows),
    ):
        assert found.special_ids == rows.special_ids
        for name in ("input_ids", "offsets", "token_type_ids"):
            one, two = getattr(found, name), getattr(rows, name)
            assert one.dtype == two.dtype
            assert np.array_equal(one, two)
    assert job.rows.token_type_ids is not None
    assert job.rows.token_type_ids.any()


def test_logits_of_another_teacher_are_those_of_a_cache_built_with_it(
    cache: Cache, other: Teacher, job_of: Any
) -> None:
    manifest = add_field(prepare_addition(other, cache, "logits", "t2"))
    build(job_of("none", by=other), cache.root.parent / "two")
    expected = open_cache(cache.root.parent / "two")
    grown = open_cache(cache.root)
    for shard in range(len(grown.shards)):
        assert np.array_equal(grown.read("t2", shard)["logits"], expected.read("logits", shard)["logits"])
        assert not np.array_equal(grown.read("t2", shard)["logits"], grown.read("logits", shard)["logits"])
    assert manifest.added["t2"].teacher == other.info
    assert manifest.added["t2"].environment["torch"] == torch.__version__
    assert manifest.added["t2"].spec.hidden is None
    assert verify(cache.root).ok


@pytest.mark.parametrize("scheme", ["magnitude", "pca"])
def test_hidden_states_of_another_teacher_likewise(cache: Cache, other: Teacher, job_of: Any, scheme: str) -> None:
    job = job_of(**KEEP, width__scheme=scheme, by=other)
    build(job, cache.root.parent / "two")
    expected = open_cache(cache.root.parent / "two")
    add_field(prepare_addition(other, cache, "hidden", "h2", job.spec))
    grown = open_cache(cache.root)
    assert grown.fields["h2"] == expected.fields["hidden"]
    assert grown.manifest.request_for("h2").layers == expected.manifest.request.layers
    for shard in range(len(grown.shards)):
        found, wanted = grown.read("h2", shard), expected.read("hidden", shard)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    constants = grown.constants("h2")
    assert all(np.array_equal(constants[name], array) for name, array in expected.constants("hidden").items())
    assert bool(constants) == (scheme == "pca")
    assert verify(cache.root).ok


def test_attention_can_be_added_beside_hidden_states_of_the_same_teacher(job_of: Any, tmp_path: Path) -> None:
    job: Job = job_of(**KEEP)
    build(job, tmp_path / "c")
    attention = Attention(depth=Depth(student_layers=2), length=Length(tokens=3), encoding="float32")
    spec = job.spec.model_copy(update={"hidden": None, "attention": attention})
    add_field(prepare_addition(job.teacher, open_cache(tmp_path / "c"), "attention", "maps", spec))
    grown = open_cache(tmp_path / "c")
    assert {name: field.kind for name, field in grown.fields.items()} == {
        "inputs": "inputs",
        "logits": "logits",
        "hidden": "hidden",
        "maps": "attention",
    }
    assert grown.row(3)["added"]["maps"][4]["positions"].shape == (3,)
    assert verify(grown.root).ok


def test_the_same_command_again_does_nothing_and_one_that_was_killed_goes_on(cache: Cache, other: Teacher) -> None:
    twin = Path(shutil.copytree(cache.root, cache.root.parent / "twin"))
    addition = prepare_addition(other, open_cache(twin), "logits", "t2")
    commits = 0

    def die(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal commits
        if event == "os.rename" and re.search(r"/t2/[0-9]+\.json$", str(arguments[1])):
            commits += 1
            if commits == 4:
                os.kill(os.getpid(), signal.SIGKILL)

    assert os.WIFSIGNALED(os.waitpid(start(lambda: add_field(addition), die), 0)[1])
    assert [Ledger(twin).is_committed("t2", shard) for shard in range(4)] == [True, True, True, False]
    assert added(addition) is None
    seen: list[int] = []
    first = touched(twin / "t2")
    add_field(addition, seen.append)
    assert sum(seen) == cache.num_rows
    kept = [path for path in first if re.search(r"/00000[01]-\w+\.zarr\.zip$", path)]
    assert {path: first[path] for path in kept} == {path: touched(twin / "t2")[path] for path in kept}
    add_field(prepare_addition(other, cache, "logits", "t2"))
    assert contents(twin) == contents(cache.root)
    before = touched(twin)
    again = prepare_addition(other, open_cache(twin), "logits", "t2")
    assert added(again) is not None
    add_field(again)
    assert touched(twin) == before


def test_a_build_of_the_cache_knows_it_with_the_field_and_mends_it_without_losing_the_field(
    cache: Cache, other: Teacher, job_of: Any
) -> None:
    expected = add_field(prepare_addition(other, cache, "logits", "t2"))
    job = job_of("none")
    assert finished(job, cache.root) == expected
    shard_file(cache.root, "logits", 0).unlink()
    assert finished(job, cache.root) is None
    assert build(job, cache.root).cache_id == expected.cache_id
    # What an added field has lost is not for a build of the cache to mend.
    shard_file(cache.root, "t2", 0).unlink()
    assert finished(job, cache.root) is not None


def test_hidden_states_can_be_added_to_the_cache_of_a_corpus_and_logits_cannot(
    tiny_teacher_dir: Path, other_dir: Path, spec_of: Callable[..., Spec], tmp_path: Path
) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("the film is charming\nits plot is a waste\n\n" * 5, encoding="utf-8")
    corpus = CorpusBuild(load_encoder(str(tiny_teacher_dir)), text, spec_of("1l_2t"))
    build(corpus.job(spool_of(tmp_path / "c")), tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    with pytest.raises(SpecError, match="holds a corpus without a task, of which there are no logits"):
        prepare_addition(load_encoder(str(other_dir)), cache, "logits", "t2")
    add_field(prepare_addition(load_encoder(str(other_dir)), cache, "hidden", "h2", spec_of("2l_3t")))
    assert open_cache(tmp_path / "c").row(0)["added"]["h2"][4]["positions"].shape == (3,)


def test_the_caches_rows_and_shards_hold_whatever_the_spec_says(cache: Cache, other: Teacher, job_of: Any) -> None:
    spec = job_of(**KEEP).spec.model_copy(update={"max_length": 3, "shard_rows": 7})
    addition = prepare_addition(other, cache, "hidden", "h2", spec)
    assert addition.job.layout.shards == cache.shards
    assert addition.job.layout.lengths_N.max() > 3


def test_layers_are_counted_by_the_teacher_that_is_added_and_not_by_the_first(
    job_of: Any, tiny_teacher_dir: Path, spec_of: Callable[..., Spec], tmp_path: Path
) -> None:
    """The cache keeps the top layer of a teacher of four; the top layer of one of six is the sixth."""

    def change(config: dict[str, Any]) -> None:
        config["num_hidden_layers"] = 6

    build(job_of(**KEEP), tmp_path / "c")
    deeper = make(change, tiny_teacher_dir, tmp_path / "t")
    add_field(prepare_addition(deeper, open_cache(tmp_path / "c"), "hidden", "deep", spec_of("1l_4t")))
    grown = open_cache(tmp_path / "c")
    assert grown.fields["deep"].layers == [6]
    assert [(pair.student, pair.teacher) for pair in grown.manifest.request_for("deep").layers] == [(2, 6)]


def test_a_teacher_whose_tokenizer_gives_no_token_types_is_shown_none(
    job_of: Any, pairs: Examples, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "untyped"))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(settings))
    untyped = load_teacher(str(folder))
    build(job_of("none", rows=pairs), tmp_path / "c")
    build(job_of("none", rows=pairs, by=untyped), tmp_path / "expected")
    add_field(prepare_addition(untyped, open_cache(tmp_path / "c"), "logits", "untyped"))
    found, expected = (open_cache(tmp_path / name) for name in ("c", "expected"))
    assert np.array_equal(found.read("untyped", 0)["logits"], expected.read("logits", 0)["logits"])
    assert not np.array_equal(found.read("logits", 0)["logits"], expected.read("logits", 0)["logits"])


def test_a_field_is_added_by_several_processes_together_and_verify_says_that_it_is_being_added(
    cache: Cache, other: Teacher
) -> None:
    twin = Path(shutil.copytree(cache.root, cache.root.parent / "twin"))
    addition = prepare_addition(other, cache, "logits", "t2")
    ready, go = os.pipe(), os.pipe()

    def pause(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("/t2/000001.json"):
            os.write(ready[1], b"x")
            os.read(go[0], 1)

    child = start(lambda: add_field(addition), pause)
    heard(ready[0])
    (problem,) = verify(cache.root).problems
    assert "a process is adding now; verify again when it is done" in problem.what
    seen: list[int] = []

    def watch(num_rows: int) -> None:
        seen.append(num_rows)
        # All but the shard that is held up and the one behind it are written here meanwhile.
        if sum(seen) >= cache.num_rows - 3 * 4:
            os.write(go[1], b"x")

    manifest = add_field(addition, watch)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sum(seen) == cache.num_rows
    assert manifest.added.keys() == {"t2"}
    assert add_field(prepare_addition(other, open_cache(twin), "logits", "t2")) == manifest
    assert contents(twin) == contents(cache.root)
    assert verify(cache.root).ok


def test_another_teacher_cannot_help_to_add_a_field(cache: Cache, other: Teacher, teacher: Teacher) -> None:
    mine, theirs = (prepare_addition(one, cache, "logits", "t2") for one in (other, teacher))
    ready, go = os.pipe(), os.pipe()

    def pause(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("/t2/000001.json"):
            os.write(ready[1], b"x")
            os.read(go[0], 1)

    child = start(lambda: add_field(mine), pause)
    heard(ready[0])
    with pytest.raises(MismatchError, match=r"has a field t2 with teacher\.weights_sha256"):
        add_field(theirs)
    os.write(go[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert verify(cache.root).ok
