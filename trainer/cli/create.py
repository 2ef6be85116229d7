"""``hsktrain create``: a student to start from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from hskcache import console, runtime
from hskcache.disk import writing_to
from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.locks import WRITING, sole_writer
from hskcache.options import as_json, device, layout
from hskcache.ranges import FiniteRange, Whole
from hskcache.text.layout import OPTIONS, Layout
from hskcache.text.remembered import Remembered, of_model, save
from trainer.cli import options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trainer.student.importance import By, LabelledBatches, LayerImportance
    from trainer.student.prune import Pruned, Pruning

# Options that say how to prune, by the names of their parameters; with any other way to begin they would do nothing.
_PRUNING = ("heads", "ffn", "share", "embedding_rank", "data", "num_rows", "batch_size", "max_length", "device")


@dataclass(frozen=True)
class Created:
    """A student, its tokenizer, what there is to tell beside its sizes, and how the rows of its teacher are read."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    facts: dict[str, Any] = field(default_factory=dict)
    rows: Remembered | None = None


@click.command()
@click.option("--student", help="tinybert4, tinybert6, a config.json or a checkpoint.")
@click.option("--from", "teacher", metavar="TEACHER", help="Take the student's weights from layers of this model.")
@click.option(
    "--prune", metavar="TEACHER", help="Cut the student out of this fine-tuned BERT: layers, heads, neurons, embedding."
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
@click.option("--data", metavar="FILE", help="With --prune: labelled rows that show which heads and neurons matter.")
@layout
@click.option(
    "--rows",
    "num_rows",
    type=Whole(min=1),
    help="With --prune: rows to use at most, drawn by --seed  [default: all].",
)
@click.option(
    "--batch-size",
    type=Whole(min=1),
    default=32,
    show_default=True,
    help="With --prune: rows of a batch; importance adds up over batches.",
)
@options.trained_max_length
@device
@click.option("--tokenizer", help="Folder or hub id of the tokenizer [default with a teacher: the teacher's].")
@click.option("--labels", help="Number of classes, or their names: negative,positive. 1 is a regression.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the student.")
@options.seed
@as_json
def create(out: Path, as_json: bool, **settings: Any) -> None:
    """Create a student and save it with its tokenizer.

    Either --student with --tokenizer and --labels, or --from with --layers, or --prune with what to keep; to choose
    heads and neurons --prune needs labelled rows: --data with --task or columns.
    """
    click.get_current_context().with_resource(sole_writer(out))
    if out.exists() and any(path.name != WRITING for path in out.iterdir()):
        raise MismatchError(f"{out} is not empty; give a new or an empty folder with --out")
    if settings["prune"] is None:
        _refuse_pruning()
    from hskcache.model.save import save_model

    with runtime.quiet():
        created = _way(settings)(settings)
        with writing_to(out, "the start"):
            save_model(created.model, out, created.tokenizer)
            if created.rows is not None:
                save(created.rows, out)
    config = created.model.config
    facts = {"layers": config.num_hidden_layers, "width": config.hidden_size}
    facts |= {"parameters": created.model.num_parameters(), "classes": config.num_labels}
    if as_json:
        console.print_json({"out": str(out), **facts, **created.facts})
        return
    console.say(f"{out}: " + ", ".join(f"{value:,} {name}" for name, value in facts.items()))
    for line in _told(created.facts):
        console.say(line)


def _way(settings: dict[str, Any]) -> Any:
    if settings["prune"] is not None:
        return _prune
    return _begin if settings["teacher"] is None else _cut


def _refuse_pruning() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in {*_PRUNING, *OPTIONS}:
            assert parameter.name is not None
            if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
                raise SpecError(f"{parameter.opts[0]} belongs to --prune TEACHER; give that, or leave it out")


def _begin(settings: dict[str, Any]) -> Created:
    from hskcache.text import load_tokenizer
    from trainer.student.create import Interface, create_student
    from trainer.student.origin import tell_origin

    student = settings["student"]
    missing = [name for name in ("tokenizer", "labels") if settings[name] is None]
    if student is None or missing or settings["layers"] is not None:
        needed = "give --student with --tokenizer and --labels, or --from with --layers, or --prune"
        raise SpecError(f"--student lacks --{missing[0]}; {needed}" if student and missing else needed)
    tokenizer = load_tokenizer(settings["tokenizer"])
    names, problem = parse_labels(settings["labels"])
    has_types = "token_type_ids" in tokenizer.model_input_names
    interface = Interface(
        len(tokenizer),
        names,
        problem,
        tokenizer.pad_token_id or 0,
        type_vocab_size=2 if has_types else 1,
        # What comes may be pairs: single texts lose nothing by a type that they do not have.
        reads_pairs=has_types,
    )
    model = create_student(student, interface, settings["seed"])
    tell_origin(student, has_types)
    return Created(model, tokenizer)


def _cut(settings: dict[str, Any]) -> Created:
    from hskcache.model.adapter import tokenizer_of
    from hskcache.text import load_tokenizer
    from trainer.student.create import from_teacher_layers, load_classifier, resolve_layers

    teacher = settings["teacher"]
    if settings["student"] is not None or settings["labels"] is not None:
        raise SpecError("--from brings its own classifier; leave out --student and --labels")
    if settings["layers"] is None:
        raise SpecError("--from lacks --layers; give some of the teacher's layers, such as 2,4,6 or uniform:3")
    tokenizer = load_tokenizer(settings["tokenizer"] or tokenizer_of(teacher))
    model = load_classifier(teacher)
    layers = resolve_layers(settings["layers"], model.config.num_hidden_layers)
    return Created(from_teacher_layers(model, layers), tokenizer, rows=_known(of_model(teacher)))


def _known(memory: Remembered) -> Remembered | None:
    """Memory beside a teacher; None where nothing is remembered."""
    return memory if memory.is_known else None


def _prune(settings: dict[str, Any]) -> Created:
    from hskcache.model.adapter import tokenizer_of
    from hskcache.text import load_tokenizer
    from trainer.student.create import load_classifier
    from trainer.student.prune import Pruning, check_cut, prunable_layers, prune

    if any(settings[name] is not None for name in ("student", "teacher", "labels")):
        raise SpecError("--prune brings its own layers and classifier; leave out --student, --from and --labels")
    if all(settings[name] is None for name in ("layers", "heads", "ffn", "share", "embedding_rank")):
        raise SpecError(
            "--prune lacks what to keep; give some of --layers, --heads, --ffn, --global and --embedding-rank"
        )
    device = runtime.resolve_device(settings["device"])
    teacher = load_classifier(settings["prune"])
    tokenizer = load_tokenizer(settings["tokenizer"] or tokenizer_of(settings["prune"]))
    layers = prunable_layers(settings["layers"], teacher.config.num_hidden_layers)
    cut = Pruning(layers, settings["heads"], settings["ffn"], settings["embedding_rank"], settings["share"])
    check_cut(teacher, cut)
    scores, num_rows = None, 0
    if cut.needs_importance(teacher):
        sample = _sample(settings, teacher, tokenizer)
        num_rows = sum(map(len, sample.batches))
        scores = _importance(teacher.to(device), sample, cut)
    elif settings["data"] is not None:
        console.say(f"all heads and neurons stay, so {settings['data']} is not read")
    pruned = prune(teacher, cut, scores)
    facts = _facts(teacher, pruned, cut) | {"num_rows": num_rows}
    return Created(pruned.model, tokenizer, facts, _known(of_model(settings["prune"])))


def _facts(teacher: "PreTrainedModel", pruned: "Pruned", cut: "Pruning") -> dict[str, Any]:
    """Facts of a pruning."""
    config = pruned.model.config
    facts = {
        "heads": config.num_attention_heads,
        "head_size": teacher.config.hidden_size // teacher.config.num_attention_heads,
        "ffn": config.intermediate_size,
        "embedding_rank": cut.embedding_rank,
        "teacher_parameters": teacher.num_parameters(),
        "kept_heads": [{"layer": layer, "heads": list(heads)} for layer, heads in pruned.heads.items()],
    }
    if cut.share is None:
        return facts
    most = {"heads": teacher.config.num_attention_heads, "ffn": teacher.config.intermediate_size}
    return facts | {
        "heads": sum(map(len, pruned.heads.values())),
        "ffn": sum(map(len, pruned.neurons.values())),
        "ffn_by_layer": [len(neurons) for neurons in pruned.neurons.values()],
        "share": cut.share,
        "of": {name: each * len(cut.layers) for name, each in most.items()},
    }


def _sample(
    settings: dict[str, Any], teacher: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> "LabelledBatches":
    from hskcache.text import tokenized
    from hskcache.text.cut import tell_cut
    from hskcache.text.tokenize import reach_of
    from trainer.student.importance import LabelledBatches, draw_batches

    data, columns = settings["data"], settings["layout"]
    assert isinstance(columns, Layout)
    if data is None:
        raise SpecError(
            "--heads, --ffn and --global need labelled rows to choose by; give --data FILE with --task or columns"
        )
    memory = of_model(settings["prune"])
    columns = columns.of_labelled_rows().recalling(memory, data, labelled=True)
    examples = columns.read_for(settings["prune"], teacher.config, data)
    examples.require_gold("which importance needs")
    if examples.labels is None:
        raise DataError(f"--data {data} is read without labels, and importance needs them; give --task or --label")
    max_length = settings["max_length"] or memory.length(columns.task)
    rows = tokenized(examples, tokenizer, max_length)
    tell_cut(rows.cut, len(rows), data, reach_of(teacher, settings["prune"], max_length))
    batches = draw_batches(len(examples), settings["batch_size"], settings["seed"], settings["num_rows"])
    return LabelledBatches(rows, examples.labels, batches)


def _importance(teacher: "PreTrainedModel", sample: "LabelledBatches", cut: "Pruning") -> "dict[int, LayerImportance]":
    from trainer.student.importance import importance

    with console.progress() as bar:
        task = bar.add_task("importance", total=sum(map(len, sample.batches)))
        by: By = "weights" if cut.share is None else "masks"
        return importance(teacher, sample, cut.layers, lambda num_rows: bar.advance(task, num_rows), by)


def _told(facts: dict[str, Any]) -> list[str]:
    """Lines on what pruning kept, for people."""
    if not facts:
        return []
    rank = facts["embedding_rank"]
    words = "whole word embedding" if rank is None else f"word embedding of rank {rank}"
    sizes = f"{facts['heads']} heads of {facts['head_size']}, ffn {facts['ffn']:,}, {words}"
    if (of := facts.get("of")) is not None:
        sizes = (
            f"{facts['heads']:,} of {of['heads']:,} heads of {facts['head_size']}, {facts['ffn']:,} of {of['ffn']:,} "
        )
        sizes += f"neurons, {words}"
    lines = [f"{sizes}; the teacher has {facts['teacher_parameters']:,} parameters"]
    if facts["num_rows"]:
        lines.append(f"kept by their importance on {facts['num_rows']:,} rows, heads counted from 0:")
        neurons = [f"; {number:,} neurons" for number in facts.get("ffn_by_layer", ())]
        for kept, more in zip(facts["kept_heads"], neurons or [""] * len(facts["kept_heads"]), strict=True):
            heads = f"heads {', '.join(map(str, kept['heads']))}" if kept["heads"] else "no head"
            lines.append(f"  teacher layer {kept['layer']}: {heads}{more}")
    return lines


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
