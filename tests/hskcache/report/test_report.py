"""The page of a cache says what its statistics are, holds nothing that runs, and is one that a browser shows well."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Tab, browser, chromium
from commanded import parsed, refused, run
from stored import shard_file

from hskcache.cache import open_cache
from hskcache.studied import SeedScore, StudyPoint, StudyResults

HOSTILE = "<script>document.title='hit'</script>\"'&"


class Elements(HTMLParser):
    """Elements of a page, with their attributes, and all text outside of its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._inside or self._inside[-1] != "style":
            self.words += data


def study_of(cache: Path, folder: Path, cache_id: str | None = None) -> Path:
    """Results of a study with two strategies, written as the trainer writes them."""

    def point(strategy: str, tokens: int, num_bytes: float, score: float) -> StudyPoint:
        scores = [SeedScore(seed=seed, score=score + seed / 1000, cell=f"{strategy}{tokens}{seed}") for seed in (0, 1)]
        return StudyPoint(
            name=f"{strategy}-{tokens}",
            axes={"view": f"{tokens}t"},
            strategy=strategy,
            keep=f"{tokens}t",
            encoding="int8",
            bytes_per_row=num_bytes,
            scores=scores,
            mean=score,
            interval=0.01,
            interval_by="seeds",
        )

    points = [
        point("by attention", 1, 40.0, 0.7),
        point("by attention", 4, 150.0, 0.75),
        point("at random", 4, 150, 0.6),
    ]
    results = StudyResults(
        name="how much",
        cache=cache_id or open_cache(cache).id,
        num_rows=96,
        metric="accuracy",
        num_eval_rows=50,
        teacher=0.8,
        labels=point("labels", 1, 0.0, 0.65),
        seeds=[0, 1],
        points=points,
    )
    folder.mkdir()
    (folder / "results.json").write_text(results.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def teacher_dir(tiny_teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_teacher_dir, tmp_path_factory.mktemp("named") / "<img src=x onerror=alert(1)>"))


