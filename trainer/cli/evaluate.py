"""``hsktrain evaluate``: the task metrics of a model."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, runtime
from hskcache.errors import MismatchError
from hskcache.text.layout import Layout, class_order, layout
from trainer.cli import options

if TYPE_CHECKING:
    from hskcache.text import Examples


@click.command()
@click.option("--model", required=True, help="Folder or hub id of a fine-tuned model and its tokenizer.")
@click.option("--data", required=True, metavar="FILE", help="Labelled rows.")
@layout
@options.trained_max_length
@options.bf16
@options.device
@options.as_json
def evaluate(model: str, data: str, layout: Layout, as_json: bool, **settings: Any) -> None:
    """Score a model on labelled rows.

    Class indices follow the order of the labels in the model's config. Columns that are not given are those that the
    model was trained on.
    """
    from hskcache.encoder import trained_length
    from hskcache.model.adapter import tokenizer_of
    from hskcache.text import load_tokenizer
    from hskcache.text.cut import tell_beyond, tell_cut
    from hskcache.text.remembered import MAX_LENGTH, of_model
    from hskcache.text.tokenize import reach_of
    from trainer import chance
    from trainer.evaluation import check_labels, metrics_for
    from trainer.evaluation import evaluate as score
    from trainer.student.create import load_classifier

    memory = of_model(model)
    layout = layout.recalling(memory, data, labelled=True)
    max_length = settings["max_length"] or memory.max_length or MAX_LENGTH
    task = layout.task
    device = runtime.resolve_device(settings["device"])
    with runtime.quiet():
        tokenizer = load_tokenizer(tokenizer_of(model))
        classifier = load_classifier(model)
    config = classifier.config
    problem = "regression" if config.num_labels == 1 else "classification"
    num_classes = None if problem == "regression" else int(config.num_labels)
    examples = layout.of_labelled_rows().read(data, class_order(model, config, task), problem, num_classes)
    check_labels(examples)
    _check_problem(model, config, examples)
    rows = options.tokenized(examples, tokenizer, max_length)
    tell_cut(rows.cut, len(rows), data, reach_of(classifier, model, max_length))
    tell_beyond(int(rows.lengths.max(initial=0)), trained_length(classifier), data, model)
    metrics = metrics_for(problem, task.metrics if task else None)
    values = score(classifier.to(device), examples, rows, metrics, bf16=settings["bf16"])
    noticed = chance.record(values)
    if as_json:
        rows_read = {"num_rows": len(examples), "max_length": max_length, "cut": asdict(rows.cut)}
        console.print_json({"model": model, "data": data, **rows_read, "metrics": values, **noticed})
    else:
        options.print_metrics(values)
    chance.tell(noticed, model, "train it at another learning rate, for more epochs or on more rows")


def _check_problem(model: str, config: Any, examples: "Examples") -> None:
    found = len(examples.label_names) if examples.problem == "classification" else 1
    if found != config.num_labels:
        raise MismatchError(
            f"{model} has {config.num_labels} outputs and {examples.source} has {found} (1 is a score); "
            "give a model of this task, or --task or --classes to name the classes"
        )
