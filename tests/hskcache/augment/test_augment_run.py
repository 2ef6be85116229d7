"""One file, whatever the batches, the chunks, and the moments at which it was killed."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child

from hskcache.augment import Augmentation, augment, load_vectors
from hskcache.augment.run import CHUNK_ROWS
from hskcache.errors import DamageError, MismatchError
from hskcache.locks import WRITING
from hskcache.text.layout import Layout

ROWS_A_CHUNK = 16


@pytest.fixture(scope="module")
def job(job_of: Callable[..., Augmentation], tsv_file: Path) -> Augmentation:
    return job_of(tsv_file)


@pytest.fixture(scope="module")
def whole(job: Augmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an augmentation that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "o.tsv"
    augment(job, out, chunk_rows=ROWS_A_CHUNK)
    return out


def killed(job: Augmentation, out: Path, event: str, name: str, times: int) -> None:
    """Run in a child that SIGKILL ends at the given time that it opens, renames or cuts a file of some name."""
    seen = 0

    def count(found: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        # Python reports these to audit hooks before they happen.
        if found == event and str(arguments[1 if event == "os.rename" else 0]).endswith(name):
            seen += 1
            if seen == times:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: augment(job, out, chunk_rows=ROWS_A_CHUNK), count) == -signal.SIGKILL


def files(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()}


def test_the_output_holds_the_rows_and_then_their_copies_in_order(whole: Path, tsv_file: Path) -> None:
    source = tsv_file.read_text(encoding="utf-8").splitlines()
    header, *lines = [line.split("\t") for line in whole.read_text(encoding="utf-8").splitlines()]
    assert header == ["sentence", "label", "origin", "copy"]
    places = [(int(origin), int(copy)) for _, _, origin, copy in lines]
    assert places[:96] == [(row, 0) for row in range(96)]
    assert places[96:] == sorted(set(places[96:]))
    assert all(copy > 0 for _, copy in places[96:])
    assert {origin for origin, _ in places} == set(range(96))
    for (text, label, _, _), (origin, copy) in zip(lines, places, strict=True):
        original = source[origin + 1].split("\t")
        assert label == original[1]
        assert (text == original[0]) == (copy == 0)
        assert len(text.split()) == len(original[0].split())
    assert max(copy for _, copy in places) <= 20
    texts = [(origin, text) for text, _, origin, _ in lines]
    assert len(set(texts)) == len(texts)
    assert len(lines) > 5 * 96


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_chunks_change_no_byte(
    job_of: Any, whole: Path, tsv_file: Path, tmp_path: Path, batch_size: int
) -> None:
    for chunk_rows in (5, CHUNK_ROWS):
        out = tmp_path / f"{chunk_rows}.tsv"
        augment(job_of(tsv_file, batch_size=batch_size), out, chunk_rows=chunk_rows)
        assert out.read_bytes() == whole.read_bytes()


MOMENTS = [
    ("os.rename", "o.tsv.progress.json", 1),
    ("open", "o.tsv.partial", 1),
    ("os.rename", "o.tsv.progress.json", 2),
    ("os.rename", "o.tsv.progress.json", 5),
    ("open", "o.tsv.partial", 6),
    ("os.rename", "o.tsv.json", 1),
    ("os.rename", "o.tsv", 1),
    ("os.remove", "o.tsv.progress.json", 1),
]


@pytest.mark.parametrize(("event", "name", "times"), MOMENTS)
def test_a_killed_augmentation_ends_with_the_same_bytes(
    job: Augmentation, whole: Path, tmp_path: Path, event: str, name: str, times: int
) -> None:
    out, done = tmp_path / "o.tsv", []
    killed(job, out, event, name, times)
    assert out.exists() == (event == "os.remove")
    finished = augment(job, out, done.append)
    assert finished.was_there == (event == "os.remove")
    assert out.read_bytes() == whole.read_bytes()
    assert sum(done) == 96
    assert files(out) == {"o.tsv", "o.tsv.json"}
    assert finished.record.counts == augment(job, whole).record.counts


def test_what_was_written_is_not_done_again(job: Augmentation, whole: Path, tmp_path: Path) -> None:
    out, done = tmp_path / "o.tsv", []
    killed(job, out, "os.rename", "o.tsv.progress.json", 5)
    partial = out.with_name("o.tsv.partial")
    recorded = json.loads(out.with_name("o.tsv.progress.json").read_bytes())
    assert recorded["counts"]["rows_in"] == 2 * ROWS_A_CHUNK
    # The third chunk was written and not recorded.
    assert partial.stat().st_size > recorded["num_bytes"]
    augment(job, out, done.append, chunk_rows=ROWS_A_CHUNK)
    assert done == [32, 16, 16, 16, 16]
    assert out.read_bytes() == whole.read_bytes()


def test_a_finished_file_is_recognised_and_not_touched(job: Augmentation, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.parent.iterdir()}
    assert augment(job, whole).was_there
    assert {path: path.stat().st_mtime_ns for path in whole.parent.iterdir()} == before


CHANGES = [
    ({"copies": 3}, "copies = 20 and this command asks for 3"),
    ({"probability": 0.5}, "probability = 0.4"),
    ({"seed": 1}, "seed = 0"),
    ({"num_candidates": 4}, "candidates = 5"),
    ({"words": "[a-y]+"}, "words = "),
    ({"stop_words": "none"}, "stop_words_sha256 = "),
    ({"vectors": None}, "vectors_sha256 = "),
    ({"masked_lm": None}, "masked_lm = "),
    ({"layout": Layout("sst2", None, None, "", None)}, "data.fingerprint = "),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_another_request_is_refused_by_what_differs_and_touches_nothing(
    job: Augmentation, job_of: Any, whole: Path, tsv_file: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    other = job_of(tsv_file, **change)
    out = Path(shutil.copytree(whole.parent, tmp_path / "c")) / "o.tsv"
    unfinished = tmp_path / "d" / "o.tsv"
    killed(job, unfinished, "os.rename", "o.tsv.progress.json", 3)
    # Of the one that was killed it says who wrote there.
    (unfinished.parent / f".o.tsv{WRITING}").unlink()
    for path in (out, unfinished):
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        with pytest.raises(MismatchError, match=message):
            augment(other, path)
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


BEFORE = {"pairs": "both", "possessives": False}
OLD_KEYS = ["data", "masked_lm", "vectors_sha256", "words", "stop_words_sha256", "candidates"]
OLD_KEYS += ["copies", "probability", "seed"]


def test_rules_that_came_later_enter_a_request_where_they_change_something(
    job_of: Any, vectors_file: Path, job: Augmentation, tsv_file: Path, tmp_path: Path
) -> None:
    """A file of single texts without possessives is the one it was before; so is any by the rules of before."""
    assert list(job.request()) == OLD_KEYS
    assert job.request() == job_of(tsv_file, **BEFORE).request()
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("one\ttwo\nthe film's cast\tthe plot is calm\n", encoding="utf-8")
    layout = Layout(None, "one", "two", None, None)
    assert list(job_of(pairs, layout, **BEFORE).request()) == OLD_KEYS
    cut = job_of(pairs, layout, vectors=load_vectors(vectors_file, 3)).request()
    assert {name: value for name, value in cut.items() if name not in OLD_KEYS} == {
        "pairs": "one-at-a-time",
        "possessives": True,
        "vectors_limit": 3,
    }


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"possessives": False}, "pairs = both and this command asks for one-at-a-time"),
        ({"pairs": "both"}, "possessives = False and this command asks for True"),
    ],
)
def test_a_file_begun_by_the_rules_of_before_goes_on_by_them_and_by_no_others(
    job_of: Any, tmp_path: Path, kept: dict[str, Any], message: str
) -> None:
    rows, out = tmp_path / "pairs.tsv", tmp_path / "d" / "o.tsv"
    lines = [f"the film's cast {number}\tthe plot is calm {number}\n" for number in range(40)]
    rows.write_text("one\ttwo\n" + "".join(lines), encoding="utf-8")
    layout = Layout(None, "one", "two", None, None)
    before = job_of(rows, layout, copies=2, **BEFORE)
    augment(before, tmp_path / "whole.tsv")
    killed(before, out, "os.rename", "o.tsv.progress.json", 3)
    (out.parent / f".o.tsv{WRITING}").unlink()
    with pytest.raises(MismatchError, match=message):
        augment(job_of(rows, layout, copies=2, **kept), out)
    augment(before, out)
    assert out.read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_another_column_of_the_same_rows_is_another_request(job_of: Any, tmp_path: Path) -> None:
    """It is passed on, though the rows' fingerprint leaves it out."""
    given = Layout(None, "t", None, None, None)
    path, out = tmp_path / "a.tsv", tmp_path / "o.tsv"
    path.write_text("t\tid\nthe film\t1\n")
    augment(job_of(path, given), out)
    path.write_text("t\tid\nthe film\t2\n")
    with pytest.raises(MismatchError, match=r"data\.sha256"):
        augment(job_of(path, given), out)


