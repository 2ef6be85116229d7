"""A notebook's cell shows one bar a task, at its end, and a cache as a table; run by a kernel where there is one."""

import shutil
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat


def test_a_build_shows_its_bars_and_a_cache_its_fields(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_teacher_dir, tmp_path / "teacher")
    shutil.copy(tsv_file, tmp_path / "train.tsv")
    build = "import hskcache; cache = hskcache.build('teacher', 'train.tsv', task='sst2', keep='3t', out='c')"
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(code) for code in (build, "cache", build)]
    book.metadata.kernelspec = {"name": "python3", "display_name": sys.executable}
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    def shown(cell: int, kind: str) -> list[Any]:
        return [one.data["text/plain"] for one in book.cells[cell].outputs if one.output_type == kind]

    bars = shown(0, "display_data")
    assert [bar.split()[0] for bar in bars] == ["tokenize", "build"]
    assert all("96/96" in bar for bar in bars)
    assert "<table>" in book.cells[1].outputs[0].data["text/html"]
    # What was built is there, so that nothing builds.
    assert [bar.split()[0] for bar in shown(2, "display_data")] == ["tokenize"]
