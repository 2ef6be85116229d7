"""Entities of tags, against what seqeval 1.2.2 gives for the same tags without a scheme."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hskcache.classes import NO_CLASS
from hskcache.entities import entities, entity_counts, spelled

# Tags of one row, and the entities that seqeval's get_entities finds: type, first and last word.
FOUND = {
    "O B-PER I-PER O B-LOC": [("PER", 1, 2), ("LOC", 4, 4)],
    # IOB1: an entity begins with I unless another of its type is right before it.
    "I-PER I-PER O I-LOC B-LOC I-LOC": [("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 5)],
    # IOB2 broken: another type begins another entity, whatever the letter.
    "B-PER I-ORG I-ORG": [("PER", 0, 0), ("ORG", 1, 2)],
    "O I-PER I-PER": [("PER", 1, 2)],
    # IOBES, whole and broken.
    "B-PER I-PER E-PER S-LOC O S-LOC S-LOC": [("PER", 0, 2), ("LOC", 3, 3), ("LOC", 5, 5), ("LOC", 6, 6)],
    "B-PER E-PER E-PER I-PER": [("PER", 0, 1), ("PER", 2, 2), ("PER", 3, 3)],
    "S-PER I-PER E-PER": [("PER", 0, 0), ("PER", 1, 2)],
    # IOE: E ends an entity.
    "I-PER E-PER I-PER I-PER": [("PER", 0, 1), ("PER", 2, 3)],
    # Types behind the first hyphen alone, or none.
    "B-A-B I-A-B B-A": [("A-B", 0, 1), ("A", 2, 2)],
    "B I O B": [("_", 0, 1), ("_", 3, 3)],
    "O O": [],
    # Parts of speech are no entities; seqeval reads them so all the same.
    "NN NNS . NN": [("N", 0, 0), ("NS", 1, 1), ("N", 3, 3)],
}


def numbered(rows: list[str], names: list[str]) -> NDArray[np.object_]:
    found = np.empty(len(rows), object)
    for row, tags in enumerate(rows):
        found[row] = np.array([NO_CLASS if tag == "?" else names.index(tag) for tag in tags.split()])
    return found


@pytest.mark.parametrize("tags", FOUND)
def test_entities_are_those_that_seqeval_finds(tags: str) -> None:
    names = list(dict.fromkeys(tags.split()))
    written = spelled(list(numbered([tags], names)), names)
    types = dict.fromkeys(tag[1:].split("-", 1)[-1] or "_" for tag in names)
    found = entities(written)
    assert [(first, last) for first, last, _ in found.tolist()] == [(first, last) for _, first, last in FOUND[tags]]
    assert [list(types)[number] for *_, number in found.tolist()] == [name for name, *_ in FOUND[tags]]


def test_an_entity_counts_where_bounds_and_type_are_the_same() -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    gold = ["B-PER I-PER O B-LOC", "B-PER O", "O B-LOC"]
    answers = ["B-PER O O B-LOC", "B-LOC O", "O B-LOC"]
    counts = entity_counts(numbered(answers, names), numbered(gold, names), names)
    assert counts == (2, 4, 4), "seqeval: precision, recall and F1 of 0.5"
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.5, 0.5)


def test_an_entity_ends_with_its_row() -> None:
    names = ["O", "B-PER", "I-PER"]
    counts = entity_counts(numbered(["B-PER", "I-PER"], names), numbered(["B-PER", "I-PER"], names), names)
    assert counts == (2, 2, 2)


def test_words_without_a_gold_tag_are_taken_out_and_words_without_an_answer_are_outside() -> None:
    names = ["O", "B-PER", "I-PER"]
    gold = numbered(["B-PER ? I-PER", "B-PER I-PER"], names)
    answers = numbered(["B-PER O I-PER", "B-PER I-PER"], names)
    assert entity_counts(answers, gold, names) == (2, 2, 2)
    answers[1] = np.array([1, -1])
    assert entity_counts(answers, gold, names) == (1, 2, 2)


def test_nothing_to_find_scores_nothing() -> None:
    names = ["O", "B-PER"]
    counts = entity_counts(numbered(["O O"], names), numbered(["O O"], names), names)
    assert (counts.precision, counts.recall, counts.f1) == (0.0, 0.0, 0.0)
