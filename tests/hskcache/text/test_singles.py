"""Pairs as single texts, and a prompt before each."""

from pathlib import Path

import pytest

from hskcache.errors import SpecError
from hskcache.text.layout import Layout
from hskcache.text.singles import Alternating, with_prompt

ROWS = [("a", "b"), ("c", "d"), ("e", "f")]
LISTED = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    lines = ["one\ttwo\tscore", *(f"{first}\t{second}\t{row}.5" for row, (first, second) in enumerate(ROWS))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_both_texts_of_a_pair_are_rows_one_after_the_other() -> None:
    texts = Alternating(*map(list, zip(*ROWS, strict=True)))
    assert list(texts) == LISTED
    assert [texts[place] for place in range(-6, 6)] == LISTED + LISTED
    for first in range(7):
        for stop in range(7):
            assert list(texts[first:stop]) == LISTED[first:stop], (first, stop)
    assert list(texts[::2]) == LISTED[::2]
    assert list(with_prompt("q: ", texts)) == [f"q: {text}" for text in LISTED]
    assert with_prompt("q: ", texts)[1:3] == ["q: b", "q: c"]


def test_pairs_are_read_as_texts_without_labels(pairs_file: Path) -> None:
    pairs = Layout(text="one", text_pair="two").read_texts(str(pairs_file))
    assert list(pairs.texts) == LISTED
    assert pairs.pairs is None
    assert pairs.labels is None
    assert pairs.where(3).endswith("line 3"), "the second text of the second pair, below the header"
    first = Layout(text="one").read_texts(str(pairs_file))
    assert list(first.texts) == LISTED[::2]
    assert first.fingerprint != pairs.fingerprint


def test_a_label_is_refused(pairs_file: Path) -> None:
    with pytest.raises(SpecError, match=r"--label score: .* embeddings of texts have no labels"):
        Layout(text="one", label="score").read_texts(str(pairs_file))
