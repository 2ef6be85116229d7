from typing import Any

import pytest

from hskcache.errors import SpecError
from hskcache.selection.depth import LayerPair, kept_layers, layer_map, stored_layers, top_layer
from hskcache.spec import Depth


@pytest.mark.parametrize(
    ("student_layers", "target", "teacher"),
    [
        (4, 8, (0, 2, 4, 6, 8)),
        (4, 10, (0, 2, 5, 8, 10)),
        (4, 12, (0, 3, 6, 9, 12)),
        (6, 8, (0, 1, 3, 4, 5, 7, 8)),
        (6, 10, (0, 2, 3, 5, 7, 8, 10)),
        (6, 12, (0, 2, 4, 6, 8, 10, 12)),
    ],
)
def test_the_map_is_the_table_of_the_paper(student_layers: int, target: int, teacher: tuple[int, ...]) -> None:
    assert layer_map(student_layers, target) == teacher


def test_the_map_gives_the_uniform_attention_layers_of_tinybert() -> None:
    assert [layer - 1 for layer in layer_map(4, 12)[1:]] == [2, 5, 8, 11]
    assert [layer - 1 for layer in layer_map(6, 12)[1:]] == [1, 3, 5, 7, 9, 11]


def test_keeping_two_of_six_to_ten_gives_the_top_two_pairs() -> None:
    depth = Depth(student_layers=6, target=10, num_layers=2)
    assert kept_layers(depth, 12) == (LayerPair(student=5, teacher=8), LayerPair(student=6, teacher=10))


def test_listed_student_layers_are_kept_in_place_of_the_top_ones() -> None:
    depth = Depth(student_layers=4, target=10, kept=[3, 1])
    assert kept_layers(depth, 12) == ((1, 2), (3, 8))
    assert stored_layers(depth, 12) == (2, 8)
    assert top_layer(depth, 12) == 10
    with pytest.raises(SpecError, match=r"student layers 1,5 .*a student of 4 layers has layers 0 .* to 4"):
        kept_layers(Depth(student_layers=4, kept=[1, 5]), 12)
    with pytest.raises(SpecError, match="both the top 2 layers and the student layers 1 are kept"):
        kept_layers(Depth(student_layers=4, num_layers=2, kept=[1]), 12)


def test_without_a_target_the_top_student_layer_takes_the_last_teacher_layer() -> None:
    assert [pair.teacher for pair in kept_layers(Depth(student_layers=4), 24)] == [0, 6, 12, 18, 24]


def test_without_a_number_of_layers_all_are_kept_with_the_embedding_output() -> None:
    assert kept_layers(Depth(student_layers=2, target=4), 4) == ((0, 0), (1, 2), (2, 4))


def test_a_student_deeper_than_the_target_shares_teacher_layers() -> None:
    assert [pair.teacher for pair in kept_layers(Depth(student_layers=6, target=2), 2)] == [0, 0, 1, 1, 1, 2, 2]


def test_a_target_above_the_teacher_is_refused_with_the_highest_possible_one() -> None:
    with pytest.raises(SpecError, match=r"layer 13, but the teacher has 12 layers.*at most 12"):
        kept_layers(Depth(student_layers=4, target=13), 12)


def test_more_layers_than_the_student_has_are_refused_with_the_most_possible() -> None:
    assert len(kept_layers(Depth(student_layers=4, num_layers=5), 12)) == 5
    with pytest.raises(SpecError, match=r"6 layers .* student of 4 layers has 5.*at most 5"):
        kept_layers(Depth(student_layers=4, num_layers=6), 12)


@pytest.mark.parametrize(
    ("mapping", "target", "teacher"),
    [
        ("uniform", None, [0, 3, 6, 9, 12]),
        ("top", None, [0, 9, 10, 11, 12]),
        ("bottom", None, [0, 1, 2, 3, 4]),
        ("top", 10, [0, 7, 8, 9, 10]),
    ],
)
def test_the_maps_of_tinybert_s_ablation(mapping: Any, target: int | None, teacher: list[int]) -> None:
    """The embedding output always learns from the embedding output."""
    depth = Depth(student_layers=4, mapping=mapping, target=target)
    assert [pair.teacher for pair in kept_layers(depth, 12)] == teacher


def test_a_written_map_is_taken_as_it_is() -> None:
    depth = Depth(student_layers=3, layers=[12, 2, 2])
    assert kept_layers(depth, 12) == ((0, 0), (1, 12), (2, 2), (3, 2))
    assert kept_layers(depth.model_copy(update={"num_layers": 1}), 12) == ((3, 2),)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (Depth(student_layers=3, layers=[1, 2]), "names 2 teacher layers for 3 student layers"),
        (Depth(student_layers=2, layers=[1, 13]), "names layer 13, but the teacher has 12"),
        (Depth(student_layers=2, layers=[1, 2], mapping="top"), "both top and 1,2"),
        (Depth(student_layers=13, mapping="bottom"), "a student of at most 12 layers"),
        (Depth(student_layers=5, mapping="top", target=4), "a student of at most 4 layers"),
    ],
)
def test_maps_that_cannot_be_are_refused(depth: Depth, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        kept_layers(depth, 12)


@pytest.mark.parametrize(
    ("stored", "layers", "pairs"),
    [
        ("mapped", (0, 6, 12), [(0, 0), (1, 6), (2, 12)]),
        ("all", tuple(range(13)), [(0, 0), (1, 6), (2, 12)]),
        ([12, 3, 3], (3, 12), [(2, 12)]),
    ],
)
def test_what_is_stored_may_be_more_or_less_than_the_map(stored: Any, layers: Any, pairs: Any) -> None:
    """A student learns from the pairs of its map whose teacher layer is stored."""
    depth = Depth(student_layers=2, stored=stored)
    assert stored_layers(depth, 12) == layers
    assert list(kept_layers(depth, 12)) == pairs


@pytest.mark.parametrize("stored", [[], [13]])
def test_layers_that_the_teacher_does_not_have_cannot_be_stored(stored: list[int]) -> None:
    with pytest.raises(SpecError, match=r"has layers 0 .* to 12"):
        stored_layers(Depth(stored=stored), 12)
