"""``hsktrain fit``: train a student from a cache, or from a teacher in the loop for comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, units
from hskcache.completion import fields, places
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.options import as_json, device, each_once, gathered, layout, profile, view
from hskcache.processes import is_first
from hskcache.ranges import Whole
from hskcache.spec import Spec, parse_spec
from hskcache.timeline import recorded
from hskcache.units import parse_bytes
from trainer.cli import options
from trainer.run.finished import finished
from trainer.run.request import FitRequest, FromCache, FromTeacher, Machine

if TYPE_CHECKING:
    from trainer.loading.residency import Residency


# Options of the one source that the other has no use for, with the reason.
_OF_TEACHER = {
    "data": "--data belongs to --teacher; a cache holds its rows and its spec",
    "spec_file": "--spec belongs to --teacher; a cache holds its rows and its spec",
}
_OF_CACHE = {
    "local_dir": "--local-dir belongs to --cache URL; a teacher in the loop fetches no cache",
    "local_bytes": "--local-bytes belongs to --cache URL; a teacher in the loop fetches no cache",
    "view": "--view belongs to --cache; with --teacher give a --spec that keeps less",
    "tokenizer": "--tokenizer belongs to --cache; a teacher in the loop reads its own tokens",
    "rows": "--rows belongs to --cache; with --teacher give a shorter file with --data",
    "fields": "--field {0[0]} belongs to --cache; with --teacher give that field's teacher and spec",
}


@dataclass(frozen=True, kw_only=True)
class _Given:
    """Options of both sources, of which a command takes one."""

    cache: str | None
    local_dir: Path | None
    local_bytes: str | None
    fields: tuple[str, ...]
    view: str
    tokenizer: str | None
    rows: int | None
    residency: "Residency"
    teacher: str | None
    data: str | None
    spec_file: Path | None

    def refuse(self, others: Mapping[str, str]) -> None:
        """Raise if an option of the other source was given.

        Raises:
            SpecError: one was.
        """
        for name, why in others.items():
            if (value := getattr(self, name)) not in (None, "", ()):
                raise SpecError(why.format(value))


def _source(given: _Given) -> FromCache | FromTeacher:
    """The cache or the teacher to learn from.

    Raises:
        SpecError: something is missing, or belongs to the other.
    """
    if given.cache is not None and given.teacher is None:
        given.refuse(_OF_TEACHER)
        most = None if given.local_bytes is None else parse_bytes(given.local_bytes, "--local-bytes")
        where = (given.local_dir, most, given.view, given.tokenizer)
        return FromCache(given.cache, given.fields, given.rows, given.residency, *where)
    if given.cache is not None or given.teacher is None:
        raise SpecError("give either --cache CACHE or --teacher DIR --data FILE --spec SPEC.yaml")
    given.refuse(_OF_CACHE)
    if given.data is None:
        raise SpecError("--teacher needs the training rows: give --data FILE with --task or columns")
    if given.spec_file is None:
        raise SpecError("--teacher needs --spec: what `hskcache info CACHE --spec` prints makes the two comparable")
    return FromTeacher(given.teacher, given.data, _spec(given.spec_file))


def _spec(path: Path) -> Spec:
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--spec {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


def _run(request: FitRequest, out: Path, machine: Machine) -> dict[str, Any]:
    from trainer.run import processes
    from trainer.run.requested import fit as run

    result = run(request, out, machine)
    processes.disconnect()
    return result


@click.command()
@options.of_recipe
@click.option(
    "--cache",
    metavar="PATH_OR_URL",
    help="The cache to learn from; from a URL its shards come as needed.",
    shell_complete=places,
)
@click.option(
    "--local-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of what is fetched from URLs, shared by all runs.  [default: $HSKCACHE_LOCAL or ~/.cache/hskcache]",
)
@click.option("--local-bytes", metavar="SIZE", help="What that folder may hold, such as 500GB.  [default: 20GB]")
@click.option(
    "--teacher",
    metavar="DIR_OR_ID",
    help="A teacher in the loop instead of a cache; needs --data and --spec.",
    shell_complete=places,
)
@click.option("--data", metavar="FILE", help="Training rows, with --teacher.", shell_complete=places)
@click.option(
    "--spec", "spec_file", type=click.Path(path_type=Path), help="What to keep, with --teacher: YAML or JSON."
)
@options.student
@click.option(
    "--eval-data",
    multiple=True,
    metavar="FILE",
    callback=each_once,
    help="Rows that score the student and pick its best evaluation; pairs for an embedder, none for a corpus. Given "
    "again, further rows that score the finished student and pick nothing.",
    shell_complete=places,
)
@options.out("the student")
@options.recipe("mud", "One that ships, such as tinybert-task, or a .yaml file.", "prediction.epochs=3")
@click.option(
    "--layer-map",
    metavar="MAP",
    help="uniform, top, bottom or teacher layers such as 3,6,9,12, in place of the cache's own pairs; the cache must "
    "store them.",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="Learn from this field of the cache in place of its own of the same kind; may be repeated. Several fields of "
    "logits are averaged by their weights, alike without any.",
    shell_complete=fields,
)
@view("Learn from a part of the cache")
@click.option(
    "--tokenizer",
    metavar="DIR_OR_ID",
    help="The student's tokenizer, where it is another than the teacher's: it reads the texts of a cache built with "
    "--keep-text, for recipes that learn from whole rows.  [default: the cache's]",
    shell_complete=places,
)
@click.option("--rows", type=Whole(min=1), help="Train on the first so many rows of the cache alone.")
@layout
@click.option(
    "--residency",
    type=click.Choice(["auto", "device", "host", "stream"]),
    default="auto",
    show_default=True,
    help="Where the encoded cache lives while training.",
)
@click.option(
    "--pack",
    type=Whole(min=1),
    help="Tokens of a sequence at most in which rows of a language stand behind one another without seeing each other: "
    "less padding, the same steps.  [default: a sequence a row]",
)
@click.option(
    "--projection",
    type=click.Choice(["keep", "fresh"]),
    default="keep",
    show_default=True,
    help="From the student's hidden states to the teacher's width: keep that of earlier stages and of the student's "
    "folder, or draw it afresh in every stage.",
)
@click.option(
    "--no-projection",
    "exports_projection",
    flag_value=False,
    default=True,
    show_default=False,
    help="Leave the projection out of the folder of the student.",
)
@click.option(
    "--student-dims",
    type=Whole(min=1),
    help="Values of the embeddings that the student learns to give, along the principal directions of the teacher's.  "
    "[default: as many as the teacher's]",
)
@options.accumulation
@click.option(
    "--gradient-checkpointing",
    is_flag=True,
    help="Keep the input of each of the student's layers alone and compute what is inside again for gradients: less "
    "memory, a forward pass more a step.",
)
@options.metric
@options.eval_steps
@options.save_steps
@options.report_to
@options.seed
@options.bf16
@device
@profile
@as_json
@gathered(Machine, "machine")
@gathered(_Given, "given")
@gathered(_source, "source")
@gathered(options.load_recipe, "recipe")
@gathered(FitRequest, "request", options.asked(FitRequest))
def fit(request: FitRequest, out: Path, machine: Machine, profile: Path | None, as_json: bool) -> None:
    """Train a student through the stages of a recipe.

    The result is an ordinary checkpoint with its tokenizer: a classifier, from the cache of a corpus an encoder that
    classifiers begin from, or from embeddings a folder of sentence-transformers. The same command goes on where a
    cut-off run stopped.
    """
    from trainer import chance

    with recorded(profile):
        if (result := finished(request, out)) is not None:
            console.say(f"{out.resolve()} is finished already")
        else:
            result = _run(request, out, machine)
    if not is_first():
        return
    chance.tell(result, str(out), chance.help_of_fit(result))
    if missing := [source for source in request.eval_data[1:] if source not in result.get("others", {})]:
        console.say(f"{out} was finished without {missing[0]}; score it with hsktrain evaluate --model {out}")
    if not request.exports_projection:
        from trainer.source import projections

        if (projection := out / projections.FILE).is_file():
            console.say(f"{out} was finished with its projection; delete {projection} to leave it out")
    if as_json:
        console.print_json(result)
        return
    losses = {
        f"{stage['name']} {term}": loss for stage in result["stages"] for term, loss in stage.get("losses", {}).items()
    }
    # Without a task there is no score: the last losses are what a person can judge by.
    scored = str(next(iter(request.eval_data), None))
    options.print_scores({scored: result["scores"] or losses, **result.get("others", {})})
    for stage in result["stages"]:
        pace = f", {units.human_rate(1 / stage['seconds_per_step'], 'steps')}" if stage["seconds_per_step"] else ""
        console.say(f"{stage['name']}: {counted(stage['steps'], 'step')}{pace}")
    predict = ["hsktrain", "predict", "--model", str(out), "--data", "FILE", "--out", "predictions.tsv"]
    options.tell_end(result, out, {"answers rows": predict, "shares it": ["hsktrain", "push", str(out), "URL"]})
