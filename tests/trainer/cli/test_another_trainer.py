"""Another package of the name ``trainer``, whose files lie among ours, is told before anything of it is used."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_package_that_was_installed_over_ours_is_told(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "trainer", tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    # As the package of Coqui begins.
    (tmp_path / "trainer" / "__init__.py").write_text("__all__ = ['Trainer', 'TrainerArgs']\n")
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; from trainer.cli import main; main()"
    command = (sys.executable, "-c", script, "fit", "--cache", "c", "--student", "tinybert4", "--out", "o")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: another package named trainer was installed over this one, in ")
    assert "pip uninstall trainer" in line
    assert "Traceback" not in done.stderr
