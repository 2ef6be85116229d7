"""A name that was mistyped is answered with the one that was meant, wherever names are typed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from hskcache.cli import main as hskcache
from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.spec import parse_spec
from hskcache.text.tasks import load_task
from trainer.cli import COMMANDS
from trainer.cli import main as hsktrain
from trainer.recipe import load_recipe


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("epoch", "epochs"),
        ("Max-Length", "max_length"),
        ("lenght", "length"),
        ("corpus", "corpora"),
        ("trian", "training"),
        ("nothing", None),
        ("something", None),
        ("zebra", None),
    ],
)
def test_the_nearest_name_is_meant_or_none(given: str, name: str | None) -> None:
    known = ["epochs", "max_length", "length", "encodings", "sharing", "corpora", "training"]
    assert meant(given, known) == (f"; do you mean {name!r}?" if name else "")


@pytest.mark.parametrize(
    ("text", "keys", "near"),
    [
        ("max_lenght: 64", "there are hidden, attention, max_length", "'max_length'"),
        ("hidden: {depth: {mappin: top}}", "there are student_layers, target, num_layers, kept, mapping", "'mapping'"),
        ("hidden: {encoding: int-8}", "'int8'", "'int8'"),
    ],
)
def test_an_unknown_key_of_a_spec_lists_those_that_exist(text: str, keys: str, near: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "spec.yaml")
    assert keys in str(caught.value)
    assert str(caught.value).endswith(f"do you mean {near}?")


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ("hidden.epoch=3", "'epochs'"),
        ("hiden.epochs=3", "'hidden'"),
        ("prediction.losses.soft.temprature=2", "'temperature'"),
        ("prediction.losses.sof.weight=2", "'soft'"),
        ("prediction.schedule=linera", "'linear'"),
    ],
)
def test_an_unknown_setting_of_a_recipe_names_the_nearest(change: str, near: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_recipe("mud", [change])
    assert str(caught.value).endswith(f"do you mean {near}?")


def test_unknown_tasks_and_recipes_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="do you mean 'sst2'"):
        load_task("sst-2")
    with pytest.raises(SpecError, match="do you mean 'tinybert-task'"):
        load_recipe("tinybert_tasks")
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, text: 0, label: 1, problem: regression, probelm: 1, metrics: [pearson]}"
    )
    with pytest.raises(SpecError, match=r"there is no such key; there are name, .*; do you mean 'problem'\?"):
        load_task(str(tmp_path / "mine.yaml"))


def test_unknown_commands_name_the_nearest_or_all() -> None:
    result = CliRunner().invoke(hskcache, ["biuld"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "Error: No such command 'biuld'; do you mean 'build'?",
    )
    result = CliRunner().invoke(hsktrain, ["xyz", "--out", "o"])
    assert f"the commands are {', '.join(COMMANDS)}" in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (("--epochs", "3"), "give --set hidden.epochs=3 or --set prediction.epochs=3"),
        (("--lr", "1e-4", "--recipe", "logits"), "give --set prediction.learning_rate=1e-4"),
        (("--batch-size", "8", "--recipe", "labels"), "give --set labels.batch_size=8"),
        (("--patience", "2"), "--set hidden.patience=2 or --set prediction.patience=2"),
    ],
)
def test_flags_of_a_trainer_tell_the_setting_that_is_meant(args: tuple[str, ...], advice: str) -> None:
    result = CliRunner().invoke(hsktrain, ["fit", "--cache", "c", "--student", "tinybert4", "--out", "o", *args])
    assert result.exit_code == 2
    assert advice in result.stderr
    # The change itself can be made: of a stage that picks its best epoch, as patience asks for.
    recipe = args[args.index("--recipe") + 1] if "--recipe" in args else "mud"
    assert load_recipe(recipe, [advice.rpartition("--set ")[2]])


def test_a_flag_that_a_command_has_itself_stays_what_it_is() -> None:
    args = ["stark", "--teacher", "t", "--student", "tinybert4", "--data", "d", "--eval-data", "d", "--out", "o"]
    result = CliRunner().invoke(hsktrain, [*args, "--batch-size", "8", "--epochs", "2"])
    assert "give --set distillation.epochs=2" in result.stderr
    assert "batch_size" not in result.stderr