def test_files_of_something_else_are_never_overwritten(job: Augmentation, tmp_path: Path) -> None:
    for name in ("o.tsv", "o.tsv.json", "o.tsv.partial", "o.tsv.progress.json"):
        out = tmp_path / name.replace(".", "_") / "o.tsv"
        out.parent.mkdir()
        out.with_name(name).write_text("mine\n")
        with pytest.raises(MismatchError, match=rf"{name} .*choose another --out"):
            augment(job, out)
        assert files(out) == {name}
        assert out.with_name(name).read_text() == "mine\n"


def test_changed_rows_are_noticed(job: Augmentation, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole.parent, tmp_path / "c")) / "o.tsv"
    out.write_bytes(out.read_bytes().replace(b"the", b"teh", 1))
    with pytest.raises(MismatchError, match="was changed after it was written"):
        augment(job, out)
    out = tmp_path / "d" / "o.tsv"
    killed(job, out, "os.rename", "o.tsv.progress.json", 3)
    partial = out.with_name("o.tsv.partial")
    for data in (partial.read_bytes().replace(b"the", b"teh", 1), b""):
        partial.write_bytes(data)
        with pytest.raises(DamageError, match="delete both"):
            augment(job, out)


def test_the_record_tells_how_the_file_was_made(whole: Path, lm: Any) -> None:
    record = json.loads(whole.with_name("o.tsv.json").read_bytes())
    lines = whole.read_text().splitlines()
    assert record["done"]
    assert record["counts"]["rows_in"] == 96
    assert record["counts"]["rows_out"] == len(lines) - 1
    assert record["request"]["masked_lm"] == lm.facts
    assert {name: record["request"][name] for name in ("copies", "probability", "seed", "candidates", "words")} == {
        "copies": 20,
        "probability": 0.4,
        "seed": 0,
        "candidates": 5,
        "words": "[a-z]+",
    }
    counts = record["counts"]
    assert counts["masked_lm"] > counts["replaced_masked_lm"] / 20 > 0
    assert record["num_bytes"] == whole.stat().st_size
    assert record["seconds"] > 0


