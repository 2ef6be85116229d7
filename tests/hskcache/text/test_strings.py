"""Rows that stand on the disk while they are read are the same rows: texts, labels, tokens, fingerprints, faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hskcache.errors import DataError
from hskcache.text import tokenize
from hskcache.text.examples import Examples
from hskcache.text.rows import Overrides, examples_for
from hskcache.text.strings import Flat, Strings, column, spooling
from hskcache.text.table import RowPolicy

VALUES = st.one_of(st.text(st.characters(categories=["L", "N", "Zs", "Cs", "So"])), st.integers(), st.none())


@given(values=st.lists(VALUES, max_size=30), index=st.integers(-40, 40), cut=st.slices(30))
def test_a_column_on_the_disk_is_a_sequence_of_its_values(values: list[object], index: int, cut: slice) -> None:
    with spooling(Path.cwd()):
        strings = column(values)
    assert isinstance(strings, Strings)
    assert list(strings) == values
    assert len(strings) == len(values)
    assert strings[cut] == values[cut]
    if -len(values) <= index < len(values):
        assert strings[index] == values[index]
    else:
        with pytest.raises(IndexError):
            strings[index]


@pytest.mark.parametrize("parts", [[], [[1, 2], [3]], [[]]])
def test_an_array_is_the_same_in_memory_and_on_the_disk(parts: list[list[int]], tmp_path: Path) -> None:
    def flat() -> Flat:
        made = Flat(np.int32)
        for part in parts:
            made.append(np.array(part, np.int64))
        return made

    with spooling(tmp_path):
        there = flat().whole()
    here = flat().whole()
    assert here.dtype == there.dtype == np.int32
    assert here.tolist() == there.tolist() == [number for part in parts for number in part]


ROWS = [("a film", "1"), ("ünd zwei", "0"), ("dull", "1"), ("three \u2028 lines", "0")]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    match suffix:
        case ".tsv":
            path.write_text("text\tlabel\r\n" + "".join(f"{text}\t{label}\r\n" for text, label in ROWS), "utf-8-sig")
        case ".csv":
            path.write_text('text;label\n"two\nlines ""quoted""";0\n' + "".join(f'"{t}";{n}\n' for t, n in ROWS))
        case ".jsonl":
            path.write_text("".join(json.dumps({"text": t, "label": int(n)}) + "\n\n" for t, n in ROWS))
        case ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [int(n) for _, n in ROWS]}), path)
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows_and_tokens(suffix: str, tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)

    def read() -> Examples:
        return examples_for(written(tmp_path, suffix), overrides=Overrides("text", label="label"))

    here, tokens_here = read(), tokenize(read(), tokenizer, 12)
    with spooling(tmp_path):
        there = read()
        tokens = tokenize(there, tokenizer, 12)
    assert isinstance(there.texts, Strings)
    assert isinstance(tokens.input_ids, np.memmap)
    assert list(there.texts) == here.texts
    assert there.labels is not None
    assert there.labels.tolist() == here.labels.tolist()
    assert there.fingerprint == here.fingerprint
    assert list(there.reading.numbers) == list(here.reading.numbers)
    for name in ("input_ids", "offsets", "token_type_ids"):
        assert np.array_equal(getattr(tokens, name), getattr(tokens_here, name))
    # The files have no names, so that nothing is left whatever happens.
    assert [path.name for path in tmp_path.iterdir()] == [f"rows{suffix}"]


def test_rows_are_left_out_as_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"text": "one", "label": 0}, {"text": 5, "label": 1}, {"text": "two"}, {"text": "three", "label": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = Overrides("text", label="label")
    with spooling(tmp_path):
        examples = examples_for(path, overrides=given, policy=RowPolicy(bad_rows="skip"))
        assert list(examples.texts) == ["one", "three"]
        assert examples.where(1) == f"{path} line 4"
        with pytest.raises(DataError, match="line 3: no key 'label'"):
            examples_for(path, overrides=given, labels=["0", "1"])
