"""One of something is told as one."""

import shutil
from pathlib import Path

import pytest
from commanded import run

from hskcache.counted import counted

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tiny-2.hsk"


@pytest.mark.parametrize(
    ("count", "nouns", "words"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (1024, ("row",), "1,024 rows"),
        (1, ("class", "classes"), "1 class"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_a_count_has_its_noun(count: int, nouns: tuple[str, ...], words: str) -> None:
    assert counted(count, *nouns) == words


def test_one_problem_and_one_file_are_told_as_one(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "c"))
    (root / "manifest.copy.json").unlink()
    assert run("verify", root).stderr.splitlines()[-1].endswith("checked, 1 problem")
    assert "1 file mended; whole" in run("repair", root).stderr