@pytest.fixture(scope="module")
def cache(teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's cache: names and tokens that are HTML."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "data").mkdir()
    data = folder / "data" / "<b>rows</b>.tsv"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(tsv_file.read_text())
    kept = ("--keep", "2l_5t_0.25h", "--attention", "1l_6t", "--student-layers", "2", "--shard-rows", "32")
    words = ("--teacher", teacher_dir, "--data", data, "--task", "sst2", "--device", "cpu", *kept)
    result = run("build", *words, "--max-length", "48", "--out", folder / "c.hsk")
    assert result.exit_code == 0, result.output
    tokenizer = folder / "c.hsk" / "tokenizer" / "tokenizer.json"
    loaded = json.loads(tokenizer.read_text())
    loaded["model"]["vocab"][HOSTILE] = loaded["model"]["vocab"].pop("is")
    tokenizer.write_text(json.dumps(loaded))
    return folder / "c.hsk"


@pytest.fixture(scope="module")
def page(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    study = study_of(cache, folder / "study")
    result = run("report", cache, "--study", study, "--out", folder / "c.html")
    assert result.exit_code == 0, result.output
    return folder / "c.html"


@pytest.fixture(scope="module")
def elements(page: Path) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    chromium()
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_the_page_holds_what_a_stranger_wrote_as_text_alone(elements: Elements) -> None:
    tags = {tag for tag, _ in elements.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "srcset", "action", "xlink:href"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    assert HOSTILE in elements.words
    assert "url(" not in Path(__file__).parents[3].joinpath("hskcache/report/page.css").read_text()


def test_nothing_may_be_run_or_fetched(elements: Elements) -> None:
    policy = next(one["content"] for tag, one in elements.tags if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_the_page_is_small(page: Path) -> None:
    assert page.stat().st_size < 1_000_000


def test_figures_tables_and_headings_have_words(elements: Elements, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    drawings = [one for tag, one in elements.tags if tag == "svg" and one.get("aria-hidden") != "true"]
    assert len(drawings) >= 10
    identities = {one.get("id") for _, one in elements.tags}
    assert all(one.get("role") == "img" and one.get("aria-labelledby") in identities for one in drawings)
    assert text.count("<table") == text.count("<caption>")
    levels = [int(tag[1]) for tag, _ in elements.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    listed = [one["id"] for _, one in elements.tags if one.get("id")]
    assert len(listed) == len(set(listed))


def test_numbers_are_those_of_stats(cache: Path, elements: Elements) -> None:
    found = parsed("stats", cache)
    (answers,) = found["answers"]
    assert f"{100 * answers['accuracy']:.2f} %" in elements.words
    assert f"expected calibration error {answers['calibration_error']:.3f}" in elements.words
    for wrong in answers["wrong"][:6]:
        assert f"Row {wrong['row']}" in elements.words
    for layer in found["values"]:
        assert f"{layer['norms']['mean']:.2f}" in elements.words
    assert open_cache(cache).id in elements.words


def test_a_study_is_drawn_beside_its_levels(elements: Elements) -> None:
    assert "accuracy over bytes a row, by strategy" in elements.words
    for words in ("by attention, 4t: 0.7500 ± 0.0100, 150 bytes a row", "the teacher: 0.8000", "labels alone: 0.6500"):
        assert words in elements.words


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(tab: Tab, page: Path, width: int, scheme: str) -> None:
    tab.open(page, width, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.title") != "hit"
    assert tab.messages == []
    assert set(tab.requests) == {page.resolve().as_uri()}
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert lightness > 200 if scheme == "light" else lightness < 60
    assert len(tab.screenshot()) > 20_000


def test_pointing_at_a_token_tells_its_ranks_and_heads(tab: Tab, page: Path) -> None:
    tab.open(page, 1280)
    place = "document.querySelector('.t[tabindex] .heads').closest('.t')"
    tab.evaluate(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    assert tab.evaluate(f"getComputedStyle({place}.querySelector('.tip')).display") == "none"
    x, y = tab.evaluate(f"(r => [r.x + 4, r.y + 4])({place}.getBoundingClientRect())")
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert tab.evaluate(f"getComputedStyle({place}.querySelector('.tip')).display") == "block"
    assert "rank" in tab.evaluate(f"{place}.querySelector('.tip').innerText")


@pytest.mark.parametrize("width", [375, 1280])
def test_what_pointing_tells_stays_within_the_window(tab: Tab, page: Path, width: int) -> None:
    tab.open(page, width)
    script = """
        [...document.querySelectorAll('.t[tabindex]')].map(token => {
          const tip = token.querySelector('.tip'); token.focus(); const box = tip.getBoundingClientRect();
          return [box.left >= 0, box.right <= innerWidth, box.width > 0,
                  document.documentElement.scrollWidth <= innerWidth].every(Boolean); }).every(Boolean)"""
    assert tab.evaluate(script) is True


def test_text_can_be_read_on_what_is_behind_it(tab: Tab, page: Path) -> None:
    """Contrast of at least 4.5 of words to the page, as WCAG 2.2 asks, in either scheme."""
    script = """
        (() => {
          const parts = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const light = text => { const [r, g, b] = parts(text).map(v => { v /= 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const page = light(getComputedStyle(document.body).backgroundColor);
          return ['p', 'dt', 'td', 'caption', 'a', 'figcaption', 'small', '.said', '.said.no'].map(one => {
            const found = document.querySelector('main ' + one) || document.querySelector(one);
            if (!found) return 21;
            const own = light(getComputedStyle(found).color);
            return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05); });
        })()"""
    for scheme in ("light", "dark"):
        tab.open(page, 1280, scheme=scheme)
        assert min(tab.evaluate(script)) >= 4.5


def test_it_prints(tab: Tab, page: Path) -> None:
    tab.open(page, 1280)
    assert tab.pdf().startswith(b"%PDF-")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_a_damaged_shard_is_named_and_no_page_is_written(cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "c.hsk"))
    path = shard_file(copy, "hidden", 1)
    path.write_bytes(path.read_bytes()[:-1])
    result = run("report", copy, "--out", tmp_path / "c.html")
    assert result.exit_code == 1
    assert "hidden shard 1" in result.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["c.hsk"]


def test_a_tokenizer_that_cannot_be_read_is_told(cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "c.hsk"))
    (copy / "tokenizer" / "tokenizer.json").write_text("{")
    assert "tokenizer.json is no tokenizer that can be read" in refused("view", copy)
    for words in (("stats", copy), ("report", copy, "--out", tmp_path / "c.html")):
        result = run(*words)
        assert result.exit_code == 1
        assert "is no tokenizer that can be read" in result.stderr
    assert not (tmp_path / "c.html").exists()


def test_a_file_that_is_no_page_is_left_alone(cache: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.html"
    notes.write_text("my notes")
    assert "is no page of hskcache report" in refused("report", cache, "--out", notes)
    assert notes.read_text() == "my notes"
    assert run("report", cache, "--out", notes, "--force").exit_code == 0
    before = notes.stat().st_ino
    assert run("report", cache, "--out", notes, "--rows", "0").exit_code == 0
    assert notes.stat().st_ino != before
    assert "within the cache" in refused("report", cache, "--out", cache / "c.html")


def test_a_study_of_another_cache_is_refused(cache: Path, tmp_path: Path) -> None:
    study = study_of(cache, tmp_path / "study", "f" * 64)
    told = refused("report", cache, "--study", study, "--out", tmp_path / "c.html")
    assert "is of the cache ffffffffffff" in told
    assert "holds no study" in refused("report", cache, "--study", tmp_path, "--out", tmp_path / "c.html")


def test_a_cache_without_labels_or_hidden_states(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.tsv"
    data.write_text("sentence\n" + "the film is dull\n" * 20)
    words = ("--teacher", tiny_teacher_dir, "--data", data, "--text", "sentence", "--keep", "none", "--device", "cpu")
    result = run("build", *words, "--out", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert run("report", tmp_path / "c", "--out", tmp_path / "c.html").exit_code == 0
    page = Elements((tmp_path / "c.html").read_text())
    assert "The teacher on its own rows" not in page.words
    assert ["the", "film", "is", "dull"][1] in page.words
    assert run("stats", tmp_path / "c").exit_code == 0
