"""Scales and ticks of charts, what is escaped in them, and the ranks and heads of rows that are shown."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commanded import run
from hypothesis import example, given
from hypothesis import strategies as st

from hskcache.cache import open_cache
from hskcache.report import charts
from hskcache.report.charts import NUM_COLOURS
from hskcache.report.curves import curves
from hskcache.report.page import head_bars
from hskcache.report.shown import shown_rows
from hskcache.report.svg import Drawing, Scale, alike, even_ticks, log_ticks
from hskcache.stats.model import LayerBytes
from hskcache.studied import SeedScore, StudyPoint, StudyResults, shown_range


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 9))
@example(1.0, 400_001.0, 2)
def test_even_ticks_are_round_within_and_not_too_many(low: float, length: float, most: int) -> None:
    ticks = even_ticks(low, low + length, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 * length <= tick <= low + length * (1 + 1e-6) for tick in ticks)
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(60, 900, [100, 200, 500]), (3, 2e6, [10, 100, 1000, 10000, 100000, 1000000]), (1, 10, [1, 2, 5, 10])],
)
def test_log_ticks_are_powers_of_ten_and_what_is_between_where_these_are_few(
    low: float, high: float, expected: list[float]
) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_a_scale_by_factors_has_equal_steps_for_equal_factors() -> None:
    scale = Scale(10, 1000, 0, 200, is_log=True)
    assert [scale(number) for number in (10, 100, 1000)] == [0, 100, 200]
    assert Scale(3, 3, 0, 10)(3) == 5


def test_numbers_of_an_axis_have_as_many_digits_each() -> None:
    told = alike([0.8, 0.82, 0.84])
    assert [told(number) for number in (0.8, 0.82)] == ["0.80", "0.82"]
    assert alike([1000, 2000])(1000) == "1,000"


def test_words_in_a_drawing_are_escaped() -> None:
    drawing = Drawing(10, 10, "<a> & 'b'", 'about "<c>"')
    drawing.text(1, 2, "</text><script>")
    drawing.mark("rect", title="<d>", class_='"><e>')
    root = ElementTree.fromstring(drawing.svg())
    assert [child.tag for child in root] == ["title", "desc", "text", "rect"]
    assert root[2].text == "</text><script>"
    assert root[3].attrib == {"class": '"><e>'}


def test_parts_of_the_bar_are_as_wide_as_their_bytes() -> None:
    sizes = [LayerBytes(field="a", layer=None, num_bytes=100), LayerBytes(field="b", layer=1, num_bytes=300)]
    root = ElementTree.fromstring(charts.size_bar(sizes))
    bars = [one for one in root if one.tag == "rect"]
    assert float(bars[1].attrib["x"]) == 240
    assert float(bars[1].attrib["width"]) == pytest.approx(3 * 240, abs=3)
    assert bars[1][0].text == "b 1: 300 B"


@pytest.fixture(scope="module")
def cache(sources: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shown") / "c"
    kept = ("--keep", "1l_3t", "--attention", "1l_5t", "--student-layers", "2", "--max-length", "48")
    assert run("build", *sources, "--task", "sst2", *kept, "--shard-rows", "20", "--out", out).exit_code == 0
    return out


def test_rows_are_shown_with_ranks_labels_and_probabilities(cache: Path) -> None:
    opened = open_cache(cache)
    found = shown_rows(opened, [70, 3, 3], with_values=False)
    assert list(found) == [3, 70]
    for number, row in found.items():
        assert row.headings == ["layer 4", "attention 4"]
        stored = opened[number]
        by_rank = {token.ranks[0].rank: place for place, token in enumerate(row.tokens) if token.ranks[0].rank}
        assert [by_rank[rank] for rank in sorted(by_rank)] == stored["hidden.4.positions"].tolist()
        weights = np.exp(stored["logits"].astype(np.float64))
        assert list(row.answers["logits"].values()) == pytest.approx((weights / weights.sum()).tolist())
        assert row.label == str(stored["label"])
        assert row.is_wrong("logits") == (stored["logits"].argmax() != stored["label"])
        assert not any(token.heads for token in row.tokens)


def test_heads_share_their_attention_among_the_kept_keys(cache: Path) -> None:
    opened = open_cache(cache)
    (row,) = shown_rows(opened, [5], with_values=True).values()
    scores_HKK, positions = opened[5]["attention.4"].astype(np.float64), opened[5]["attention.4.positions"]
    weights_HKK = np.exp(scores_HKK) / np.exp(scores_HKK).sum(-1, keepdims=True)
    for place, position in enumerate(positions):
        expected = weights_HKK[:, :, place].mean(1)
        assert row.tokens[position].heads["attention 4"] == pytest.approx(expected.tolist(), rel=1e-5)
    assert sum("attention 4" in token.heads for token in row.tokens) == len(positions)


def test_bars_of_heads_tell_the_largest() -> None:
    told = head_bars([0.1, 0.4, 0.2])
    assert told.endswith("head 1 40 %")
    assert head_bars([]).startswith("<svg")


def _study(num_lines: int) -> StudyResults:
    """A study of lines of one point each."""
    points = [
        StudyPoint(
            name=f"p{number}",
            axes={},
            strategy=f"line {number}",
            bytes_per_row=10.0 * (number + 1),
            scores=[SeedScore(seed=0, score=0.7, cell="c")],
            mean=0.7,
            interval=0.02,
            interval_by="rows",
        )
        for number in range(num_lines)
    ]
    return StudyResults(name="s", cache="c", num_rows=9, metric="accuracy", num_eval_rows=9, seeds=[0], points=points)


def test_lines_beyond_the_colours_of_the_page_look_otherwise_than_the_first() -> None:
    drawn = str(curves(_study(2 * NUM_COLOURS)))
    dots = re.findall(r'class="(dot [^"]*)"', drawn)
    assert len(set(dots)) == len(dots) == 2 * NUM_COLOURS
    assert sum("again" in dot for dot in dots) == NUM_COLOURS


def test_the_interval_of_a_point_alone_is_a_bar() -> None:
    drawn = str(curves(_study(1)))
    ((low, high),) = re.findall(r'class="bar s\d" d="M[\d.]+ ([\d.]+)V([\d.]+)"', drawn)
    assert float(low) > float(high)
    assert "band" not in drawn


def test_an_axis_shows_every_score_and_usual_intervals_whole() -> None:
    low, high = shown_range([0.60, 0.65, 0.78], [(0.60, 0.03), (0.65, 0.04)])
    assert low < 0.57
    assert 0.78 < high < 0.85


def test_an_interval_of_points_that_came_to_nothing_runs_off_the_picture() -> None:
    """What an F1 of 0, 0 and 0.51 leaves open, 0.17 ± 0.74, is no reason to press all others into a line."""
    usual = [(0.60, 0.03), (0.64, 0.02), (0.66, 0.03)]
    low, high = shown_range([0.78, 0.17, *(mean for mean, _ in usual)], [(0.17, 0.74), *usual])
    assert -0.1 < low < 0.17 < 0.78 < high < 1


def test_scores_that_are_one_have_an_axis_nevertheless() -> None:
    low, high = shown_range([0.5, 0.5], [])
    assert low < 0.5 < high


def test_an_interval_ends_within_the_picture_of_a_report() -> None:
    study = _study(4)
    study.points[0] = study.points[0].model_copy(update={"interval": 5.0})
    bars = re.findall(r'class="bar s\d" d="M[\d.]+ (-?[\d.]+)V(-?[\d.]+)"', str(curves(study)))
    assert len(bars) == 4
    assert all(0 <= float(end) <= 380 for bar in bars for end in bar)
