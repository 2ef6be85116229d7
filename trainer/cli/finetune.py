"""``hsktrain finetune``: plain fine-tuning on labels."""

from pathlib import Path
from typing import Any

import click

from hskcache import console, runtime
from hskcache.options import as_json, device, layout
from hskcache.ranges import FiniteRange, Whole
from hskcache.text.layout import Layout
from trainer.cli import options


@click.command()
@click.option("--model", required=True, help="Folder, config.json, hub id, tinybert4 or tinybert6 to start from.")
@click.option("--tokenizer", help="Folder or hub id of the tokenizer [default: the model's].")
@click.option("--data", required=True, metavar="FILE", help="Training rows.")
@click.option("--eval-data", required=True, metavar="FILE", help="Rows that pick the best evaluation.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result.")
@layout
@click.option("--epochs", type=Whole(min=1), default=3, show_default=True, help="Passes over the rows.")
@click.option(
    "--lr",
    "learning_rate",
    type=FiniteRange(min=0, min_open=True),
    default=2e-5,
    show_default=True,
    help="Highest learning rate.",
)
@click.option("--batch-size", type=Whole(min=1), default=32, show_default=True, help="Rows of a batch.")
@click.option(
    "--gradient-accumulation",
    type=Whole(min=1),
    default=1,
    show_default=True,
    help="Batches of one optimizer step.",
)
@click.option(
    "--warmup-ratio",
    type=FiniteRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the steps over which the learning rate rises.",
)
@click.option("--weight-decay", type=FiniteRange(min=0), default=0.01, show_default=True, help="Of AdamW.")
@click.option("--patience", type=Whole(min=1), help="Stop after so many epochs without a better result.")
@options.metric
@options.eval_steps
@options.save_steps
@options.task_max_length
@options.seed
@options.bf16
@device
@as_json
def finetune(data: str, eval_data: str, out: Path, layout: Layout, as_json: bool, **settings: Any) -> None:
    """Fine-tune a model on labels and keep it as it was at its best evaluation.

    The result is an ordinary checkpoint: a teacher for hskcache build, or a student without a teacher. The same
    command goes on where a cut-off run stopped.
    """
    from hskcache.disk import writing_to
    from hskcache.text import load_tokenizer, tokenized
    from hskcache.text.remembered import MAX_LENGTH
    from trainer import chance
    from trainer.evaluation import metrics_for
    from trainer.run import processes
    from trainer.run.checkpoints import begun, reached, require_room
    from trainer.run.finetune import FinetuneArguments
    from trainer.run.finetune import finetune as run
    from trainer.run.finetuner import Labelled
    from trainer.student.vocabulary import tokenizer_for

    vocabulary = tokenizer_for(settings["model"], settings.pop("tokenizer"))
    layout = layout.of_labelled_rows()
    task = layout.task
    require_room(out)
    # A run of before tasks told their lengths goes on with its own.
    known = begun(out).get("max_length") or (task.max_length if task else None) or MAX_LENGTH
    settings["max_length"] = settings["max_length"] or known
    for source in (data, eval_data):
        layout.check(source)
    with console.going_on_from(lambda: reached(out)):
        train = layout.read(data)
        dev = layout.read(eval_data, train.label_names, train.problem)
        tokenizer = load_tokenizer(vocabulary)
        settings["device"] = runtime.resolve_device(settings["device"])
        names = tuple(task.metrics) if task else ()
        if (first := settings.pop("metric")) is not None:
            names = tuple(metrics_for(train.problem, names, first))
        arguments = FinetuneArguments(**settings, metrics=names)
        rows = [tokenized(examples, tokenizer, arguments.max_length) for examples in (train, dev)]
        with writing_to(out, "here"):
            result = run(arguments, tokenizer, Labelled(train, rows[0]), Labelled(dev, rows[1]), out)
    processes.disconnect()
    if not processes.is_first():
        return
    if as_json:
        console.print_json(result)
    else:
        options.print_scores({eval_data: result["best"]["metrics"]})
    chance.tell(result, str(out), "what usually helps is another learning rate (--lr), more --epochs or more rows")
