"""A student's projection goes with it from stage to stage and from run to run, or is drawn anew where that is asked."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from tiny import CPU, HIDDEN, PREDICTION, config_file, fit_of, recipe_of, scalars, wait_for_the_next_second, weights_of
from torch import nn
from transformers import AutoModel
from transformers.utils import logging

from hskcache.cache import Cache
from hskcache.errors import DamageError, MismatchError
from trainer.cli import main as hsktrain
from trainer.loading import KnowledgeLoader
from trainer.recipe import Recipe
from trainer.run.checkpoints import read_json
from trainer.run.fit import Fit, fit
from trainer.run.learner import Projecting, take_up
from trainer.source.projections import FILE, load, save

# All rows in one step, which is too small to move a weight: its losses are those of what the run began with.
STILL = ("epochs=1", "batch_size=24", "learning_rate=1e-12")


def invoke(*args: object) -> Result:
    return CliRunner().invoke(hsktrain, [*map(str, args)], catch_exceptions=False)


def still(stage: str) -> list[str]:
    return [word for setting in STILL for word in ("--set", f"{stage}.{setting}")]


@dataclass(frozen=True)
class General:
    """General distillation over the rows of a task.

    Attributes:
        corpus: the rows without labels.
        task: the same rows, of the same teacher, with labels.
        data: their file.
        student: what came of it.
    """

    corpus: Path
    task: Path
    data: Path
    student: Path

    def again(self, out: Path, *args: object) -> Result:
        """General distillation goes on with it."""
        given = ["--cache", self.corpus, "--student", self.student, "--recipe", "tinybert-general", "--device", "cpu"]
        return invoke("fit", *given, *still("general"), *args, "--out", out)

    def task_run(self, out: Path, *args: object) -> Result:
        """Task distillation goes on with it."""
        given = ["--cache", self.task, "--student", self.student, "--recipe", "tinybert-task", "--device", "cpu"]
        stages = [*still("intermediate"), *still("prediction")]
        return invoke("fit", *given, "--eval-data", self.data, *stages, *args, "--out", out)

    def losses(self, projection: nn.Linear) -> dict[str, float]:
        """The loss of its hidden states as the formula has it, by transformers and torch alone."""
        student = AutoModel.from_pretrained(self.student)
        batch = next(iter(KnowledgeLoader(cache_at(self.corpus), batch_size=24)))
        with torch.no_grad():
            output = student.eval()(**batch.inputs, output_hidden_states=True)
        pairs = cache_at(self.corpus).manifest.request.layers
        found = {"embedding": 0.0, "hidden": 0.0}
        for pair in pairs:
            target = batch.hidden[pair.teacher]
            states_Pd = output.hidden_states[pair.student].flatten(0, 1)[target.index_P]
            loss = nn.functional.mse_loss(projection(states_Pd), target.values_PW).item()
            found["hidden" if pair.student else "embedding"] += loss
        return found


def cache_at(path: Path) -> Cache:
    from hskcache.cache import open_cache

    return open_cache(path)


def logged(out: Path, stage: str) -> dict[str, float]:
    """The terms on hidden states of the first step."""
    values = scalars(out / "logs" / stage)
    return {term: values[f"train/loss_{term}"][1] for term in ("embedding", "hidden")}


@pytest.fixture(scope="module")
def general(written: Callable[..., Cache], tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> General:
    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("general")
    corpus = written(corpus=True).root
    shape = config_file(folder, width=16, num_attention_heads=4)
    given = ["--cache", corpus, "--student", shape, "--recipe", "tinybert-general", "--device", "cpu"]
    settings = ["--set", "general.batch_size=8", "--set", "general.learning_rate=1e-3", "--seed", "5"]
    done = invoke("fit", *given, *settings, "--out", folder / "student")
    assert done.exit_code == 0, done.stderr
    assert "general: draws a new projection (shared, 16 -> 32)" in done.stderr
    return General(corpus, written().root, tsv_file, folder / "student")


def test_a_task_begins_with_the_loss_that_general_distillation_ended_with(general: General, tmp_path: Path) -> None:
    """Under another seed: a projection drawn anew would be another one."""
    again, task = general.again(tmp_path / "again", "--seed", 6), general.task_run(tmp_path / "task", "--seed", 7)
    assert (again.exit_code, task.exit_code) == (0, 0), again.stderr + task.stderr
    assert "general: goes on with the student's projection (shared, 16 -> 32)" in again.stderr
    assert "intermediate: goes on with the student's projection (shared, 16 -> 32)" in task.stderr
    expected = general.losses(load(general.student / FILE)["shared"])
    assert logged(tmp_path / "again", "general") == pytest.approx(expected, abs=1e-6)
    assert logged(tmp_path / "task", "intermediate") == pytest.approx(expected, abs=1e-6)
    # Through the prediction, which needs none, too.
    theirs, ours = (load_file(folder / FILE) for folder in (general.student, tmp_path / "task"))
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-9) for name in theirs)


def test_fresh_is_what_was_drawn_before_any_was_kept(general: General, tmp_path: Path) -> None:
    result = general.task_run(tmp_path / "fresh", "--seed", 7, "--projection", "fresh")
    assert "intermediate: draws a new projection (shared, 16 -> 32)" in result.stderr
    torch.manual_seed(7)
    expected = general.losses(nn.Linear(16, 32))
    assert logged(tmp_path / "fresh", "intermediate") == pytest.approx(expected, abs=1e-6)
    (bare := tmp_path / "bare").mkdir()
    shutil.copytree(general.student, bare, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FILE))
    without = replace(general, student=bare).task_run(tmp_path / "without", "--seed", 7)
    assert "intermediate: draws a new projection" in without.stderr
    assert logged(tmp_path / "without", "intermediate") == logged(tmp_path / "fresh", "intermediate")


def test_what_a_run_began_with_is_part_of_it(general: General, tmp_path: Path) -> None:
    given = "--seed", 7
    assert general.task_run(tmp_path / "out", *given).exit_code == 0
    assert "is finished already" in general.task_run(tmp_path / "out", *given).stderr
    refused = general.task_run(tmp_path / "out", *given, "--projection", "fresh")
    assert refused.exit_code == 2
    assert "holds a run with projection" in refused.stderr
    other = replace(general, student=tmp_path / "other")
    shutil.copytree(general.student, other.student)
    save({"shared": nn.Linear(16, 32)}, other.student)
    assert "holds a run with projection" in other.task_run(tmp_path / "out", *given).stderr


def test_it_may_stay_out_of_what_comes_of_a_run(general: General, tmp_path: Path) -> None:
    assert general.again(tmp_path / "out", "--no-projection").exit_code == 0
    assert not (tmp_path / "out" / FILE).exists()
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert general.again(tmp_path / "with").exit_code == 0
    late = general.again(tmp_path / "with", "--no-projection").stderr
    assert f"was finished with its projection; delete {tmp_path / 'with' / FILE} to leave it out" in late


def test_other_commands_leave_it_where_it_is(general: General, tmp_path: Path) -> None:
    """A student that is fine-tuned, cut or only loaded goes another way than its projection."""
    _, report = AutoModel.from_pretrained(general.student, output_loading_info=True)
    assert report["unexpected_keys"] == set()
    rows = ["--data", general.data, "--task", "sst2", "--device", "cpu"]
    tuned = ["finetune", "--model", general.student, "--eval-data", general.data, "--epochs", 1, *rows]
    cut = ["create", "--from", tmp_path / "tuned", "--layers", "bottom:1"]
    for name, command in {"tuned": tuned, "cut": cut}.items():
        result = invoke(*command, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert "projection" not in result.stderr
        assert (tmp_path / name / "model.safetensors").is_file()
        assert not (tmp_path / name / FILE).exists()
        save({"shared": nn.Linear(16, 32)}, tmp_path / name)
    assert invoke("evaluate", "--model", tmp_path / "cut", *rows).exit_code == 0


MISFITS: dict[str, tuple[dict[str, nn.Linear], str]] = {
    "of another teacher": (
        {"shared": nn.Linear(16, 24)},
        "is 16 -> 24 and this student learns through one of 16 -> 32",
    ),
    "of another student": (
        {"shared": nn.Linear(12, 32)},
        "is 12 -> 32 and this student learns through one of 16 -> 32",
    ),
    "one a layer": (
        {f"layer_{layer:02d}": nn.Linear(16, 32) for layer in range(3)},
        "stage 'intermediate' learns through shared, 16 -> 32; give --projection fresh to draw it anew, or --set "
        + " --set ".join(f"intermediate.losses.{term}.shared_projection=false" for term in ("embedding", "hidden")),
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_one_that_does_not_fit_is_refused_with_what_to_do(name: str, general: General, tmp_path: Path) -> None:
    projections, complaint = MISFITS[name]
    misfit = replace(general, student=tmp_path / "student")
    shutil.copytree(general.student, misfit.student)
    save(projections, misfit.student)
    result = misfit.task_run(tmp_path / "out")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "--projection fresh" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shared", [False, True])
def test_layers_that_it_lacks_are_named_and_no_setting_that_would_not_help(
    shared: bool, general: General, tmp_path: Path
) -> None:
    one = replace(general, student=tmp_path / "student")
    shutil.copytree(general.student, one.student)
    save({"layer_01": nn.Linear(16, 32)}, one.student)
    terms = ("embedding", "hidden")
    apart = [word for term in terms for word in ("--set", f"intermediate.losses.{term}.shared_projection={shared}")]
    result = one.task_run(tmp_path / "out", *apart)
    assert "brings a projection of layer 1, 16 -> 32" in result.stderr
    wanted = "shared" if shared else "layers 0, 1, 2"
    assert f"learns through {wanted}, 16 -> 32; give --projection fresh to draw it anew\n" in result.stderr


def test_one_that_nothing_learns_through_is_left_alone(general: General, tmp_path: Path) -> None:
    """Even one that cannot be read."""
    odd = replace(general, student=tmp_path / "student")
    shutil.copytree(general.student, odd.student)
    (odd.student / FILE).write_bytes(b"nothing")
    given = ["--cache", odd.task, "--student", odd.student, "--eval-data", odd.data, "--device", "cpu"]
    result = invoke("fit", *given, "--recipe", "labels", "--set", "labels.epochs=1", "--out", tmp_path / "labels")
    assert result.exit_code == 0, result.stderr
    assert "projection" not in read_json(tmp_path / "labels" / "run.json")
    assert not (tmp_path / "labels" / FILE).exists()
    assert "holds no projections that can be read" in odd.task_run(tmp_path / "out").stderr
    assert odd.task_run(tmp_path / "out", "--projection", "fresh").exit_code == 0


@pytest.mark.parametrize("names", [["shared"], ["layer_00", "layer_01", "layer_02"]])
def test_one_that_is_left_behind_between_equal_widths_is_told_with_what_goes_on_with_it(
    names: list[str], general: General, tmp_path: Path
) -> None:
    """As that of TinyBERT's release with 6 layers, which has one whatever the widths."""
    shape = config_file(tmp_path, width=32, num_attention_heads=4)
    given = ["--cache", general.corpus, "--student", shape, "--recipe", "tinybert-general", "--device", "cpu"]
    assert invoke("fit", *given, *still("general"), "--out", tmp_path / "wide").exit_code == 0
    wide = replace(general, student=tmp_path / "wide")
    assert "left behind" not in wide.task_run(tmp_path / "none").stderr
    save({name: nn.Linear(32, 24) for name in names}, wide.student)
    assert "left behind" not in wide.task_run(tmp_path / "misfit").stderr
    save({name: nn.Linear(32, 32) for name in names}, wide.student)
    result = wide.task_run(tmp_path / "plain")
    (line,) = (line for line in result.stderr.splitlines() if "left behind" in line)
    advice = line.split("without one; ")[1].removesuffix(" goes on with it").split()
    again = wide.task_run(tmp_path / "advised", *advice)
    assert "left behind" not in again.stderr
    assert "intermediate: goes on with the student's projection" in again.stderr
    assert (tmp_path / "advised" / FILE).is_file()


