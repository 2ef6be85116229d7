"""A name on the hub is not waited for where the hub is out of reach or not to be asked."""

import json
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
from hskcache.model.load import CLASSIFIER, ENCODER, ModelDemands, folder_of, load_model
from hskcache.model.sentence import encoder_of, sentence_modules
from hskcache.text.tokenize import load_tokenizer
import transformers
begun = time.monotonic()
assert len(load_tokenizer("tiny/model")) > 5
demands = ModelDemands(CLASSIFIER, "a teacher")
load_model("tiny/model", demands)
within = "tiny/model/checkpoints/best"
assert load_tokenizer(within).get_vocab() == load_tokenizer("tiny/model").get_vocab()
whole, part = (load_model(name, demands).model.state_dict() for name in ("tiny/model", within))
assert all((part[name] == whole[name]).all() for name in whole)
assert folder_of(within, "README.md").parts[-2:] == ("checkpoints", "best")
modules = sentence_modules("tiny/embedder/sentences")
assert encoder_of("tiny/embedder/sentences", modules) == "tiny/embedder/sentences/0_Transformer"
load_model(encoder_of("tiny/embedder/sentences", modules), ModelDemands(ENCODER, "a teacher"))
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


def _fetched(home: Path, name: str) -> Path:
    """Folder of a repository as the hub's library keeps what it has fetched."""
    commit, kept = "0" * 40, home / "hub" / f"models--tiny--{name}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    (kept / "snapshots" / commit).mkdir(parents=True)
    return kept / "snapshots" / commit


def test_a_path_that_was_mistyped_is_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert hub.divided("runs/first/studnet") == ("runs/first/studnet", {})
    assert hub.divided("someone/model/a/b") == ("someone/model", {"subfolder": "a/b"})
    assert hub.divided("someone/model") == ("someone/model", {})


def test_a_hub_out_of_reach_is_told_once_and_what_was_fetched_from_it_is_found(
    tmp_path: Path, tiny_teacher_dir: Path
) -> None:
    """In a process of its own, as libraries take their settings from the environment when they are imported."""
    model, embedder = (_fetched(tmp_path, name) for name in ("model", "embedder"))
    for folder in (model, model / "checkpoints" / "best", embedder / "sentences" / "0_Transformer"):
        shutil.copytree(tiny_teacher_dir, folder, dirs_exist_ok=True)
    listed = [{"idx": 0, "type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    listed.append({"idx": 1, "type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    (embedder / "sentences" / "modules.json").write_text(json.dumps(listed))
    (embedder / "sentences" / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (embedder / "sentences" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
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
