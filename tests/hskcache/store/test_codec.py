"""Shards are read and written beside optional packages of numcodecs that keep numcodecs from being imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk"
COMMANDS = {"": ["--help"], "verify": ["verify", str(TINY)], "view": ["view", str(TINY), "0"]}


def python(beside: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(beside), *sys.path])}
    return subprocess.run([sys.executable, *args], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def zfpy(tmp_path: Path) -> Path:
    """A folder in which zfpy is installed in a version of which numcodecs understands nothing."""
    (tmp_path / "zfpy.py").write_text("mode_fixed_accuracy = 4\n")
    (tmp_path / "zfpy-1.0.1.post0.dist-info").mkdir()
    (tmp_path / "zfpy-1.0.1.post0.dist-info" / "METADATA").write_text("Name: zfpy\nVersion: 1.0.1.post0\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_codec_that_is_not_needed_does_not_matter(command: str, zfpy: Path) -> None:
    alone = python(zfpy, "-c", "import numcodecs")
    assert "invalid literal for int() with base 10: 'post0'" in alone.stderr, "this numcodecs needs no help any more"
    done = python(zfpy, "-m", "hskcache", *COMMANDS[command])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_what_else_uses_numcodecs_finds_it_afterwards(zfpy: Path) -> None:
    script = (
        f"import sys; from hskcache import open_cache; cache = open_cache({str(TINY)!r}); cache.read('inputs', 0); "
        "import numcodecs; "
        f"print(cache.num_rows, numcodecs.get_codec({{'id': 'zstd'}}).codec_id, "
        "[name for name, module in sys.modules.items() if module is None])"
    )
    done = python(zfpy, "-c", script)
    assert done.stdout.split() == ["5", "zstd", "[]"], done.stderr


def test_a_numcodecs_that_cannot_be_imported_at_all_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "numcodecs").mkdir()
    (tmp_path / "numcodecs" / "__init__.py").write_text("raise ValueError('numpy.dtype size changed')\n")
    done = python(tmp_path, "-m", "hskcache", "verify", str(TINY))
    assert done.returncode == 2
    assert done.stderr == (
        "error: numcodecs cannot be imported (ValueError: numpy.dtype size changed); install it anew: "
        "pip install --force-reinstall numcodecs\n"
    )
