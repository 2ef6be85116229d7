"""``hsktrain finetune``: plain fine-tuning on labels."""

from pathlib import Path

import click

from hskcache import console
from hskcache.completion import places
from hskcache.options import as_json, device, gathered, layout, profile
from hskcache.ranges import FiniteRange, Whole
from hskcache.timeline import recorded
from trainer.cli import options
from trainer.run.request import FinetuneRequest


@click.command()
@click.option(
    "--model",
    required=True,
    help="Folder, config.json, hub id, tinybert4 or tinybert6 to start from.",
    shell_complete=places,
)
@click.option("--tokenizer", help="Folder or hub id of the tokenizer [default: the model's].", shell_complete=places)
@click.option("--data", required=True, metavar="FILE", help="Training rows.", shell_complete=places)
@click.option(
    "--eval-data", required=True, metavar="FILE", help="Rows that pick the best evaluation.", shell_complete=places
)
@options.out("the result")
@layout
@click.option("--epochs", type=Whole(min=1), default=3, help="Passes over the rows.")
@click.option(
    "--lr", "learning_rate", type=FiniteRange(min=0, min_open=True), default=2e-5, help="Highest learning rate."
)
@click.option("--batch-size", type=Whole(min=1), default=32, help="Rows of a batch.")
@click.option("--gradient-accumulation", type=Whole(min=1), default=1, help="Batches of one optimizer step.")
@click.option(
    "--warmup-ratio",
    type=FiniteRange(0, 1, max_open=True),
    default=0.1,
    help="Share of the steps over which the learning rate rises.",
)
@click.option("--weight-decay", type=FiniteRange(min=0), default=0.01, help="Of AdamW.")
@click.option("--patience", type=Whole(min=1), help="Stop after so many epochs without a better result.")
@options.metric
@options.eval_steps
@options.save_steps
@options.report_to
@options.task_max_length
@options.seed
@options.bf16
@device
@profile
@as_json
@gathered(FinetuneRequest, "request", options.asked(FinetuneRequest))
def finetune(request: FinetuneRequest, out: Path, profile: Path | None, as_json: bool) -> None:
    """Fine-tune a model on labels and keep it as it was at its best evaluation.

    The result is an ordinary checkpoint: a teacher for hskcache build, or a student without a teacher. The same
    command goes on where a cut-off run stopped.
    """
    from trainer import chance
    from trainer.run import processes
    from trainer.run.requested import finetune as run

    with recorded(profile):
        result = run(request, out)
    processes.disconnect()
    if not processes.is_first():
        return
    if as_json:
        console.print_json(result)
    else:
        options.print_scores({str(request.eval_data): result["best"]["metrics"]})
        build = ["hskcache", "build", "--teacher", str(out), "--data", str(request.data), "--out", "CACHE"]
        options.tell_end(result, out, {"keeps what it knows": build})
    chance.tell(result, str(out), "what usually helps is another learning rate (--lr), more --epochs or more rows")
