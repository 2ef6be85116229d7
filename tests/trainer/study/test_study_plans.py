"""Plans and points: every study that ships is one, and its points are those that it tells of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from hskcache.cache import Cache
from hskcache.errors import SpecError
from hskcache.studied import PairedDifference
from trainer.study.intervals import interval_of, paired
from trainer.study.plan import known_studies, load_plan
from trainer.study.points import Basis, baseline_of, labels_point, points_of
from trainer.study.size import KnowledgeSizes


@pytest.mark.parametrize(
    ("name", "count", "strategies"),
    [
        ("depth", 7, 4),
        ("encoding", 8, 4),
        ("joint", 13, 5),
        ("copies", 3, 3),
        ("layer-map", 3, 3),
        ("length", 27, 6),
        ("missing", 8, 2),
        ("overview", 14, 9),
        ("score", 9, 3),
        ("width", 20, 4),
    ],
)
def test_a_study_that_ships_has_its_points(
    caches: Callable[[str], Cache], name: str, count: int, strategies: int
) -> None:
    """The cache has two layers of the map, so that ``each`` stands for two."""
    plan = load_plan(name)
    points = points_of(Basis(plan, caches("all"), "tinybert4"))
    assert (len(points), len({point.strategy for point in points})) == (count, strategies)
    assert baseline_of(plan, points, None) in {point.name for point in points}
    assert plan.about


def test_every_study_that_ships_is_among_those_tests() -> None:
    shipped = ["copies", "depth", "encoding", "joint", "layer-map", "length", "missing", "overview", "score", "width"]
    assert known_studies() == shipped


def test_axes_together_are_one_view_and_settings_are_of_the_recipe(caches: Callable[[str], Cache]) -> None:
    axes = ["layers=1", "tokens=3,all", "hidden.epochs=1,2", "score=left"]
    points = points_of(Basis(load_plan(None, axes), caches("all"), "tinybert4", ("prediction.epochs=4",)))
    assert [point.name for point in points] == ["epochs=1, 1l_3t", "epochs=2, 1l_3t", "epochs=1, 1l", "epochs=2, 1l"]
    assert {point.view for point in points} == {"1l_3t,score=left", "1l,score=left"}
    assert [stage.epochs for stage in points[1].recipe.stages] == [2, 4]
    assert [point.strategy for point in points[:2]] == ["epochs=1", "epochs=2"]


def test_labels_alone_have_as_many_epochs_as_the_recipe(caches: Callable[[str], Cache]) -> None:
    basis = Basis(load_plan(None, ["view=1l"]), caches("all"), "tinybert4", ("hidden.epochs=7",), task="rte")
    labels = labels_point(basis)
    assert labels is not None
    assert [stage.epochs for stage in labels.recipe.stages] == [12]
    assert labels_point(Basis(load_plan(None, ["view=1l"]).model_copy(update={"labels": False}), caches("all"))) is None


def test_axes_of_the_command_take_the_place_of_a_studys_and_its_baseline(caches: Callable[[str], Cache]) -> None:
    plan = load_plan("depth", ["target=4,3"])
    points = points_of(Basis(plan, caches("all"), "tinybert4"))
    assert [point.name for point in points[1:]] == ["target 4, 1l", "target 4, full", "target 3, 1l", "target 3, full"]
    assert [point.view for point in points[1:]] == ["1l,target=4", "", "1l,target=3", "target=3"]
    assert baseline_of(plan, points, None) == "target 4, full"
    assert load_plan("depth", ["hidden.epochs=1,2"]).baseline == "target 12, full"


def test_yes_and_no_are_words_of_a_view(caches: Callable[[str], Cache], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("axes: {tokens: 3, specials: [no, yes], hidden.losses.hidden.embedding: [no, yes]}")
    points = points_of(Basis(load_plan(str(path)), caches("all"), "tinybert4"))
    assert [point.view for point in points] == [f"3t,specials={word}" for word in ("no", "no", "yes", "yes")]
    terms = [point.recipe.stages[0].losses.terms["hidden"].model_dump()["embedding"] for point in points]
    assert terms == [False, True, False, True]


def test_logits_alone_are_a_point_without_hidden_states(caches: Callable[[str], Cache]) -> None:
    basis = Basis(load_plan("joint"), caches("all"), "tinybert4", ("hidden.epochs=7", "prediction.epochs=2"))
    alone, *others = points_of(basis)
    assert (alone.name, [stage.epochs for stage in alone.recipe.stages]) == ("logits alone", [9])
    assert alone.recipe.kinds == ("logits",)
    assert KnowledgeSizes(basis.cache).bytes_per_row(alone) == 8
    assert len(others) == 12


def test_a_file_gives_a_plan_and_one_value_stands_for_a_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "about: x\nset: {hidden.epochs: 2}\naxes: {layers: 1}\nlines: {left: {tokens: [1, all], score: left}}"
    )
    plan = load_plan(str(path))
    assert (plan.name, plan.changes) == ("mine", {"hidden.epochs": 2})
    assert plan.axes == {"layers": [1]}
    assert plan.lines == {"left": {"tokens": [1, "all"], "score": ["left"]}}
    assert load_plan(str(path), ["tokens=5"]).lines == {"left": {"score": ["left"]}}
    path.write_text("axis: {layers: 1}")
    with pytest.raises(SpecError, match="do you mean 'axes'"):
        load_plan(str(path))


@pytest.mark.parametrize("view", ["", "1l_3t", "2l_5t_0.1h", "2l_5t_0.5h"])
def test_bytes_a_row_are_those_of_the_arrays(caches: Callable[[str], Cache], view: str) -> None:
    """Summed over every array that is read, whichever positions a row has."""
    cache = caches("all")
    point = points_of(Basis(load_plan(None, ["view=full"]), cache, "tinybert4"))[0]
    seen = cache.view(view)
    arrays = [seen.read(name, shard) for name in ("logits", "hidden") for shard in range(len(seen.shards))]
    num_bytes = sum(array.nbytes for one in arrays for array in one.values()) - 8 * (len(seen.shards) - 1)
    sizes = KnowledgeSizes(cache)
    assert sizes.bytes_per_row(replace(point, view=view)) == pytest.approx(num_bytes / 96)
    assert sizes.encoding(replace(point, view=view)) == "float32"


def test_intervals_are_students_over_seeds_and_normal_over_rows() -> None:
    """t of 2 degrees of freedom at 97.5 % is 4.302653 (any table)."""
    by_seeds = interval_of([0.80, 0.82, 0.84], 0.5)
    assert by_seeds is not None
    assert (by_seeds.half_width, by_seeds.by) == (pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6), "seeds")
    by_rows = interval_of([0.8], 0.01)
    assert by_rows is not None
    assert (by_rows.half_width, by_rows.by) == (pytest.approx(0.0196), "rows")
    assert interval_of([0.8], None) is None
    assert interval_of([], 0.01) is None


def test_differences_are_taken_by_the_seeds_that_both_have() -> None:
    found = paired({0: 0.5, 1: 0.7, 3: 0.1}, {0: 0.4, 1: 0.5, 2: 0.9})
    assert found is not None
    assert found.mean == pytest.approx(fmean([0.1, 0.2]))
    # t of 1 degree of freedom is 12.7062.
    assert found.interval == pytest.approx(12.7062 * (0.1 / 2**0.5) / 2**0.5, rel=1e-4)
    assert paired({0: 0.5}, {0: 0.25}) == PairedDifference(mean=0.25, interval=None, num_seeds=1)
    assert paired({0: 0.5}, {1: 0.4}) is None
