"""The notebooks that ship run from top to bottom, offline, and show what is stored in them."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "data" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same notebooks, run now; a cell that fails ends the run."""
    folder = tmp_path_factory.mktemp("notebooks")
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def shown(book: NotebookNode) -> list[tuple[str, str, str]]:
    """Every output by its cell and kind, and of results and bars the text, in which numbers may be others.

    Words on stderr tell how the training went, which is another way on another machine.
    """
    found = []
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            kind = output.get("name") or "/".join(sorted(output.get("data", {})))
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            masked = re.sub(r"[0-9a-f]{12}|-?\d[\d.]*", "#", "" if kind == "stderr" else text)
            found.append((cell.id, kind, re.sub(r"\s+", " ", masked)))
    return found


def test_there_is_a_notebook() -> None:
    assert [path.name for path in NOTEBOOKS] == ["first-hour.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_stored_in_it(path: Path, again: Path) -> None:
    stored, now = nbformat.read(path, as_version=4), nbformat.read(again / path.name, as_version=4)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in now.cells]
    assert shown(now) == shown(stored)
    assert len({cell for cell, _, _ in shown(stored)}) >= 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_names_no_machine_and_no_time(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"/(?:tmp|home|root|work|usr)/[^\s\"]*|\d+:\d\d:\d\d|it/s|steps/s", text) == []
    assert nbformat.validator.validate(nbformat.reads(text, as_version=4)) is None
