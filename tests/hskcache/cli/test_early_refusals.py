"""What needs no model to be found wrong is said before one is loaded: here there is none, and the error is another."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Data files without the columns of sst2, a folder with a thesis in it, and no teacher."""
    (tmp_path / "other.csv").write_text("text,score\nfine,1\nbad,0\n", encoding="utf-8")
    (tmp_path / "other.tsv").write_text("text\tscore\nfine\t1\nbad\t0\n", encoding="utf-8")
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": "fine", "score": 1}) + "\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "good.csv").write_text("sentence,label\nfine,1\nbad,0\n", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--data", "other.csv"), "no task and no text column"),
        (("--data", "other.csv", "--task", "sst2"), "no column 'sentence'; the columns are text, score"),
        (("--data", "other.tsv", "--task", "sst2"), "no column 'sentence'; the columns are text, score"),
        (("--data", "other.jsonl", "--task", "sst2"), "no column 'sentence'; the columns are text, score"),
        (("--data", "other.csv", "--text", "0", "--label", "7"), "no column number 7"),
        (("--data", "empty.csv", "--task", "sst2"), "empty.csv is empty"),
        (("--data", "none.csv", "--task", "sst2"), "none.csv: No such file"),
        (("--data", "hub:nowhere", "--task", "sst2"), "is not of the form hub:REPO"),
        (("--data", "good.csv", "--task", "sst2", "--keep", "9x"), "--keep '9x'"),
        (("--data", "good.csv", "--task", "sst2", "--out", "mine"), "holds files that are not a cache's"),
        (("--data", "good.csv", "--task", "sst2", "--out", "good.csv/c"), "good.csv is a file"),
        (("--corpus", "none.txt"), "none.txt: No such file"),
        (("--corpus", "mine"), "mine is a folder"),
        (("--data", "good.csv", "--task", "sst2"), "none-such"),
    ],
)
def test_a_build_looks_at_files_before_it_looks_for_a_teacher(
    args: tuple[str, ...], complaint: str, files: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of these is a build without any fault but the teacher."""
    monkeypatch.chdir(files)
    assert complaint in refused("build", "--teacher", "./none-such", "--out", "c", *args)
    assert not (files / "c").exists()
    if "--out" not in args:
        assert complaint in refused("estimate", "--teacher", "./none-such", *args)


def test_sparsify_and_append_look_at_their_files_first(
    files: Path, cache: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    args = ("--teacher", "./none-such", "--data", "other.csv", "--task", "sst2")
    for command in (("sparsify", "--balance", "1", "--out", "s"), ("append", cache)):
        assert "no column 'sentence'" in refused(*command, *args)


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        ('"sentence","label"\n"' + "long " * 300_000 + '",1\nshort,0\n', ("--text", "sentence", "--label", "label")),
        ('"two\nlines",label\nfine,1\nbad,0\n', ("--text", "0", "--label", "label")),
        ("sentence;label\nfine;1\nbad;0\n", ("--text", "sentence", "--label", "label")),
        ("\n\nsentence,label\nfine,1\nbad,0\n", ("--task", "sst2")),
        ("fine,1\nbad,0\n", ("--text", "0", "--label", "1", "--no-header")),
    ],
)
def test_the_glance_refuses_nothing_that_can_be_read(lines: str, columns: tuple[str, ...], tmp_path: Path) -> None:
    from hskcache.text.layout import Layout

    (tmp_path / "f.csv").write_text(lines, encoding="utf-8")
    given = dict(zip((name.removeprefix("--") for name in columns[::2]), columns[1::2], strict=False))
    layout = Layout(given.get("task"), given.get("text"), None, given.get("label"), False if len(columns) % 2 else None)
    layout.check(str(tmp_path / "f.csv"))
    assert len(layout.read(str(tmp_path / "f.csv"))) == 2
