"""The picture of a study, looked at as pixels."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors, image

from hskcache.studied import SeedScore, StudyPoint, StudyResults
from trainer.study.chart import STYLES
from trainer.study.curves import plot
from trainer.study.plan import known_studies, load_plan


def point(name: str, strategy: str, num_bytes: float, mean: float | None, interval: float | None = None) -> StudyPoint:
    scores = [] if mean is None else [SeedScore(seed=0, score=mean, cell=name)]
    return StudyPoint(
        name=name,
        axes={},
        strategy=strategy,
        bytes_per_row=num_bytes,
        scores=scores,
        mean=mean,
        interval=interval,
        interval_by=None if interval is None else "seeds",
    )


def drawn(
    path: Path,
    *points: StudyPoint,
    teacher: float | None = 0.9,
    labels: float | None = 0.6,
    about: str = "What is enough",
) -> np.ndarray:
    results = StudyResults(
        name="s",
        cache="c",
        num_rows=100,
        metric="accuracy",
        num_eval_rows=50,
        teacher=teacher,
        labels=None if labels is None else point("labels alone", "labels alone", 0.0, labels),
        seeds=[0],
        points=list(points),
    )
    plot(results, about, path)
    pixels: np.ndarray = image.imread(path)[:, :, :3]
    return pixels


def num_of(pixels: np.ndarray, color: str) -> int:
    return int((np.abs(pixels - colors.to_rgb(color)).max(axis=2) < 0.02).sum())


def columns_of(pixels: np.ndarray, color: str) -> np.ndarray:
    return np.unique(np.argwhere(np.abs(pixels[100:] - colors.to_rgb(color)).max(axis=2) < 0.02)[:, 1])


def test_each_strategy_has_a_curve_and_what_is_not_done_has_none(tmp_path: Path) -> None:
    some = [point("1t", "attention", 10, 0.7), point("5t", "attention", 50, 0.8)]
    both = drawn(tmp_path / "both.png", *some, point("l1t", "left", 10, 0.6), point("l5t", "left", 50, 0.7))
    one = drawn(tmp_path / "one.png", *some, point("l1t", "left", 10, None), point("l5t", "left", 50, None))
    assert num_of(both, "tab:blue") > 300 < num_of(one, "tab:blue")
    assert num_of(both, "tab:orange") > 300
    assert num_of(one, "tab:orange") == 0


def test_teacher_and_labels_are_level_lines(tmp_path: Path) -> None:
    points = [point("1t", "attention", 10, 0.7), point("5t", "attention", 50, 0.8)]
    with_both = drawn(tmp_path / "both.png", *points)
    without = drawn(tmp_path / "none.png", *points, teacher=None, labels=None)
    assert num_of(with_both, "tab:gray") > num_of(without, "tab:gray") + 300
    assert num_of(with_both, "black") > num_of(without, "black") + 300


def test_an_interval_is_a_band(tmp_path: Path) -> None:
    banded = drawn(tmp_path / "b.png", point("a", "x", 10, 0.7, 0.1), point("b", "x", 1000, 0.8, 0.1))
    bare = drawn(tmp_path / "n.png", point("a", "x", 10, 0.7), point("b", "x", 1000, 0.8))
    pale = colors.to_hex(0.12 * np.array(colors.to_rgb("tab:blue")) + 0.88)
    assert num_of(banded, pale) > 5000 > num_of(bare, pale)


def test_bytes_are_on_a_log_axis(tmp_path: Path) -> None:
    """Ten, a hundred and a thousand bytes are as far from each other."""
    pixels = drawn(
        tmp_path / "p.png", *(point(str(size), str(size), size, 0.7) for size in (10, 100, 1000)), teacher=None
    )
    centres = [columns_of(pixels, color).mean() for color in ("tab:blue", "tab:orange", "tab:green")]
    assert abs((centres[1] - centres[0]) - (centres[2] - centres[1])) < 8
    assert centres[1] - centres[0] > 200


def test_points_that_keep_as_much_stand_side_by_side(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "p.png", *(point(f"s{n}", f"s{n}", 8.0, 0.6 + n / 100, 0.02) for n in (0, 10, 20)))
    assert num_of(pixels, "tab:blue") > 200
    assert num_of(pixels, "tab:orange") == 0
    assert np.ptp(columns_of(pixels, "tab:blue")) > 500


def test_a_long_title_has_lines_enough(tmp_path: Path) -> None:
    about = "How many layers, tokens and columns a student needs, one by one and together, of teachers and rows"
    pixels = drawn(tmp_path / "study.png", point("1t", "attention", 10, 0.7), about=about)
    assert (pixels[:, -4:] == 1).all()


@pytest.mark.parametrize("name", known_studies())
def test_no_two_strategies_of_a_study_that_ships_look_alike(name: str) -> None:
    plan = load_plan(name)
    values = [len(of) for axis, of in plan.axes.items() if axis not in {"tokens", "width"}]
    assert len(plan.lines) + prod(values) + plan.logits <= len(STYLES)
