"""``hsktrain push``: a model goes to whatever server whole or not at all, and another model there is safe."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from drawn import bert
from forked import in_child
from servers import s3_server, sftp_server
from sharing import reach
from transformers import AutoModelForSequenceClassification

from hskcache.model.save import save_model
from hskcache.move.card import marked
from hskcache.move.model import push_model
from hskcache.remote.remote import open_remote
from trainer.cli import main


def push(*args: object) -> Result:
    return CliRunner().invoke(main, ["push", *map(str, args)], catch_exceptions=False)


def refused(*args: object) -> str:
    result = push(*args)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model as a run leaves it, with files that are this machine's alone."""
    folder = tmp_path / "student"
    save_model(bert(), folder)
    (folder / "README.md").write_bytes(marked("# student"))
    for name, content in (("metrics.json", "{}"), ("run.json", "{}"), ("asked.json", "{}"), ("half.tmp", "")):
        (folder / name).write_text(content)
    (folder / "logs").mkdir()
    (folder / "logs" / "events").write_text("")
    return folder


SENT = {"README.md", "config.json", "metrics.json", "model.safetensors", "run.json"}


@pytest.fixture(params=["file", "s3", "sftp"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder at each kind of server, where nothing is yet."""
    if request.param == "file":
        yield f"file://{tmp_path / 'there'}"
        return
    (tmp_path / "served").mkdir()
    with s3_server() if request.param == "s3" else sftp_server(tmp_path / "served") as server:
        reach(server, monkeypatch)
        yield f"{server.url}/models/student"


def test_a_model_goes_to_every_kind_of_server_and_nothing_goes_twice(model: Path, url: str) -> None:
    first = json.loads(push(model, url, "--json").stdout)
    assert (first["num_sent"], first["num_there"]) == (len(SENT), 0)
    remote = open_remote(url)
    assert set(remote.names("") or []) == SENT
    for name in SENT:
        assert remote.read(name, 1 << 30) == (model / name).read_bytes()
    again = json.loads(push(model, url, "--json").stdout)
    assert (again["num_sent"], again["num_there"], again["bytes_sent"]) == (0, len(SENT), 0)


def test_another_model_is_replaced_only_if_that_is_said(model: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert push(model, f"file://{there}").exit_code == 0
    other = tmp_path / "other"
    save_model(bert(num_labels=3), other)
    assert "model.safetensors is of another model; give another URL, or --replace" in refused(other, f"file://{there}")
    assert (there / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert push(other, f"file://{there}", "--replace").exit_code == 0
    assert AutoModelForSequenceClassification.from_pretrained(there).config.num_labels == 3


def test_a_card_that_was_edited_there_stays(model: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert push(model, f"file://{there}").exit_code == 0
    (there / "README.md").write_text("# edited on the page\n")
    (model / "README.md").write_bytes(marked("# trained again"))
    assert push(model, f"file://{there}").exit_code == 0
    assert (there / "README.md").read_text() == "# edited on the page\n"


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_push_that_is_killed_leaves_nothing_that_loads_and_goes_on(name: str, model: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"

    def die(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(args[1]) == str(there / name):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: push_model(model, f"file://{there}"), die) == -signal.SIGKILL
    with pytest.raises((OSError, ValueError), match=r"config\.json"):
        AutoModelForSequenceClassification.from_pretrained(there)
    assert json.loads(push(model, f"file://{there}", "--json").stdout)["num_there"] > 0
    assert AutoModelForSequenceClassification.from_pretrained(there).config.num_labels == 2


def test_what_is_no_finished_model_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "metrics.json").unlink()
    assert "holds a run that is not finished" in refused(model, f"file://{tmp_path / 'there'}")
    assert "is no folder of a model" in refused(tmp_path / "nothing", f"file://{tmp_path / 'there'}")
    shutil.rmtree(model / "logs")
    (model / "metrics.json").write_text("{}")
    assert "http servers only give" in refused(model, "http://127.0.0.1:1/x")
    assert "names no model of the hub; give hf://USER/NAME" in refused(model, "hf://datasets/a/b")
    assert not (tmp_path / "there").exists()


def test_the_hub_is_not_asked_where_that_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the hub itself needs an account, and was never run."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "is on the hub, which HF_HUB_OFFLINE=1 says not to ask" in refused(model, "hf://somebody/student")
