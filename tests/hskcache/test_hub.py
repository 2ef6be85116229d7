"""A name on the hub is not waited for where the hub is out of reach or not to be asked."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from servers import free_port

from hskcache import hub
from hskcache.errors import DataError, TeacherError
from hskcache.text.table import Columns
from hskcache.text.tokenize import load_tokenizer
from hskcache.text.typed import read_hub

CHILD = """
import sys, time
from hskcache.errors import CacheError
from hskcache.model.load import CLASSIFIER, ModelDemands, load_model
from hskcache.text.tokenize import load_tokenizer
import transformers
begun = time.monotonic()
assert len(load_tokenizer("tiny/model")) > 5
demands = ModelDemands(CLASSIFIER, "a teacher")
load_model("tiny/model", demands)
for look in (lambda: load_tokenizer("some/name"), lambda: load_model("some/name", demands)):
    try:
        look()
    except CacheError as error:
        print(type(error).__name__, error)
print(time.monotonic() - begun, file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def _unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub._Hub, "asked_at", float("-inf"))
    monkeypatch.setattr(hub._Hub, "reason", "")


def test_offline_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = "some/name is no folder here and was not fetched .*, and HF_HUB_OFFLINE=1 says not to ask it; .* or unset"
    with pytest.raises(TeacherError, match=said):
        load_tokenizer("some/name")
    with pytest.raises(DataError, match=said):
        read_hub("hub:some/name:train", Columns("text"), "fail")


def test_a_folder_that_was_mistyped_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-teacher").mkdir()
    with pytest.raises(TeacherError, match="do you mean 'my-teacher'"):
        load_tokenizer("my-teachr")


def test_a_hub_out_of_reach_is_told_once_and_what_was_fetched_from_it_is_found(
    tmp_path: Path, tiny_teacher_dir: Path
) -> None:
    """In a process of its own, as libraries take their settings from the environment when they are imported."""
    commit, kept = "0" * 40, tmp_path / "hub" / "models--tiny--model"
    shutil.copytree(tiny_teacher_dir, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    endpoint = f"http://127.0.0.1:{free_port()}"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told, seconds = done.stderr.splitlines()
    assert told.startswith(f"{endpoint} cannot be reached (")
    assert float(seconds) < 8
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("TeacherError some/name is no folder here and was not fetched from the hub before")
        assert line.endswith("; give a folder")


class _Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    from huggingface_hub import constants

    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.asked = 0  # type: ignore[attr-defined]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_hub_that_answers_is_asked_once_and_errors_are_the_library_s(answering: HTTPServer) -> None:
    def fail() -> None:
        with hub.looked_up("some/name"):
            raise TeacherError("as it was")

    for _ in range(2):
        with pytest.raises(TeacherError, match=r"^as it was$"):
            fail()
    assert answering.asked == 1  # type: ignore[attr-defined]


def test_folders_and_paths_are_not_looked_up_on_the_hub(tmp_path: Path, answering: HTTPServer) -> None:
    for name in (str(tmp_path), "./missing", "/missing", "~/missing"):
        with hub.looked_up(name):
            pass
    assert answering.asked == 0  # type: ignore[attr-defined]
