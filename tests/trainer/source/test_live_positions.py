"""A teacher in the loop chooses the positions that a cache keeps, and both are evaluated where they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from language_models import llama
from safetensors.torch import load_file

from hskcache.cli import main as hskcache
from hskcache.selection.depth import LayerPair
from hskcache.spec import Spec
from hskcache.text.layout import Layout
from trainer.cli import main as hsktrain
from trainer.losses.matches import Matches
from trainer.recipe import Losses
from trainer.source.live import live_source
from trainer.source.objective import Objective
from trainer.source.source import Slice, cached_source
from trainer.student.create import seeded

PART = Slice(4, 0, 1, 1, "cpu")


def invoke(main: Any, *words: object) -> str:
    done = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def cached(teacher: Path, data: Path, out: Path, *options: object) -> Path:
    columns = ("--text", "prompt", "--completion", "answer")
    given = ("--teacher", teacher, "--data", data, *columns, "--max-length", 24, "--device", "cpu")
    invoke(hskcache, "build", *given, *options, "--out", out)
    return out


@pytest.mark.parametrize("score", ["entropy", "loss", "random", "last"])
def test_targets_and_losses_are_those_of_a_teacher_in_the_loop(
    score: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    keep = ("--keep", "1l_0.4t", "--student-layers", 2, "--encoding", "float32", "--score", score)
    out = cached(teacher, data, tmp_path / "cache", "--vocabulary", "top:6", *keep)
    length = {"share": 0.4, "score": score, "targets": True}
    hidden = {"depth": {"student_layers": 2, "num_layers": 1}, "length": length, "encoding": "float32"}
    vocabulary = {"form": "top", "count": 6, "length": length}
    spec = Spec.model_validate({"hidden": hidden, "vocabulary": vocabulary, "max_length": 24})
    live = live_source(str(teacher), str(data), Layout(text="prompt", text_pair="answer"), spec, "cpu")
    cases = [{"next": {}, "gold": {"weight": 0.5}}, {"hidden": {}}, {"hidden": {}, "next": {}}]
    with seeded(0):
        student = llama(num_hidden_layers=2).eval()
    matches = Matches({"hidden": (LayerPair(2, 4),)})
    for losses in map(Losses.model_validate, cases):
        batches = zip(*(one.loader(losses, PART, 3) for one in (cached_source(out), live)), strict=True)
        for ours, theirs in batches:
            assert ours.row_ids == theirs.row_ids
            for kind in set(losses.kinds):
                assert ours.totals[kind] == theirs.totals[kind] < ours.num_answers
            if "vocabulary" in losses.kinds:
                assert torch.equal(ours.targets["vocabulary"].index_T, theirs.targets["vocabulary"].index_T)
                assert torch.equal(ours.targets["vocabulary"].ids_TK, theirs.targets["vocabulary"].ids_TK)
            for layer, target in ours.hidden.items():
                assert torch.equal(target.index_P, theirs.hidden[layer].index_P)
            steps = [Objective(student, losses, matches)(batch)[0] for batch in (ours, theirs)]
            torch.testing.assert_close(steps[0], steps[1], rtol=2e-3, atol=1e-4)


def test_packed_rows_learn_at_the_same_positions(teacher: Path, data: Path, tmp_path: Path) -> None:
    out = cached(teacher, data, tmp_path / "cache", "--vocabulary", "top:6", "--keep", "0.4t", "--score", "entropy")
    given = ("fit", "--cache", out, "--student", teacher / "config.json", "--recipe", "lm", "--device", "cpu")
    sets = ("--set", "prediction.losses.gold.weight=0.3", "--set", "prediction.batch_size=4")
    sets += ("--set", "prediction.select=last", "--set", "prediction.epochs=1")
    invoke(hsktrain, *given, *sets, "--out", tmp_path / "padded")
    invoke(hsktrain, *given, *sets, "--pack", 64, "--out", tmp_path / "packed")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("padded", "packed"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_an_evaluation_tells_what_the_teachers_scores_are_of(teacher: Path, data: Path, tmp_path: Path) -> None:
    out = cached(teacher, data, tmp_path / "cache", "--vocabulary", "top:6", "--keep", "0.4t", "--score", "loss")
    whole = cached(teacher, data, tmp_path / "whole", "--vocabulary", "top:6")
    words = ("evaluate", "--model", teacher, "--device", "cpu", "--json", "--cache")
    some, every = (json.loads(invoke(hsktrain, *words, one)) for one in (out, whole))
    assert some["metrics"]["perplexity"] == pytest.approx(every["metrics"]["perplexity"])
    assert some["metrics"]["agreement"] == every["metrics"]["agreement"] == 1
    assert "kept" not in every
    assert some["kept"]["num_targets"] < some["num_targets"]
    assert some["kept"]["metrics"]["perplexity"] == pytest.approx(some["teacher"]["perplexity"], rel=1e-3)
    assert some["teacher"]["perplexity"] > every["teacher"]["perplexity"]
    told = CliRunner().invoke(hsktrain, [str(one) for one in (*words[:-2], "--cache", out)]).stderr
    assert f"at the {some['kept']['num_targets']} tokens that are kept of it; the model there: perplexity" in told
