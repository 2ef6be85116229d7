"""Next tokens are learned alike by one process and by two, in one pass a step and in several."""

from pathlib import Path
from typing import Any

import children
import pytest
import torch
from click.testing import CliRunner
from language_models import language_model
from safetensors.torch import load_file

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

# Rows of 1 to 5 words: slices hold different numbers of targets, and of positions that are kept.
TEXTS = "\n\n".join(" ".join(["tokens"] * (1 + number % 5)) for number in range(12))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Arguments of a run whose batches are two thirds of the rows."""
    folder = tmp_path_factory.mktemp("ranks")
    teacher, cache, texts = language_model(folder / "teacher"), folder / "cache", folder / "texts.txt"
    texts.write_text(TEXTS, encoding="utf-8")
    rows = ["--corpus", texts, "--max-length", 48, "--vocabulary", "top:8", "--device", "cpu"]
    rows += ["--keep", "0.4t", "--score", "entropy"]
    built = CliRunner().invoke(hskcache, list(map(str, ["build", "--teacher", teacher, *rows, "--out", cache])))
    assert built.exit_code == 0, built.output
    settings = ["losses.gold.weight=0.3", "batch_size=8", "epochs=2"]
    sets = [word for one in settings for word in ("--set", f"prediction.{one}")]
    return ["fit", "--cache", cache, "--student", teacher / "config.json", "--recipe", "lm", "--device", "cpu", *sets]


def trained(args: list[Any]) -> None:
    hsktrain(list(map(str, args)))


@pytest.fixture(scope="module")
def alone(given: list[Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("alone") / "out"
    assert children.run(trained, [*given, "--out", out]) == 0
    return weights(out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize(("count", "accumulation"), [(2, 1), (1, 4), (2, 2)])
def test_slices_of_a_step_add_up_to_it(
    count: int, accumulation: int, given: list[Any], alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    args = [*given, "--gradient-accumulation", accumulation, "--out", out]
    codes = children.together(trained, args, count=count) if count > 1 else [children.run(trained, args)]
    assert codes == [0] * count
    torch.testing.assert_close(weights(out), alone, rtol=1e-4, atol=1e-5)
