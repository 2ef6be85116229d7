"""A cache of plain text: packed rows of an encoder without a classifier, resumable from its spool, no task in it."""

import os
import resource
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from direct import CLOSE
from forked import in_child
from transformers import AutoModel

from hskcache.build.build import build
from hskcache.build.corpus import CorpusBuild
from hskcache.build.folder import FolderSite, spool_of
from hskcache.build.job import prepare_job
from hskcache.build.kinds.abc import eligible_counts
from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, DataError, MismatchError, SpecError, TeacherError
from hskcache.spec import Attention, Depth, Hidden, Length, Packing, Spec
from hskcache.store.ledger import Ledger
from hskcache.store.survey import SPOOL
from hskcache.teacher.inputs import fit_rows
from hskcache.teacher.load import Teacher, load_encoder, load_teacher
from hskcache.text import TokenizedRows, examples_for, load_task, tokenize
from hskcache.verify import verify

TEXT = "\n\n".join("the film is charming\n" * count + "its plot is a waste" for count in (1, 7, 3, 12))
SPEC = Spec(
    hidden=Hidden(depth=Depth(student_layers=2), encoding="float32"),
    attention=Attention(depth=Depth(student_layers=2), length=Length(tokens=4), encoding="float32"),
    max_length=16,
    shard_rows=4,
    token_budget=40,
)


@pytest.fixture(scope="module")
def encoder(tiny_teacher_dir: Path) -> Teacher:
    """The encoder of a classifier, whose head is left behind."""
    return load_encoder(str(tiny_teacher_dir), "cpu")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(corpus: CorpusBuild, out: Path) -> Cache:
    if corpus.finished(FolderSite(out)) is None:
        build(corpus.job(spool_of(out)), out)
    return open_cache(out)


