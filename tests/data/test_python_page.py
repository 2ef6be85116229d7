"""The code on the page on Python runs as it stands there, from top to bottom."""

import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

PAGE = Path(__file__).resolve().parents[2] / "data" / "guide" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_teacher_dir, tmp_path / "teacher")
    for name in ("train.tsv", "dev.tsv"):
        shutil.copy(tsv_file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["states"][0].shape[-1] == 32
    assert set(names["activations"].column_names) == {"blocks.5.hook_resid_post", "token_ids"}
    assert names["result"]["scores"]
    assert (tmp_path / "student" / "model.safetensors").is_file()
