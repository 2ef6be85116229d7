"""``hsktrain pilot``: cells against a teacher zeroed by hand, means and standard errors, and a folder that goes on."""

import json
import os
import signal
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import children
import numpy as np
import pytest
import torch
from click.testing import Result
from matplotlib import image
from whole import Places, error_of, invoke, read

from hskcache.sparsity.levels import num_removed
from hskcache.sparsity.weights import matrices, random_weights
from hskcache.teacher.load import load_teacher
from trainer.cli import main
from trainer.stark.confidence import confidence
from trainer.stark.shares import Share, Spread, plot, table

PERCENTS, SEEDS = (0, 5, 40), 3
MAX_LENGTH = 24


def args(places: Places, out: Path, *more: object) -> list[str]:
    given = ["pilot", "--teacher", places.teacher, "--data", places.dev, "--task", "sst2", "--max-length", MAX_LENGTH]
    given += ["--device", "cpu", "--sparsity", "5,40", "--seeds", SEEDS, "--out", out]
    return [*map(str, given), *map(str, more)]


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def studied(places: Places, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A study that nothing disturbed, and what it printed for programs."""
    out = tmp_path_factory.mktemp("studied") / "out"
    return out, data_of(invoke(args(places, out, "--json")))


def by_hand(places: Places, percent: int, seed: int) -> dict[str, float]:
    """The teacher with as many of the lowest draws set to zero, row by row without padding."""
    teacher = load_teacher(str(places.teacher), "cpu")
    flat = [weight for layer in matrices(teacher.model) for weight in layer]
    drawn = random_weights(teacher.model, seed).ravel()
    gone = torch.zeros(len(drawn), dtype=torch.bool)
    gone[torch.from_numpy(np.lexsort((-np.arange(len(drawn)), drawn))[: num_removed(len(drawn), percent)])] = True
    with torch.no_grad():
        for weight, mask in zip(flat, gone.split([weight.numel() for weight in flat]), strict=True):
            weight[mask.view(weight.shape)] = 0
    rows = [line.split("\t") for line in places.dev.read_text(encoding="utf-8").splitlines()[1:]]
    logits = []
    with torch.no_grad():
        for text, _ in rows:
            inputs = teacher.tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            logits.append(teacher.model(**inputs).logits[0].numpy())
    found = np.stack(logits)
    sure = confidence(found)
    assert sure is not None
    right = found.argmax(1) == np.array([int(label) for _, label in rows])
    return {"accuracy": right.mean(), "variance": sure.variance, "negative_entropy": sure.negative_entropy}


def test_cells_are_the_teacher_without_the_weights_of_a_draw(studied: tuple[Path, Any], places: Places) -> None:
    out, _ = studied
    for percent, seed, name in ((0, 0, "s0.json"), (5, 1, "s5-seed1.json"), (40, 2, "s40-seed2.json")):
        found, expected = read(out / "cells" / name), by_hand(places, percent, seed)
        assert found.keys() == expected.keys()
        assert all(found[key] == pytest.approx(expected[key], abs=1e-5) for key in expected)


def test_shares_are_means_with_standard_errors_of_their_cells(studied: tuple[Path, Any]) -> None:
    out, facts = studied
    assert facts["shares"] == read(out / "results.json")["shares"]
    total = facts["num_weights"]
    for share, percent in zip(facts["shares"], PERCENTS, strict=True):
        assert (share["percent"], share["weights_removed"]) == (percent, num_removed(total, percent))
        cells = [read(path) for path in sorted((out / "cells").glob(f"s{percent}[-.]*"))]
        assert len(cells) == share["num_seeds"] == (SEEDS if percent else 1)
        for name, spread in share["measures"].items():
            values = [cell[name] for cell in cells]
            assert spread["mean"] == pytest.approx(mean(values))
            error = stdev(values) / SEEDS**0.5 if percent else None
            assert spread["standard_error"] == (None if error is None else pytest.approx(error))
    assert image.imread(out / "pilot.png").shape[1] > 1000


def test_the_table_has_a_line_a_share(studied: tuple[Path, Any], places: Places) -> None:
    """And nothing is computed anew for it."""
    out, facts = studied
    cells = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    done = invoke(args(places, out))
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["weights", "removed", "accuracy", "variance", "-entropy"]
    assert [line.split()[0] for line in lines] == ["0", "5", "40"]
    share = facts["shares"][0]["measures"]["accuracy"]["mean"]
    assert f"on 32 rows is {(share * (1 - share) / 32) ** 0.5:.4f}" in done.stderr
    assert f"{facts['shares'][1]['measures']['variance']['mean']:.4f} ± " in lines[1]
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == cells


def die_at(count: int, given: list[str]) -> None:
    """Run the command and be killed when the ``count``-th cell is to be given its name."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "os.rename" and "/cells/" in str(arguments[1]):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    main(given, standalone_mode=False)


def test_a_killed_study_goes_on_and_takes_more_seeds(studied: tuple[Path, Any], places: Places, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert children.run(die_at, 3, args(places, out, "--seeds", 2)) == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}
    assert len(before) == 2
    assert data_of(invoke(args(places, out, "--json")))["shares"] == studied[1]["shares"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (out / "cells" / "s5-seed1.json").write_text("{")
    assert data_of(invoke(args(places, out, "--json")))["shares"] == studied[1]["shares"]


def test_other_rows_or_lengths_and_folders_of_something_else_are_refused(
    studied: tuple[Path, Any], places: Places, tmp_path: Path
) -> None:
    assert "max_length 24 and this one has 12" in error_of(invoke(args(places, studied[0], "--max-length", 12)))
    (tmp_path / "levels").mkdir()
    assert "is not empty and holds no run" in error_of(invoke(args(places, tmp_path)))
    (tmp_path / "run.json").write_text('{"balance": 0.5}')
    assert "holds a run with balance 0.5" in error_of(invoke(args(places, tmp_path)))


def test_a_study_of_scores_has_no_confidence_and_one_panel(tmp_path: Path) -> None:
    shares = [Share(0, 0, 1, {"pearson": Spread(0.9, None)}), Share(5, 7, 2, {"pearson": Spread(0.8, 0.01)})]
    assert table(shares).splitlines() == [
        "weights removed  pearson",
        "            0 %  0.9000",
        "            5 %  0.8000 ± 0.0100",
    ]
    plot(shares, ("dev.tsv", 9), tmp_path / "one.png")
    assert image.imread(tmp_path / "one.png").shape[1] < 900