def test_rows_hold_what_the_encoder_computes_and_nothing_of_a_task(
    encoder: Teacher, text: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    cache = run(CorpusBuild(encoder, text, SPEC), tmp_path / "c")
    assert verify(cache.root).ok
    assert set(cache.fields) == {"inputs", "hidden", "attention"}
    data = cache.manifest.request.data
    assert (data.problem, data.label_names, data.task) == ("text", [], None)
    assert not (cache.root / SPOOL).exists()
    model = AutoModel.from_pretrained(tiny_teacher_dir).eval()
    assert model.pooler is not None
    for row in range(cache.num_rows):
        stored = cache.row(row)
        assert "label" not in stored
        with torch.no_grad():
            ids = torch.from_numpy(stored["input_ids"].astype(int))[None]
            states = model(ids, output_hidden_states=True).hidden_states
        for layer in (0, 2, 4):
            values = torch.from_numpy(stored["hidden"][layer]["values"])
            torch.testing.assert_close(values, states[layer][0], rtol=CLOSE, atol=CLOSE)
        assert sorted(stored["attention"]) == [2, 4]


def test_the_same_text_gives_the_same_cache_and_a_finished_one_is_known_without_tokenizing(
    encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    first = run(CorpusBuild(encoder, text, SPEC), tmp_path / "a")
    renamed = text.rename(tmp_path / "renamed.txt")
    corpus = CorpusBuild(encoder, renamed, SPEC)
    assert run(corpus, tmp_path / "b").id == first.id
    before = {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    assert corpus.finished(FolderSite(first.root)) == first.manifest
    assert {path: path.stat().st_mtime_ns for path in first.root.rglob("*")} == before


def test_another_text_in_the_same_folder_is_refused_and_touches_nothing(
    encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    cache = run(CorpusBuild(encoder, text, SPEC), tmp_path / "c")
    text.write_text(TEXT + "\nand short", encoding="utf-8")
    with pytest.raises(MismatchError, match=r"data\.fingerprint"):
        CorpusBuild(encoder, text, SPEC).finished(FolderSite(cache.root))
    with pytest.raises(MismatchError, match="max_length"):
        CorpusBuild(encoder, text, SPEC.model_copy(update={"max_length": 20})).finished(FolderSite(cache.root))
    assert verify(cache.root).ok


def test_a_folder_of_other_things_is_refused_before_anything_is_tokenized(
    encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("mine")
    with pytest.raises(MismatchError, match="not a cache's"):
        CorpusBuild(encoder, text, SPEC).finished(FolderSite(tmp_path / "c"))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.tex"]


def killed_at(event: str, suffix: str, work: Callable[[], object]) -> None:
    """Do ``work`` in a child that SIGKILL ends right before a file of that ending is opened, renamed or removed."""

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == event and any(str(argument).endswith(suffix) for argument in arguments[:2]):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work, hook) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("event", "suffix"),
    [
        ("os.rename", "rows.json"),
        ("os.rename", "building.json"),
        ("os.rename", "hidden/000001.json"),
        ("os.rename", "manifest.json"),
        ("os.remove", "building.json"),
    ],
)
def test_a_build_killed_anywhere_goes_on_to_the_same_cache(
    event: str, suffix: str, encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    """While it packs, before it begins, between shards, before the manifest, and right after it."""
    torch.set_num_threads(1)
    corpus = CorpusBuild(encoder, text, SPEC)
    expected = run(corpus, tmp_path / "whole")
    out = tmp_path / "killed"
    killed_at(event, suffix, lambda: run(corpus, out))
    assert run(corpus, out).id == expected.id
    assert verify(out).ok
    names = lambda root: sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))  # noqa: E731
    assert names(out) == names(expected.root)


def test_a_build_that_goes_on_takes_the_packed_rows_as_they_are(encoder: Teacher, text: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    corpus, out = CorpusBuild(encoder, text, SPEC), tmp_path / "c"
    killed_at("os.rename", "hidden/000001.json", lambda: run(corpus, out))
    ids = out / SPOOL / "ids.bin"
    before = ids.stat().st_mtime_ns
    assert Ledger(out).is_committed("hidden", 0)
    corpus.job(spool_of(out))
    assert ids.stat().st_mtime_ns == before


def test_a_corpus_without_anything_to_keep_or_to_read_is_refused(encoder: Teacher, text: Path, tmp_path: Path) -> None:
    nothing = SPEC.model_copy(update={"hidden": None, "attention": None})
    with pytest.raises(SpecError, match="nothing would be kept"):
        CorpusBuild(encoder, text, nothing).job(tmp_path / "spool")
    with pytest.raises(DataError):
        CorpusBuild(encoder, tmp_path / "none.txt", SPEC).job(tmp_path / "spool")


def test_an_encoder_without_weights_of_its_own_is_refused(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in tiny_teacher_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lacking = {name: tensor for name, tensor in weights.items() if "layer.1.output" not in name}
    save_file(lacking, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match=r"lacks 4 weights of its own encoder [^;]*LayerNorm.weight, [^;,]*\); save"):
        load_encoder(str(tmp_path), "cpu")


def test_an_encoder_without_a_pooler_is_the_one_with_it(
    tiny_teacher_dir: Path, encoder: Teacher, tmp_path: Path
) -> None:
    """Nothing of a pooler is kept, so it does not count in the weights' digest; masked-LM checkpoints have none."""
    from safetensors.torch import load_file, save_file

    for path in tiny_teacher_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    without = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(without) < len(weights)
    save_file(without, tmp_path / "model.safetensors", {"format": "pt"})
    assert load_encoder(str(tmp_path), "cpu").info.weights_sha256 == encoder.info.weights_sha256


def test_the_spool_s_place_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / SPOOL).write_text("")
    with pytest.raises(CacheError, match="delete it"):
        spool_of(tmp_path)


@pytest.mark.parametrize("name", ["thesis.tex", "wiki.txt"])
def test_a_folder_called_building_that_holds_other_things_is_left_alone(
    name: str, encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    """Even the corpus itself."""
    mine = tmp_path / "c" / SPOOL / name
    mine.parent.mkdir(parents=True)
    mine.write_text(text.read_text())
    with pytest.raises(MismatchError, match="not a cache's"):
        CorpusBuild(encoder, mine, SPEC).finished(FolderSite(tmp_path / "c"))
    assert mine.read_text() == text.read_text()


def test_files_put_beside_the_spool_while_it_is_built_stay(encoder: Teacher, text: Path, tmp_path: Path) -> None:
    corpus, out = CorpusBuild(encoder, text, SPEC), tmp_path / "c"
    job = corpus.job(spool_of(out))
    note = out / SPOOL / "note.txt"
    ledger = Ledger(out)
    ledger.begin(job.request)
    note.write_text("mine")
    build(job, out)
    assert [path.name for path in (out / SPOOL).iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hidden": None, "attention": None}, "nothing would be kept"),
        ({"attention": Attention(heads=[4])}, "heads 0 to 3"),
        ({"max_length": 65}, "--max-length 64"),
        ({"hidden": Hidden(depth=Depth(student_layers=2, stored=[1]))}, "none is in the student's layer map"),
    ],
    ids=str,
)
def test_what_costs_nothing_to_check_is_refused_before_anything_is_tokenized(
    spec: dict[str, Any], message: str, encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    corpus = CorpusBuild(encoder, text, SPEC.model_copy(update=spec))
    for work in (lambda: corpus.finished(FolderSite(tmp_path / "c")), lambda: corpus.job(tmp_path / "spool")):
        with pytest.raises(SpecError, match=message):
            work()
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "spool").exists()


def test_a_disk_that_is_full_while_tokenizing_is_told_with_its_place(
    encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    """Here by a limit on the size of files."""
    corpus = CorpusBuild(encoder, text, SPEC)
    assert corpus.tokenizer.files

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(CacheError, match=f"^cannot write {tmp_path / 'spool'}: File too large"):
            corpus.job(tmp_path / "spool")

    assert in_child(work) == 0


def test_the_same_knowledge_asked_for_in_other_words_is_the_same_cache(
    encoder: Teacher, text: Path, tmp_path: Path
) -> None:
    def asked(heads: Any, stored: Any) -> Spec:
        depth = Depth(student_layers=2, stored=stored)
        attention = Attention(depth=depth, length=Length(tokens=4), heads=heads)
        return SPEC.model_copy(update={"hidden": None, "attention": attention})

    out = tmp_path / "c"
    run(CorpusBuild(encoder, text, asked("all", [2, 4])), out)
    assert CorpusBuild(encoder, text, asked([0, 1, 2, 3], [4, 2, 2])).finished(FolderSite(out)) is not None
    with pytest.raises(MismatchError, match="heads"):
        CorpusBuild(encoder, text, asked([1, 0, 2, 3], [2, 4])).finished(FolderSite(out))


def test_rows_on_the_disk_are_checked_without_being_read_into_memory(encoder: Teacher, tmp_path: Path) -> None:
    """Not even where the token types take no memory because all are 0."""
    num_rows, length = 500_000, 16
    ids = np.memmap(tmp_path / "ids.bin", np.int32, "w+", shape=(num_rows * length,))
    ids[:] = 7
    ids.flush()
    rows = TokenizedRows(
        np.memmap(tmp_path / "ids.bin", np.int32, "r"),
        np.arange(num_rows + 1, dtype=np.int64) * length,
        np.broadcast_to(np.uint8(0), len(ids)),
        frozenset({2, 3}),
    )
    tracemalloc.start()
    fit_rows(encoder.model, rows, ("teacher", "corpus"))
    eligible_counts(Length(specials=False), rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A few times the lengths of the rows; the ids alone would be 64 bytes a row.
    assert peak < 48 * num_rows
    ids[-3] = 10**6
    ids.flush()
    with pytest.raises(TeacherError, match=f"row {num_rows - 1}, counted from 0, has the token id 1000000"):
        fit_rows(encoder.model, rows, ("teacher", "corpus"))


def test_how_a_corpus_is_packed_says_nothing_of_the_rows_of_a_task(tiny_teacher_dir: Path, tsv_file: Path) -> None:
    """A file of the spec may come from the cache of a corpus."""
    teacher = load_teacher(str(tiny_teacher_dir), "cpu")
    examples = examples_for(tsv_file, load_task("sst2"))
    rows = tokenize(examples, teacher.tokenizer, 24)
    plain = Spec(max_length=24)
    packed = plain.model_copy(update={"packing": Packing(pairs="mixed", seed=3)})
    digests = {prepare_job(teacher, examples, rows, spec, "sst2").request.digest for spec in (plain, packed)}
    assert len(digests) == 1


def test_pairs_are_read_with_their_token_types(
    encoder: Teacher, text: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    """What is kept of second texts is what the model makes of type 1."""
    spec = SPEC.model_copy(update={"packing": Packing(pairs="mixed")})
    cache = run(CorpusBuild(encoder, text, spec), tmp_path / "c")
    model = AutoModel.from_pretrained(tiny_teacher_dir).eval()
    stored = cache.row(cache.num_rows - 1)
    ids, types = (torch.from_numpy(stored[name].astype(int))[None] for name in ("input_ids", "token_type_ids"))
    assert set(types[0].tolist()) == {0, 1}
    with torch.no_grad():
        typed = model(ids, token_type_ids=types, output_hidden_states=True).hidden_states[4][0]
        untyped = model(ids, output_hidden_states=True).hidden_states[4][0]
    values = torch.from_numpy(stored["hidden"][4]["values"])
    torch.testing.assert_close(values, typed, rtol=CLOSE, atol=CLOSE)
    assert not torch.allclose(values, untyped, rtol=CLOSE, atol=CLOSE)
