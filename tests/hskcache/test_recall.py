"""How the rows of a cache were read, also where an older version kept less of it."""

from pathlib import Path
from typing import Any

import pytest

from hskcache.cache import open_cache
from hskcache.errors import SpecError
from hskcache.recall import column_flags, of_cache, task_of
from hskcache.store.manifest import Request
from hskcache.store.provenance import ColumnsRead, CutRows, Provenance
from hskcache.text.layout import Layout

TINY = Path(__file__).resolve().parents[1] / "golden" / "tiny.hsk"
TASK = """
name: mine
text: words
label: kind
problem: classification
labels: ["0", "1"]
metrics: [f1]
"""


def request(**data: Any) -> Request:
    """Of a cache of an older version, with another description of its rows."""
    found = open_cache(TINY).manifest.request
    assert found.data.provenance is None
    return found.model_copy(update={"data": found.data.model_copy(update=data)})


def test_a_cache_of_an_older_version_tells_its_task_and_no_more() -> None:
    found = of_cache("the cache c", request(task="rte"))
    assert (found.task, found.columns, found.is_pairs) == ("rte", None, True)
    assert of_cache("the cache c", request(task="sst2")).is_pairs is False
    untold = of_cache("the cache c", request(task=None))
    assert (untold.has_columns, untold.is_pairs) == (False, None)
    assert (request().cut.num_rows, column_flags(request(task=None).data)) == (0, [])


def test_the_path_of_a_task_holds_while_its_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TASK, encoding="utf-8")
    memory = of_cache("the cache c", request(task=str(path)))
    assert memory.is_pairs is None
    (tmp_path / "d.jsonl").write_text('{"words": "a", "kind": 0}\n{"words": "b", "kind": 1}\n', encoding="utf-8")
    layout = Layout().recalling(memory, str(tmp_path / "d.jsonl"))
    assert layout.read(str(tmp_path / "d.jsonl")).texts == ["a", "b"]
    assert task_of(request(task=str(path)).data) == layout.task
    path.unlink()
    with pytest.raises(SpecError, match=r"mine\.yaml"):
        Layout().recalling(memory, "d.jsonl")
    given = Layout(text="words", label="kind").recalling(memory, "d.jsonl")
    assert len(given.read(str(tmp_path / "d.jsonl"))) == 2


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        ({"task": "rte"}, ["--task", "rte"]),
        ({"task": "/no/such.yaml"}, []),
        ({"columns": ColumnsRead(text="my text", label="y")}, ["--text", "my text", "--label", "y"]),
        ({"columns": ColumnsRead(text=3, label=1, header=False)}, ["--text", "3", "--label", "1", "--no-header"]),
        (
            {"task": "rte", "columns": ColumnsRead(text="sentence1", text_pair="sentence2")},
            ["--task", "rte", "--label", ""],
        ),
        (
            {"task": "rte", "columns": ColumnsRead(text="a", text_pair="sentence2", label="label")},
            ["--task", "rte", "--text", "a"],
        ),
        ({"task": "mine", "definition": {"name": "mine"}, "columns": ColumnsRead(text="words", label="kind")}, []),
    ],
)
def test_options_that_read_the_same_columns(data: dict[str, Any], flags: list[str]) -> None:
    kept = Provenance(columns=data.get("columns"), task=data.get("definition"))
    told = {"task": data.get("task"), "provenance": kept if data.keys() - {"task"} else None}
    assert column_flags(request(**told).data) == flags


def test_rows_that_were_appended_are_read_as_they_were() -> None:
    whole = request(task=None, provenance=Provenance(columns=ColumnsRead(text="a"), cut=CutRows(num_rows=2, longest=9)))
    other = Provenance(columns=ColumnsRead(text="b", label="c"), cut=CutRows(num_rows=3, longest=7))
    part = whole.data.model_copy(update={"name": "more.tsv", "provenance": other})
    grown = whole.model_copy(update={"appended": [part]})
    columns = [of_cache("c", grown, source).columns for source in (None, "more.tsv", "others.tsv")]
    assert [found.text for found in columns if found is not None] == ["a", "b", "a"]
    assert (grown.cut.num_rows, grown.cut.longest) == (5, 9)


def test_a_part_of_the_rows_keeps_how_they_were_read_and_drops_what_was_counted() -> None:
    kept = Provenance(columns=ColumnsRead(text="a"), cut=CutRows(num_rows=2), num_bad=1, bad_rows="skip")
    some = request(provenance=kept).data.of_some(range(1)).provenance
    assert some is not None
    assert (some.columns, some.bad_rows) == (kept.columns, "skip")
    assert (some.cut.num_rows, some.num_bad) == (0, 0)
