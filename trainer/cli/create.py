"""``hsktrain create``: a student to start from."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hskcache import console, runtime
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.disk import writing_to
from hskcache.errors import MismatchError, SpecError
from hskcache.locks import WRITING, sole_writer
from hskcache.options import as_json, device, gathered, layout
from hskcache.ranges import FiniteRange, Whole
from hskcache.text.layout import OPTIONS
from hskcache.text.remembered import save
from trainer.cli import options
from trainer.cli.creating import CreateRequest, create_as_asked

# Options that say how to prune, by the names of their parameters; with any other way to begin they would do nothing.
_PRUNING = ("heads", "ffn", "share", "embedding_rank", "data", "num_rows", "batch_size", "max_length", "device")


@click.command()
@click.option("--student", help="tinybert4, tinybert6, a config.json or a checkpoint.", shell_complete=options.students)
@click.option(
    "--from",
    "teacher",
    metavar="TEACHER",
    help="Take the student's weights from layers of this model.",
    shell_complete=places,
)
@click.option(
    "--prune",
    metavar="TEACHER",
    help="Cut the student out of this fine-tuned BERT: layers, heads, neurons, embedding.",
    shell_complete=places,
)
@click.option(
    "--layers",
    help="Layers to take, counted from 1: 2,4,6 or bottom:3 or uniform:3; with --prune a number alone is the first so "
    "many  [default with --prune: all].",
)
@click.option("--heads", type=Whole(min=1), help="With --prune: heads to keep in each layer  [default: all].")
@click.option("--ffn", type=Whole(min=1), help="With --prune: neurons to keep in each layer  [default: all].")
@click.option(
    "--global",
    "share",
    metavar="SHARE",
    type=FiniteRange(0, 1, min_open=True),
    help="With --prune: keep this share of all heads and of all neurons, the best of all layers; layers may keep "
    "different numbers, or none.",
)
@click.option(
    "--embedding-rank",
    type=Whole(min=1),
    help="With --prune: factor the word embedding into two matrices of this rank  [default: leave it one].",
)
@click.option(
    "--data",
    metavar="FILE",
    help="With --prune: labelled rows that show which heads and neurons matter.",
    shell_complete=places,
)
@layout
@click.option(
    "--rows", "num_rows", type=Whole(min=1), help="With --prune: rows to use at most, drawn by --seed  [default: all]."
)
@click.option(
    "--batch-size",
    type=Whole(min=1),
    default=32,
    help="With --prune: rows of a batch; importance adds up over batches.",
)
@options.trained_max_length
@device
@click.option(
    "--tokenizer",
    help="Folder or hub id of the tokenizer [default with a teacher: the teacher's].",
    shell_complete=places,
)
@click.option("--labels", help="Number of classes, or their names: negative,positive. 1 is a regression.")
@click.option("--multilabel", is_flag=True, help="With --labels: a row may have any number of them.")
@options.out("the student")
@options.seed
@as_json
@gathered(CreateRequest, "request")
def create(request: CreateRequest, out: Path, as_json: bool) -> None:
    """Create a student and save it with its tokenizer.

    Either --student with --tokenizer and --labels, or --from with --layers, or --prune with what to keep; to choose
    heads and neurons --prune needs labelled rows: --data with --task or columns. A causal language model has no
    --labels.
    """
    click.get_current_context().with_resource(sole_writer(out))
    if out.exists() and any(path.name != WRITING for path in out.iterdir()):
        raise MismatchError(f"{out} is not empty; give a new or an empty folder with --out")
    if request.prune is None:
        _refuse_pruning()
    from hskcache.model.save import save_model

    with runtime.quiet():
        created = create_as_asked(request)
        with writing_to(out, "the start"):
            save_model(created.model, out, created.tokenizer)
            if created.rows is not None and created.rows.is_known:
                save(created.rows, out)
    config = created.model.config
    facts = {"layers": config.num_hidden_layers, "width": config.hidden_size}
    facts |= {"parameters": created.model.num_parameters()}
    if created.model.can_generate():
        facts["ids"] = config.vocab_size
    elif created.model.base_model is not created.model:
        facts["classes"] = config.num_labels
    if as_json:
        console.print_json({"out": str(out), **facts, **created.facts})
        return
    console.say(f"{out}: " + ", ".join(f"{value:,} {name}" for name, value in facts.items()))
    for line in _told(created.facts):
        console.say(line)


def _refuse_pruning() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in {*_PRUNING, *OPTIONS}:
            assert parameter.name is not None
            if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
                raise SpecError(f"{parameter.opts[0]} belongs to --prune TEACHER; give that, or leave it out")


def _told(facts: dict[str, Any]) -> list[str]:
    """Lines on what pruning kept, for people."""
    if not facts:
        return []
    rank = facts["embedding_rank"]
    words = "whole word embedding" if rank is None else f"word embedding of rank {rank}"
    sizes = f"{counted(facts['heads'], 'head')} of {facts['head_size']}, ffn {facts['ffn']:,}, {words}"
    if (of := facts.get("of")) is not None:
        sizes = (
            f"{facts['heads']:,} of {counted(of['heads'], 'head')} of {facts['head_size']}, {facts['ffn']:,} of "
            f"{of['ffn']:,} "
        )
        sizes += f"neurons, {words}"
    lines = [f"{sizes}; the teacher has {counted(facts['teacher_parameters'], 'parameter')}"]
    if facts["num_rows"]:
        lines.append(f"kept by their importance on {counted(facts['num_rows'], 'row')}, heads counted from 0:")
        neurons = [f"; {counted(number, 'neuron')}" for number in facts.get("ffn_by_layer", ())]
        for kept, more in zip(facts["kept_heads"], neurons or [""] * len(facts["kept_heads"]), strict=True):
            heads = f"heads {', '.join(map(str, kept['heads']))}" if kept["heads"] else "no head"
            lines.append(f"  teacher layer {kept['layer']}: {heads}{more}")
    return lines
