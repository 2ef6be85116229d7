"""``hsktrain evaluate``: the task metrics of a model."""

from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.errors import MismatchError
from trainer.cli import options

if TYPE_CHECKING:
    from hskcache.text import Examples, Task


@click.command()
@click.option("--model", required=True, help="Folder or hub id of a fine-tuned model and its tokenizer.")
@click.option("--data", required=True, metavar="FILE", help="Labelled rows.")
@options.layout
@options.max_length
@options.bf16
@options.device
@options.as_json
def evaluate(model: str, data: str, layout: options.Layout, as_json: bool, **settings: Any) -> None:
    """Score a model on labelled rows.

    Class indices follow the order of the labels in the model's config.
    """
    from hskcache.text import load_tokenizer
    from trainer.evaluation import evaluate as score
    from trainer.evaluation import metrics_for
    from trainer.progress import quiet
    from trainer.student.create import load_classifier

    task = layout.task
    device = options.resolve_device(settings["device"])
    with quiet():
        tokenizer = load_tokenizer(model)
        classifier = load_classifier(model)
    config = classifier.config
    problem = "regression" if config.num_labels == 1 else "classification"
    examples = layout.read(data, class_order(model, config, task), problem)
    _check_problem(model, config, examples)
    rows = options.tokenized(examples, tokenizer, settings["max_length"])
    metrics = metrics_for(problem, task.metrics if task else None)
    values = score(classifier.to(device), examples, rows, metrics, bf16=settings["bf16"])
    if as_json:
        console.print_json({"model": model, "data": data, "num_rows": len(examples), "metrics": values})
    else:
        options.print_metrics(values)


def class_order(model: str, config: Any, task: "Task | None") -> tuple[str, ...] | None:
    """The labels as the data writes them, in the order of the model's classes; None where only the data can tell.

    A model that was saved without names (LABEL_0, ...) is taken to follow the task's order, and so is one whose names
    are not the task's at all, such as NEGATIVE for 0.

    Raises:
        MismatchError: the model and the task differ in kind or in the number of classes.
    """
    if config.num_labels == 1:
        return None
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    nameless = names == tuple(f"LABEL_{index}" for index in range(len(names)))
    if task is None:
        return None if nameless else names
    if len(task.labels) != len(names):
        raise MismatchError(
            f"{model} has {len(names)} classes and {task.name} has {len(task.labels) or 'scores'}; "
            "give a model that was fine-tuned on this task"
        )
    spelled = {label.casefold(): label for label in task.labels}
    if all(name.casefold() in spelled for name in names):
        return tuple(spelled[name.casefold()] for name in names)
    if not nameless:
        console.say(
            f"the model's classes {', '.join(names)} are taken for the task's {', '.join(task.labels)}, in order"
        )
    return tuple(task.labels)


def _check_problem(model: str, config: Any, examples: "Examples") -> None:
    found = len(examples.label_names) if examples.problem == "classification" else 1
    if found != config.num_labels:
        raise MismatchError(
            f"{model} has {config.num_labels} outputs and {examples.source} has {found} (1 is a score); "
            "give a model of this task, or --task to name the classes"
        )