MakeFit = Callable[..., Fit]
# Hidden states twice, with a stage between that needs no projection.
TWICE = {
    "first": HIDDEN | {"epochs": 1},
    "answers": PREDICTION | {"epochs": 1},
    "second": HIDDEN | {"epochs": 1, "learning_rate": 1e-12},
}


@pytest.fixture
def make(cache_dir: Path, tsv_file: Path, narrow: Path) -> MakeFit:
    def job(recipe: Recipe, **changes: Any) -> Fit:
        return fit_of(cache_dir, tsv_file, narrow, recipe, **changes)

    return job


def same(one: Path, other: Path) -> bool:
    ours, theirs = (weights_of(folder) | load_file(folder / FILE) for folder in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_later_stage_goes_on_with_it_also_after_one_without(
    make: MakeFit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(make(recipe_of(first=TWICE["first"])), tmp_path / "first", CPU)
    fit(make(recipe_of(**TWICE)), tmp_path / "kept", CPU)
    told = [line for line in capfd.readouterr().err.splitlines() if " projection (" in line]
    assert told == [
        "first: draws a new projection (shared, 16 -> 32)",
        "first: draws a new projection (shared, 16 -> 32)",
        "second: goes on with the student's projection (shared, 16 -> 32)",
    ]
    learned, kept = (load(tmp_path / name / FILE)["shared"].weight for name in ("first", "kept"))
    torch.testing.assert_close(kept, learned, rtol=0, atol=1e-9)
    fit(make(recipe_of(**TWICE), projecting=Projecting(fresh=True)), tmp_path / "fresh", CPU)
    torch.manual_seed(0)
    drawn = nn.Linear(16, 32).weight
    torch.testing.assert_close(load(tmp_path / "fresh" / FILE)["shared"].weight, drawn, rtol=0, atol=1e-9)
    assert not torch.allclose(drawn, learned, atol=1e-3)


def test_a_run_that_was_cut_off_between_or_within_stages_goes_on_with_it(make: MakeFit, tmp_path: Path) -> None:
    joint = {"losses": {"hidden": {}, "soft": {}}, "epochs": 2, "select": "best"}
    recipe = recipe_of(**TWICE | {"second": joint})
    whole = make(recipe)
    fit(whole, tmp_path / "whole", CPU)
    for fatal in (1, 3):
        calls = iter(range(1, 4))

        def score(model: Any, fatal: int = fatal, calls: Iterator[int] = calls) -> dict[str, float]:
            if next(calls) == fatal:
                raise KeyboardInterrupt
            return whole.score(model)

        # The first evaluation is that of the stage between, the third that of the last epoch.
        with pytest.raises(KeyboardInterrupt):
            fit(make(recipe, score=score), tmp_path / "cut", CPU)
    stages = tmp_path / "cut" / "stages"
    assert {path.parent.parent.name for path in stages.glob(f"*/student/{FILE}")} == {"0-first", "1-answers"}
    assert len(list(stages.glob(f"2-second/best-*-{FILE}"))) == 1
    wait_for_the_next_second(tmp_path / "cut")
    fit(make(recipe), tmp_path / "cut", CPU)
    assert same(tmp_path / "cut", tmp_path / "whole")
    for stage in ("first", "answers", "second"):
        assert scalars(tmp_path / "cut" / "logs" / stage) == scalars(tmp_path / "whole" / "logs" / stage)


def test_one_that_is_damaged_half_way_is_refused_with_advice_that_helps(make: MakeFit, tmp_path: Path) -> None:
    def score(_student: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    recipe = recipe_of(**TWICE)
    with pytest.raises(KeyboardInterrupt):
        fit(make(recipe, score=score), tmp_path / "out", CPU)
    stage = tmp_path / "out" / "stages" / "0-first"
    (stage / "student" / FILE).write_bytes(b"nothing")
    with pytest.raises(DamageError, match="can be read") as error:
        fit(make(recipe), tmp_path / "out", CPU)
    assert str(error.value).endswith(f"; delete {stage} and run the same command again")
    shutil.rmtree(stage)
    fit(make(recipe), tmp_path / "out", CPU)
    fit(make(recipe), tmp_path / "whole", CPU)
    assert same(tmp_path / "out", tmp_path / "whole")


def test_a_run_from_before_projections_were_kept_goes_on(
    make: MakeFit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_model: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    recipe = recipe_of(**TWICE)
    with pytest.raises(KeyboardInterrupt):
        fit(make(recipe, score=interrupt), tmp_path, CPU)
    assert "projection" not in read_json(tmp_path / "run.json")
    assert "project_equal_widths" not in (tmp_path / "run.json").read_text(encoding="utf-8")
    (tmp_path / "stages" / "0-first" / "student" / FILE).unlink()
    fit(make(recipe), tmp_path, CPU)
    assert "second: draws a new projection" in capfd.readouterr().err


def test_the_best_epoch_has_its_own_projection(make: MakeFit, tmp_path: Path) -> None:
    joint = HIDDEN | {"losses": {"hidden": {}, "soft": {}}, "select": "best"}
    scores = iter([0.9, 0.1, 0.2, 0.9])
    longer = make(recipe_of(joint=joint | {"epochs": 3}), score=lambda _model: {"accuracy": next(scores)})
    fit(longer, tmp_path / "longer", CPU)
    fit(make(recipe_of(joint=joint | {"epochs": 1})), tmp_path / "shorter", CPU)
    assert same(tmp_path / "longer", tmp_path / "shorter")


def test_what_fits_in_part_is_taken_up_whole(make: MakeFit) -> None:
    """A student that learns from its last layer for a while keeps what it has of the others."""
    job = make(recipe_of(first=HIDDEN | {"losses": {"hidden": {"shared_projection": False}}}))
    held = {f"layer_{layer:02d}": nn.Linear(16, 32) for layer in range(3)}
    matches = job.source.knowledge.matches
    assert {pair.student for pair in matches.of("hidden")} == {1, 2}
    assert take_up("general", held, job.recipe, matches, job.student) == held
    with pytest.raises(MismatchError, match="general brings a projection of layer 2, 16 -> 32"):
        take_up("general", {"layer_02": held["layer_02"]}, job.recipe, matches, job.student)
