"""``hsktrain create``: a student to start from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from hskcache import console, runtime
from hskcache.errors import MismatchError, SpecError
from trainer.cli import options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Created: TypeAlias = "tuple[PreTrainedModel, PreTrainedTokenizerBase]"


@click.command()
@click.option("--student", help="tinybert4, tinybert6, a config.json or a checkpoint.")
@click.option("--from", "teacher", metavar="TEACHER", help="Take the student's weights from layers of this model.")
@click.option("--layers", help="Layers of --from, counted from 1: 2,4,6 or bottom:3 or uniform:3.")
@click.option("--tokenizer", help="Folder or hub id of the tokenizer [default with --from: the teacher's].")
@click.option("--labels", help="Number of classes, or their names: negative,positive. 1 is a regression.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the student.")
@options.seed
@options.as_json
def create(student: str | None, teacher: str | None, out: Path, as_json: bool, **settings: Any) -> None:
    """Create a student and save it with its tokenizer.

    Either --student with --tokenizer and --labels, or --from with --layers.
    """
    if out.exists() and any(out.iterdir()):
        raise MismatchError(f"{out} is not empty; give a new or an empty folder with --out")
    with runtime.quiet():
        model, tokenizer = _cut(teacher, student, settings) if teacher else _begin(student, settings)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    facts = {"layers": model.config.num_hidden_layers, "width": model.config.hidden_size}
    facts |= {"parameters": model.num_parameters(), "classes": model.config.num_labels}
    if as_json:
        console.print_json({"out": str(out), **facts})
    else:
        console.say(f"{out}: " + ", ".join(f"{value:,} {name}" for name, value in facts.items()))


def _begin(student: str | None, settings: dict[str, Any]) -> Created:
    from hskcache.text import load_tokenizer
    from trainer.student.create import Interface, create_student

    missing = [name for name in ("tokenizer", "labels") if settings[name] is None]
    if student is None or missing or settings["layers"] is not None:
        needed = "give --student with --tokenizer and --labels, or --from with --layers"
        raise SpecError(f"--student lacks --{missing[0]}; {needed}" if student and missing else needed)
    tokenizer = load_tokenizer(settings["tokenizer"])
    names, problem = parse_labels(settings["labels"])
    interface = Interface(
        len(tokenizer),
        names,
        problem,
        tokenizer.pad_token_id or 0,
        type_vocab_size=2 if "token_type_ids" in tokenizer.model_input_names else 1,
    )
    return create_student(student, interface, settings["seed"]), tokenizer


def _cut(teacher: str, student: str | None, settings: dict[str, Any]) -> Created:
    from hskcache.text import load_tokenizer
    from trainer.student.create import from_teacher_layers, load_classifier, resolve_layers

    if student is not None or settings["labels"] is not None:
        raise SpecError("--from brings its own classifier; leave out --student and --labels")
    if settings["layers"] is None:
        raise SpecError("--from lacks --layers; give some of the teacher's layers, such as 2,4,6 or uniform:3")
    tokenizer = load_tokenizer(settings["tokenizer"] or teacher)
    model = load_classifier(teacher)
    layers = resolve_layers(settings["layers"], model.config.num_hidden_layers)
    return from_teacher_layers(model, layers), tokenizer


def parse_labels(text: str) -> tuple[tuple[str, ...], Literal["classification", "regression"]]:
    """Class names in index order and the kind of problem; classes that are only counted are called 0, 1, ...

    Raises:
        SpecError: no class, one named class, or a name twice.
    """
    if text == "1":
        return (), "regression"
    names = tuple(map(str, range(int(text)))) if text.isdecimal() else tuple(part.strip() for part in text.split(","))
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise SpecError(f"--labels {text!r}: give a number of classes or different names: negative,positive")
    return names, "classification"
