"""The picture of a run, looked at as pixels."""

from pathlib import Path

import numpy as np
from matplotlib import colors, image

from trainer.stark.plot import plot
from trainer.stark.results import Results, results_of
from trainer.stark.settings import DENSE, KNOWLEDGE, OTHERS, Level


def results(*methods: str, dense: float = 0.5, metric: str = "f1") -> Results:
    scores = {Level(method, percent): {metric: 0.4 + percent / 1000} for method in methods for percent in (30, 60)}
    return results_of(metric, (16, 256), 900, {DENSE: {metric: dense}} | scores)


def drawn(found: Results, path: Path) -> np.ndarray:
    plot(found, "dev.tsv", path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels: np.ndarray = image.imread(path)[:, :, :3]
    return pixels


def num_of(pixels: np.ndarray, color: str) -> int:
    return int((np.abs(pixels - colors.to_rgb(color)).max(axis=2) < 0.02).sum())


def test_each_method_has_a_curve_of_its_own(tmp_path: Path) -> None:
    every = drawn(results(KNOWLEDGE, *OTHERS), tmp_path / "every.png")
    assert 800 <= every.shape[1] <= 2000
    assert 400 <= every.shape[0] <= 1500
    alone = drawn(results(KNOWLEDGE), tmp_path / "alone.png")
    for color in ("tab:orange", "tab:green", "tab:purple"):
        assert num_of(every, color) > 100
        assert num_of(alone, color) == 0
    assert num_of(alone, "tab:blue") > 500
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".png"] == []


def test_the_ring_stands_at_the_best_level(tmp_path: Path) -> None:
    """To the left where the dense teacher is best, to the right where the sparsest is."""
    left, right = (
        np.argwhere(np.abs(drawn(found, tmp_path / "p.png")[50:] - colors.to_rgb("tab:red")).max(axis=2) < 0.1)
        for found in (results(KNOWLEDGE, dense=0.9), results(KNOWLEDGE, dense=0.1))
    )
    assert left[:, 1].max() + 500 < right[:, 1].min()


def test_a_single_level_can_be_drawn(tmp_path: Path) -> None:
    pixels = drawn(results(), tmp_path / "p.png")
    assert num_of(pixels, "black") > 500


def test_the_reach_of_chance_is_shaded_around_the_dense_teachers_student(tmp_path: Path) -> None:
    """Of accuracy alone, whose standard error is known."""
    shade = colors.to_hex((0.93, 0.93, 0.93))
    shaded, bare = (
        num_of(drawn(results(KNOWLEDGE, metric=metric), tmp_path / f"{metric}.png"), shade)
        for metric in ("accuracy", "f1")
    )
    assert shaded > 10_000 > 1_000 > bare
