"""A spool is whole or not used, however the process that wrote it ended."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from transformers import PreTrainedTokenizerBase

from hskcache.errors import DataError
from hskcache.text import lines as reading
from hskcache.text import load_tokenizer
from hskcache.text.corpus import Corpus, pack_corpus
from hskcache.text.spool import Spool

MAX_LENGTH = 16
FILES = ("ids.bin", "offsets.bin", "rows.json")


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_dir: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_tokenizer_dir)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of twenty batches and 101 documents."""
    monkeypatch.setattr(reading, "BATCH_TEXTS", 20)
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"the film number {line} is dull\n{'' if line % 3 else chr(10)}" for line in range(300)))
    return path


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool" / "building", "tokenizer")


def contents(spool: Spool) -> list[bytes]:
    return [(spool.folder / name).read_bytes() for name in FILES]


def written(spool: Spool) -> list[int]:
    """When each file was written, in ns."""
    return [(spool.folder / name).stat().st_mtime_ns for name in FILES]


def rows_of(found: Corpus) -> tuple[Any, ...]:
    return found.rows.input_ids.tolist(), found.rows.offsets.tolist(), found.num_documents, found.num_tokens


def killed(work: Callable[[], object], hook: Callable[[str, tuple[Any, ...]], None] | None = None) -> bool:
    """Do ``work`` in a child process, under an audit hook; whether SIGKILL ended it."""
    return in_child(work, hook) == -signal.SIGKILL


def kill_at_event(event: str, file: str) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that kills right before Python opens, removes or renames a file."""

    def hook(found: str, arguments: tuple[Any, ...]) -> None:
        if found == event and str(arguments[0]).endswith(f"building/{file}"):
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def kill_after(batches: int) -> Callable[[int], None]:
    def on_progress(_: int) -> None:
        nonlocal batches
        batches -= 1
        if batches == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress


def test_a_second_call_uses_the_whole_spool_and_tokenizes_nothing(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase
) -> None:
    first, done = pack_corpus(source, tokenizer, MAX_LENGTH, spool), []
    before = written(spool)
    renamed = source.rename(source.with_name("renamed.txt"))
    second = pack_corpus(renamed, tokenizer, MAX_LENGTH, spool, done.append)
    assert written(spool) == before
    assert done == [renamed.stat().st_size]
    assert (rows_of(second), second.fingerprint) == (rows_of(first), first.fingerprint)
    assert second.source == str(renamed)


def test_another_text_length_or_tokenizer_is_packed_anew(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = pack_corpus(source, tokenizer, MAX_LENGTH, spool)
    was = rows_of(first)
    edited = tmp_path / "edited.txt"
    # As long as before, so that the content alone tells.
    edited.write_text(source.read_text().replace("film", "cast"))
    others = [
        (edited, MAX_LENGTH, spool),
        (edited, MAX_LENGTH + 1, spool),
        (edited, MAX_LENGTH + 1, replace(spool, tokenizer_digest="other")),
    ]
    for path, max_length, where in others:
        before = written(spool)
        again = pack_corpus(path, tokenizer, max_length, where)
        assert not set(written(spool)) & set(before)
        assert rows_of(again) == rows_of(pack_corpus(path, tokenizer, max_length, Spool(tmp_path / "fresh", "")))
    assert rows_of(first) == was, "rows that were mapped before must stay valid"


@pytest.mark.parametrize(
    ("event", "file"),
    [
        ("os.remove", "rows.json"),
        ("os.remove", "ids.bin"),
        ("open", "ids.bin"),
        ("open", "offsets.bin"),
        ("open", "rows.json.tmp"),
        ("os.rename", "rows.json.tmp"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_at_any_step_leaves_nothing_that_a_later_call_would_take_for_whole(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, event: str, file: str,
    is_first: bool,
) -> None:  # fmt: skip
    """Over an empty folder, and over the whole spool of another text."""
    whole = Spool(tmp_path / "whole", "tokenizer")
    pack_corpus(source, tokenizer, MAX_LENGTH, whole)
    other = tmp_path / "other.txt"
    other.write_text("the story is charming\n" * 300)
    if not is_first:
        pack_corpus(other, tokenizer, MAX_LENGTH, spool)
    assert killed(lambda: pack_corpus(source, tokenizer, MAX_LENGTH, spool), kill_at_event(event, file))
    kept = Spool(tmp_path / "kept", "tokenizer")
    expected = rows_of(pack_corpus(other, tokenizer, MAX_LENGTH, kept))
    if not is_first:
        assert rows_of(pack_corpus(other, tokenizer, MAX_LENGTH, spool)) == expected
    pack_corpus(source, tokenizer, MAX_LENGTH, spool)
    assert contents(spool) == contents(whole)


@pytest.mark.parametrize("batches", [1, 7, 19])
def test_a_kill_while_tokenizing_changes_nothing_in_the_end(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, batches: int
) -> None:
    whole = Spool(tmp_path / "whole", "tokenizer")
    pack_corpus(source, tokenizer, MAX_LENGTH, whole)
    assert killed(lambda: pack_corpus(source, tokenizer, MAX_LENGTH, spool, kill_after(batches)))
    assert not (spool.folder / "rows.json").exists()
    pack_corpus(source, tokenizer, MAX_LENGTH, spool)
    assert contents(spool) == contents(whole)


@pytest.mark.parametrize("damage", ["cut ids", "longer offsets", "no ids", "cut record", "record of another kind"])
def test_a_spool_whose_files_do_not_fit_together_is_written_anew(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase, damage: str
) -> None:
    pack_corpus(source, tokenizer, MAX_LENGTH, spool)
    whole = contents(spool)
    ids, offsets, record = (spool.folder / name for name in FILES)
    if damage == "cut ids":
        ids.write_bytes(whole[0][:-4])
    elif damage == "longer offsets":
        offsets.write_bytes(whole[1] + bytes(8))
    elif damage == "no ids":
        ids.unlink()
    elif damage == "cut record":
        record.write_bytes(whole[2][:-9])
    else:
        record.write_bytes(b"[]")
    pack_corpus(source, tokenizer, MAX_LENGTH, spool)
    assert contents(spool) == whole


def test_a_text_that_changes_while_it_is_read_is_refused_and_leaves_no_record(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase
) -> None:
    def append(_: int) -> None:
        with source.open("a") as file:
            file.write("more\n")

    with pytest.raises(DataError, match="changed while it was read"):
        pack_corpus(source, tokenizer, MAX_LENGTH, spool, Once(append))
    assert not (spool.folder / "rows.json").exists()
    assert pack_corpus(source, tokenizer, MAX_LENGTH, spool).num_rows > 0


class Once:
    """Calls a function the first time it is called."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self._functions = [function]

    def __call__(self, value: int) -> None:
        if self._functions:
            self._functions.pop()(value)


def test_the_record_says_what_the_spool_holds_and_other_files_are_left_alone(
    source: Path, spool: Spool, tokenizer: PreTrainedTokenizerBase
) -> None:
    spool.folder.mkdir(parents=True)
    (spool.folder / "theirs").write_text("kept")
    found = pack_corpus(source, tokenizer, MAX_LENGTH, spool)
    record = json.loads((spool.folder / "rows.json").read_text())
    assert record["identity"]["source_bytes"] == source.stat().st_size
    assert record["identity"]["max_length"] == MAX_LENGTH
    assert [record["num_rows"], record["num_ids"]] == [found.num_rows, len(found.rows.input_ids)]
    assert sorted(path.name for path in spool.folder.iterdir()) == [*FILES, "theirs"]
    assert found.num_documents == 101
