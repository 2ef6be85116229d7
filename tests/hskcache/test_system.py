"""What Windows lacks is not needed to read, to fetch or to train from a cache."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hskcache import system
from hskcache.move.upgrade import upgrade
from hskcache.verify import verify

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "tiny-2.hsk"
# The packages underneath know of Windows by its name, so they are imported before these calls are taken away.
WITHOUT = """
import os, sys, tempfile, concurrent.futures.thread, multiprocessing.pool
{first}
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("pread", "register_at_fork", "sysconf", "sysconf_names", "getloadavg"):
    delattr(os, name)
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    delattr(os, name)
open_file = os.open
def open_no_folder(path, *more, **others):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return open_file(path, *more, **others)
os.open = open_no_folder
from hskcache import disk
disk.can_sync_folders = lambda: False
"""


def run(first: str, command: str, *words: object) -> str:
    """What a command of ours prints where those calls are missing."""
    package = {"hskcache": "hskcache", "hsktrain": "trainer"}[command]
    script = f"{WITHOUT.format(first=first)}\nfrom {package}.cli import main\nmain()"
    done = subprocess.run(
        (sys.executable, "-c", script, *map(str, words)), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_caches_are_told_of_and_verified() -> None:
    assert json.loads(run("", "hskcache", "info", GOLDEN, "--json"))["num_rows"] == 5
    assert json.loads(run("", "hskcache", "view", GOLDEN, "1", "--json"))
    assert json.loads(run("", "hskcache", "verify", GOLDEN, "--deep", "--json"))["ok"]


def test_a_cache_is_fetched(tmp_path: Path) -> None:
    run("import fsspec", "hskcache", "pull", f"file://{GOLDEN}", tmp_path / "c.hsk")
    assert verify(tmp_path / "c.hsk", deep=True).ok


def test_a_student_learns(tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    (tmp_path / "student.json").write_text(json.dumps({"model_type": "bert", **shape}))
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ngood film\t1\nbad film\t0\n")
    words = ("--cache", GOLDEN, "--student", tmp_path / "student.json", "--recipe", "logits", "--out", tmp_path / "out")
    words += ("--eval-data", tmp_path / "dev.tsv", "--task", "sst2")
    run(
        "import sklearn.metrics; from transformers import Trainer, TrainingArguments",
        "hsktrain",
        "fit",
        *words,
        "--json",
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_bytes_at_an_offset_are_read_without_a_call_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with (tmp_path / "file").open("rb") as file:
        file.seek(7)
        expected = system.read_at(file.fileno(), 10, 95)
        monkeypatch.delattr("os.pread")
        assert system.read_at(file.fileno(), 10, 95) == expected == bytes(range(95, 100))


def test_a_cache_is_written_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "fcntl", None)
    upgrade(GOLDEN.with_name("tiny.hsk"), tmp_path / "c.hsk")
    assert verify(tmp_path / "c.hsk").ok
