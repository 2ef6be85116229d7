"""Recipes: those that ship, those of a user, and every way to get one wrong."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hskcache.errors import SpecError
from trainer.recipe import AttentionTerm, known_recipes, load_recipe

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [
    *("embedding", "heal", "labels", "lm", "lm-hidden", "logits", "logits-long", "mud", "stark"),
    *("tinybert-general", "tinybert-task", "tinybert-task-release"),
]


@pytest.mark.parametrize(
    ("task", "epochs"),
    [("cola", 30), ("sst2", 10), ("mnli", 5), ("qqp", 5), ("qnli", 5), ("mrpc", 20), ("stsb", 20), ("rte", 20)],
)
def test_the_mud_recipe_has_the_papers_settings(task: str, epochs: int) -> None:
    hidden, prediction = load_recipe("mud").for_task(task).stages
    assert (hidden.epochs, hidden.learning_rate, hidden.batch_size, hidden.schedule) == (epochs, 5e-5, 32, "constant")
    assert (prediction.epochs, prediction.learning_rate, prediction.batch_size) == (5, 2e-5, 32)
    assert (prediction.schedule, prediction.select) == ("linear", "best")
    assert (hidden.weight_decay, prediction.weight_decay) == (0.01, 0.01)
    assert hidden.losses.hidden is not None
    assert hidden.losses.hidden.missing == "zero"
    assert hidden.losses.hidden.shared_projection
    assert prediction.losses.soft is not None
    assert prediction.losses.soft.temperature == 1


@pytest.mark.parametrize(
    ("task", "epochs"),
    [
        ("cola", 50),
        ("sst2", 20),
        ("mnli", 10),
        ("qqp", 10),
        ("qnli", 10),
        ("mrpc", 20),
        ("stsb", 20),
        ("rte", 20),
        (None, 20),
    ],
)
def test_tinyberts_task_recipe_has_the_settings_of_the_paper(task: str | None, epochs: int) -> None:
    intermediate, prediction = load_recipe("tinybert-task").for_task(task).stages
    assert (intermediate.epochs, intermediate.learning_rate, intermediate.batch_size) == (epochs, 5e-5, 32)
    assert (intermediate.schedule, intermediate.warmup, intermediate.select) == ("constant", 0.0, "last")
    assert (prediction.epochs, prediction.learning_rate, prediction.batch_size) == (3, 3e-5, 32)
    assert prediction.select == "best"
    assert prediction.losses.soft is not None
    assert prediction.losses.soft.temperature == 1
    assert intermediate.losses == load_recipe("tinybert-general").stages[0].losses


@pytest.mark.parametrize("task", ["cola", "mnli", "sst2", None])
def test_tinyberts_release_runs_ten_epochs_of_every_task(task: str | None) -> None:
    published, released = (load_recipe(name).for_task(task) for name in ("tinybert-task", "tinybert-task-release"))
    assert released.stages[0].epochs == 10
    attention = released.stages[0].losses.attention
    assert attention is not None
    assert attention.mean == "padded"
    assert all(
        term.project_equal_widths
        for term in (released.stages[0].losses.hidden, released.stages[0].losses.embedding)
        if term
    )
    for theirs, ours in zip(published.stages, released.stages, strict=True):
        assert ours.model_copy(update={"epochs": theirs.epochs, "losses": theirs.losses}) == theirs


def test_the_long_baseline_sees_as_many_epochs_as_the_hidden_phase() -> None:
    for task in ("cola", "sst2", "mnli", "qqp", "qnli", "mrpc", "stsb", "rte", "wnli", None):
        (long,), (short,) = (load_recipe(name).for_task(task).stages for name in ("logits-long", "logits"))
        assert long.epochs == load_recipe("mud").for_task(task).stages[0].epochs
        assert long.model_copy(update={"epochs": short.epochs}) == short


def test_a_run_of_before_means_could_be_chosen_is_the_same_run() -> None:
    before = {"weight": 1.0, "heads": "match"}
    assert AttentionTerm().model_dump(mode="json") == before
    assert AttentionTerm(mean="padded").model_dump(mode="json") == before | {"mean": "padded"}
    assert load_recipe("tinybert-task", ["intermediate.losses.attention.mean=padded"]).stages[0].losses.attention == (
        AttentionTerm(mean="padded")
    )


def test_tinyberts_general_recipe_has_the_settings_of_the_paper() -> None:
    (general,) = load_recipe("tinybert-general").stages
    assert (general.epochs, general.learning_rate, general.batch_size) == (3, 1e-4, 256)
    assert (general.schedule, general.warmup, general.weight_decay) == ("linear", 0.01, 0.01)
    losses = general.losses
    assert losses.embedding is not None
    assert losses.hidden is not None
    assert losses.attention is not None
    assert (losses.needs_task, losses.hidden.embedding, losses.attention.heads) == (False, False, "match")


def test_starks_recipe_is_half_of_the_soft_labels_and_half_of_the_gold_ones() -> None:
    (stage,) = load_recipe("stark").for_task("mnli").stages
    assert stage.losses.model_dump(exclude_none=True) == {
        "soft": {"weight": 0.5, "temperature": 2.0, "temperature_squared": True},
        "label": {"weight": 0.5},
    }
    assert (stage.name, stage.epochs, stage.learning_rate, stage.batch_size) == ("distillation", 10, 3e-5, 16)
    assert (stage.schedule, stage.warmup, stage.weight_decay, stage.max_grad_norm) == ("linear", 0.1, 0.01, 5.0)
    assert (stage.select, stage.patience) == ("best", 5)


@pytest.mark.parametrize(("text", "heads"), [("mean", "mean"), ("[0, 3, 3]", (0, 3, 3))])
def test_heads_may_be_matched_averaged_or_listed(text: str, heads: object) -> None:
    stage = load_recipe("tinybert-task", [f"intermediate.losses.attention.heads={text}"]).stages[0]
    assert stage.losses.attention is not None
    assert stage.losses.attention.heads == heads


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            "intermediate.losses.hidden.embedding=true",
            "both count the embedding outputs; set hidden.embedding to false",
        ),
        ("intermediate.losses.hidden={}", "both count the embedding outputs"),
        ("intermediate.losses.attention.heads=all", "heads"),
        ("intermediate.losses.attention.heads=[]", "heads"),
        ("intermediate.losses.attention.heads=[-1]", "heads"),
    ],
)
def test_terms_that_contradict_each_other_are_refused(change: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        load_recipe("tinybert-task", [change])


def test_every_recipe_that_ships_loads() -> None:
    assert known_recipes() == SHIPPED
    for name in known_recipes():
        assert load_recipe(name).name == name


def test_a_task_without_epochs_of_its_own_takes_the_recipes() -> None:
    assert load_recipe("mud").for_task("wnli").stages[0].epochs == 10
    assert load_recipe("mud").for_task(None).stages[0].epochs == 10


def test_settings_change_at_any_depth() -> None:
    changes = [
        "hidden.losses.hidden.missing=ignore",
        "hidden.learning_rate=1e-4",
        "prediction.losses.label.weight=.5e0",
    ]
    hidden, prediction = load_recipe("mud", changes).stages
    assert hidden.losses.hidden is not None
    assert hidden.losses.hidden.missing == "ignore"
    assert hidden.learning_rate == 1e-4
    assert prediction.losses.label is not None
    assert prediction.losses.label.weight == 0.5


def test_epochs_that_the_user_sets_hold_for_every_task() -> None:
    assert load_recipe("mud", ["hidden.epochs=3"]).for_task("cola").stages[0].epochs == 3


def test_changes_may_need_each_other() -> None:
    stage = load_recipe("mud", ["hidden.patience=2", "hidden.select=best"]).stages[0]
    assert (stage.patience, stage.select) == (2, "best")


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nstages:\n- {name: a, epochs: 2, learning_rate: 5e-5, losses: {soft: {weight: 1}}}\n")
    assert load_recipe(str(path)).stages[0].learning_rate == 5e-5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("prediction.epochs", "is not of the form stage.setting=value"),
        ("prediction=3", "is not of the form stage.setting=value"),
        ("prediction..epochs=3", "is not of the form stage.setting=value"),
        ("finetune.epochs=3", "has no stage 'finetune'; it has hidden, prediction"),
        ("prediction.epoch=3", "stages.1.epoch: there is no such key"),
        ("prediction.epochs=0", "greater than 0"),
        ("prediction.epochs=.inf", "finite"),
        ("prediction.epochs=three", "valid number"),
        ("prediction.epochs=[", "is not YAML"),
        ("prediction.epochs=2020-01-01", "date"),
        ("prediction.epochs.sst2=3", "'epochs' has no settings below it"),
        ("prediction.batch_size=2.5", "integer"),
        ("prediction.losses.soft.temperature_squared=2", "valid boolean"),
        ("prediction.schedule=step", "'constant', 'linear' or 'cosine'"),
        ("prediction.name=hidden", "two stages have the same name"),
        (
            "prediction.losses={}",
            "at least one of embedding, hidden, attention, sentence, similarity, soft, label, next and gold",
        ),
        ("hidden.patience=2", "patience needs select: best"),
        ("hidden.epochs_by_task={sst2: 0}", "greater than 0"),
    ],
)
def test_a_wrong_change_is_one_line_that_names_it(change: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_recipe("mud", [change])
    assert complaint in str(caught.value)
    assert "--set" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "should be an object"),
        ("- a", "should be an object"),
        ("name: a", "stages: Field required"),
        ("name: a\nstages: []", "at least 1 item"),
        ("name: a\nstages: [", "is not YAML"),
        ("name: a\nstages: [{name: A b, epochs: 1, losses: {soft: {}}}]", "stages.0.name"),
        ("&a [*a]", "Circular"),
        ("\0", "is not YAML"),
    ],
)
def test_a_malformed_file_is_one_line_that_names_it(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_recipe(str(path), ["a.epochs=1"])
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError,
        match=rf"'mut' is none of {', '.join(SHIPPED)}, nor a \.yaml file",
    ):
        load_recipe("mut")
    with pytest.raises(SpecError, match="No such file"):
        load_recipe(str(tmp_path / "mine.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(SpecError, match="is not UTF-8"):
        load_recipe(str(tmp_path / "latin.yaml"))


def test_recipes_are_found_in_an_installed_package(tmp_path: Path) -> None:
    """Laid out as the wheel is, away from the checkout."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, place in wheel["force-include"].items():
        shutil.copytree(ROOT / source, tmp_path / place, ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "from trainer.recipe import known_recipes, load_recipe; import trainer, hskcache\n"
        "print(trainer.__file__, hskcache.__file__, *known_recipes(), load_recipe('mud').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    trainer, hskcache, *names = done.stdout.split()
    assert Path(trainer).parents[1] == Path(hskcache).parents[1] == tmp_path
    assert names == [*SHIPPED, "mud"]
