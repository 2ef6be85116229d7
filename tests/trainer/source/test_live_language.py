"""A cache of next tokens teaches what its teacher in the loop would."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commanded import run
from language_models import llama

from hskcache.spec import Spec
from hskcache.text.layout import Layout
from trainer.batch import Batch, DrawnTarget, NextTokenTarget, StatesTarget, TopTarget
from trainer.losses.matches import Matches
from trainer.recipe import Losses
from trainer.source.live import live_source
from trainer.source.objective import Objective
from trainer.source.source import Slice, cached_source
from trainer.student.create import seeded

FORMS: dict[str, dict[str, Any]] = {
    "top:6": {"form": "top", "count": 6},
    "sampled:9": {"form": "sampled", "count": 9},
    "head:float32": {"form": "head", "encoding": "float32"},
}
PART = Slice(4, 0, 1, 1, "cpu")


def batches(source: Any, losses: Losses) -> list[Batch]:
    return list(source.loader(losses, PART, 3))


@pytest.mark.parametrize("form", FORMS)
def test_targets_and_losses_are_those_of_a_teacher_in_the_loop(
    form: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    columns = {"--text": "prompt", "--completion": "answer"}
    given = [word for pair in columns.items() for word in pair]
    out = tmp_path / "cache"
    result = run(
        *("build", "--teacher", teacher, "--data", data, *given, "--max-length", 24, "--vocabulary", form),
        *("--device", "cpu", "--out", out),
    )
    assert result.exit_code == 0, result.output
    losses = Losses.model_validate({"next": {}, "gold": {"weight": 0.5}})
    spec = Spec.model_validate({"hidden": None, "vocabulary": FORMS[form], "max_length": 24})
    live = live_source(str(teacher), str(data), Layout(text="prompt", text_pair="answer"), spec, "cpu")
    with seeded(0):
        student = llama(num_hidden_layers=2).eval()
    for ours, theirs in zip(batches(cached_source(out), losses), batches(live, losses), strict=True):
        assert ours.row_ids == theirs.row_ids
        torch.testing.assert_close(ours.answered, theirs.answered)
        assert ours.num_answers == theirs.num_answers
        same(ours.targets["vocabulary"], theirs.targets["vocabulary"])
        steps = [Objective(student, losses, Matches())(batch)[0] for batch in (ours, theirs)]
        torch.testing.assert_close(steps[0], steps[1], rtol=2e-3, atol=1e-4)


def same(ours: NextTokenTarget, theirs: NextTokenTarget) -> None:
    """Compare targets up to what encodings lose."""
    torch.testing.assert_close(ours.index_T, theirs.index_T)
    torch.testing.assert_close(ours.log_z_T, theirs.log_z_T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.gold_T, theirs.gold_T, rtol=1e-3, atol=1e-3)
    match ours, theirs:
        case TopTarget(), TopTarget():
            assert torch.equal(ours.ids_TK, theirs.ids_TK)
            torch.testing.assert_close(ours.logp_TK, theirs.logp_TK, rtol=0, atol=0.02)
        case DrawnTarget(), DrawnTarget():
            assert torch.equal(ours.ids_TK, theirs.ids_TK)
        case StatesTarget(), StatesTarget():
            torch.testing.assert_close(ours.states_TD, theirs.states_TD)
            torch.testing.assert_close(ours.head.weight_VD.float(), theirs.head.weight_VD.float())
        case _:
            pytest.fail("another form")
