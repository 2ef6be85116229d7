"""A run in Python is the run of the same command."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import weights_of

import trainer
from hskcache.errors import SpecError
from hskcache.text.layout import Layout
from trainer.cli import main
from trainer.recipe import load_recipe
from trainer.run.checkpoints import read_json

QUICK = ("hidden.epochs=1", "prediction.epochs=1", "prediction.learning_rate=1e-3")


@pytest.fixture(scope="module")
def request_of(cache_dir: Path, tsv_file: Path, narrow: Path) -> trainer.FitRequest:
    return trainer.FitRequest(
        source=trainer.FromCache(cache_dir),
        student=str(narrow),
        recipe=load_recipe("mud", QUICK).evaluated_every(2),
        eval_data=(str(tsv_file), f"{tsv_file.parent}/./{tsv_file.name}"),
        layout=Layout("sst2"),
        metric="f1",
        exports_projection=False,
        seed=3,
    )


def test_the_command_finds_a_run_of_python_finished(request_of: trainer.FitRequest, tmp_path: Path) -> None:
    # The second device is the first by another name.
    one, other = tmp_path / "one", tmp_path / "other"
    result = trainer.fit(request_of, one, trainer.Machine("cpu"))
    assert result == read_json(one / "metrics.json")
    trainer.fit(request_of, str(other), trainer.Machine("cpu:0"))
    assert all((weights_of(one)[name] == tensor).all() for name, tensor in weights_of(other).items())
    assert isinstance(request_of.source, trainer.FromCache)
    args = ["fit", "--cache", request_of.source.cache, "--student", request_of.student, "--task", "sst2"]
    args += ["--metric", "f1", "--eval-steps", 2, "--no-projection", "--seed", 3, "--device", "cpu"]
    args += [word for change in QUICK for word in ("--set", change)]
    args += [word for file in request_of.eval_data for word in ("--eval-data", file)]
    again = CliRunner().invoke(main, [*map(str, args), "--out", str(one)], catch_exceptions=False)
    assert (again.exit_code, "is finished already" in again.stderr) == (0, True), again.stderr


def test_one_device_is_not_for_several_processes(
    request_of: trainer.FitRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpecError, match="--device cpu:0 is one device, and 2 processes train together; give cuda"):
        trainer.fit(request_of, tmp_path / "out", trainer.Machine("cpu:0"))
    assert not (tmp_path / "out").exists()