def test_a_sentence_that_comes_again_is_looked_up_once(
    job_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hskcache.augment import predict

    asked: list[int] = []
    plain = predict.best_ids
    monkeypatch.setattr(
        predict, "best_ids", lambda lm, texts, *rest: asked.append(len(texts)) or plain(lm, texts, *rest)
    )
    path = tmp_path / "a.tsv"
    path.write_text("sentence\tlabel\n" + "the film is dull\t0\nthe plot is dull\t1\n" * 10)
    augment(job_of(path), tmp_path / "o.tsv", chunk_rows=3)
    assert asked == [4]


def test_probability_0_gives_the_rows_alone(job_of: Any, tsv_file: Path, tmp_path: Path) -> None:
    augment(job_of(tsv_file, probability=0.0), tmp_path / "o.tsv")
    rows = [line.rsplit("\t", 2) for line in (tmp_path / "o.tsv").read_text().splitlines()[1:]]
    assert [row for row, _, _ in rows] == tsv_file.read_text().splitlines()[1:]
    assert {copy for _, _, copy in rows} == {"0"}


def test_rows_without_anything_to_replace_are_passed_on(job_of: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("sentence\tlabel\nthe of and\t0\n... ''\t1\ncalm\t1\n")
    done = augment(job_of(path, vectors=None, probability=1.0), tmp_path / "o.tsv")
    assert (tmp_path / "o.tsv").read_text().count("\n") == 4
    assert (done.record.counts.rows_in, done.record.counts.rows_out, done.record.counts.left) == (3, 3, 1)
