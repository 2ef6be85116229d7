"""A finished run, made once."""

import shutil
from pathlib import Path

import pytest
from tiny import config_file
from whole import ROWS, Places, invoke


@pytest.fixture(scope="package")
def places(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """96 rows to learn from, 32 to judge by."""
    folder = tmp_path_factory.mktemp("places")
    lines = tsv_file.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "dev.tsv").write_text("".join(lines[: 1 + ROWS]), encoding="utf-8")
    teacher = shutil.copytree(tiny_teacher_dir, folder / "teacher")
    # Wide weights, so that students answer differently after a few steps; dropout, which no level may draw from where
    # another stopped.
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    student = config_file(folder, width=16, initializer_range=0.5, **dropout)
    return Places(teacher, student, tsv_file, folder / "dev.tsv")


@pytest.fixture(scope="package")
def finished(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert invoke(places.args(out)).exit_code == 0
    return out
