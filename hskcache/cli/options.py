"""Options that several commands share, and the spec they add up to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from hskcache.encoded import ENCODED
from hskcache.errors import SpecError
from hskcache.options import layout
from hskcache.ranges import Whole
from hskcache.spec import (
    Attention,
    ComputeDtype,
    Hidden,
    Keep,
    Packing,
    PairsName,
    ScoreLayer,
    ScoreName,
    Spec,
    WidthName,
    layer_map_changes,
    numbers,
    numbers_or_word,
    parse_keep,
    parse_spec,
)
from hskcache.strict import first_problem

Command = TypeVar("Command", bound=Callable[..., Any])


class CacheFolder(click.Path):
    """The folder of a cache; of a cache at a URL the command says what to do first."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            SpecError: it is a URL.
        """
        from hskcache.remote.remote import is_url

        if is_url(str(value)):
            # Not the URL itself, which may hold a password.
            raise SpecError("CACHE is a URL, and this command needs a folder; fetch it first with hskcache pull URL")
        return super().convert(value, param, ctx)


cache_argument = click.argument("cache", type=CacheFolder(path_type=Path))
cache_or_url_argument = click.argument("cache", metavar="CACHE_OR_URL")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout for another program.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
teacher_option = click.option(
    "--teacher",
    required=True,
    metavar="DIR_OR_ID",
    help="An encoder with its tokenizer: fine-tuned on the task, or for --corpus pre-trained.",
)
_DATA = "TSV, CSV, JSONL, Parquet, or hub:REPO[:CONFIG]:SPLIT."
data_option = click.option("--data", required=True, metavar="FILE", help=_DATA)
data_or_corpus_option = click.option("--data", metavar="FILE", help=_DATA)
corpus_option = click.option(
    "--corpus",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="In place of --data: plain text, a sentence a line, a blank line between documents; no labels, no logits.",
)

# Defaults are None here and told in the help, so that a flag that was not given leaves what --spec says.
_SPEC = (
    click.option(
        "--keep", metavar="1l_10t_0.1h", help="Layers, tokens, share of columns; a part left out keeps all; full, none."
    ),
    click.option("--student-layers", type=Whole(min=1), help="Layers of the student to come.  [default: 4]"),
    click.option("--depth-target", type=Whole(min=1), help="Teacher layer of the top student layer.  [default: last]"),
    click.option(
        "--layer-map",
        metavar="uniform|top|bottom|3,6,9,12",
        help="Which teacher layer each student layer learns from.  [default: uniform]",
    ),
    click.option(
        "--student-layer-numbers",
        metavar="1,3",
        help="Student layers that are kept, 0 the embedding output.  [default: the top ones, as many as --keep says]",
    ),
    click.option(
        "--store-layers",
        metavar="mapped|all|0,6,12",
        help="Teacher layers to store: those of the map, all for students of any map, or these.  [default: mapped]",
    ),
    click.option(
        "--attention",
        metavar="2l_16t",
        help="Attention scores: layers and tokens as in --keep; full, none.  [default: none]",
    ),
    click.option("--heads", metavar="all|mean|0,3", help="Which heads' attention.  [default: all]"),
    click.option("--score", type=click.Choice(get_args(ScoreName)), help="What ranks positions.  [default: attention]"),
    click.option(
        "--score-layer",
        type=click.Choice(get_args(ScoreLayer)),
        help="Whose attention scores: that of each layer, the teacher's last, or the map's last.  [default: producing]",
    ),
    click.option(
        "--specials/--no-specials", default=None, help="Whether [SEP] and its like may be kept.  [default: specials]"
    ),
    click.option("--width", type=click.Choice(get_args(WidthName)), help="What ranks columns.  [default: magnitude]"),
    click.option("--encoding", type=click.Choice(tuple(ENCODED)), help="How values are stored.  [default: int8]"),
    click.option(
        "--max-length", type=Whole(min=3), help="Tokens of a row at most.  [default: the teacher's, the task's or 128]"
    ),
    click.option("--token-budget", type=Whole(min=1), help="Padded tokens of one teacher batch.  [default: 4096]"),
    click.option(
        "--dtype", type=click.Choice(get_args(ComputeDtype)), help="What the teacher computes in.  [default: float32]"
    ),
    click.option("--shard-rows", type=Whole(min=1), help="Rows of a shard.  [default: from the size of a row]"),
    click.option(
        "--pairs",
        type=click.Choice(get_args(PairsName)),
        help="Of --corpus: rows of two texts, the second what follows (next), of another document (random), or half of "
        "each.  [default: mixed for teachers with two token types, else none]",
    ),
    click.option(
        "--short-rows",
        type=click.FloatRange(0.0, 1.0),
        help="Of --corpus: share of rows whose length is drawn.  [default: 0.1 of pairs, else 0]",
    ),
    click.option(
        "--copies", type=Whole(min=1), help="Of --corpus: pack it so often, each time cut elsewhere.  [default: 1]"
    ),
    click.option(
        "--mask",
        type=click.FloatRange(0.0, 1.0, max_open=True),
        help="Of --corpus: share of words to mask, for teacher and student alike.  [default: 0]",
    ),
    click.option("--seed", type=Whole(min=0), help="Of all that is drawn of --corpus.  [default: 0]"),
    click.option(
        "--spec",
        "spec_file",
        type=click.Path(path_type=Path),
        help="All of this and the seeds as YAML or JSON, as `info --spec` prints it; flags override it.",
    ),
)

_TOP = {
    "max_length": "max_length",
    "token_budget": "token_budget",
    "dtype": "compute_dtype",
    "shard_rows": "shard_rows",
}
_SHARED = {
    "student_layers": ("depth", "student_layers"),
    "depth_target": ("depth", "target"),
    "score": ("length", "score"),
    "score_layer": ("length", "score_layer"),
    "specials": ("length", "specials"),
}
_PACKING = tuple(Packing.model_fields)
"""Options of a corpus alone."""
PAIR_DEFAULTS = {"pairs": "mixed", "short_rows": 0.1}
"""Packing of a corpus for a teacher with two token types where nothing is said: that of BERT's pre-training data."""
# Options that only one kind of knowledge has.
_OWN = {"hidden": "width", "attention": "heads"}


def spec_options(command: Command) -> Command:
    """Everything that decides what is kept; collect it with :func:`build_spec`."""
    for option in reversed(_SPEC):
        command = option(command)
    return command


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A teacher, the rows or the corpus it runs over, what is kept, and where it computes."""
    for option in (device_option, spec_options, layout, corpus_option, data_or_corpus_option, teacher_option):
        command = option(command)
    return command


def build_spec(given: dict[str, Any], base: Spec | None = None) -> Spec:
    """The spec of a command line: the file of ``--spec`` first, then what the flags say.

    Args:
        given: values of :func:`spec_options` by name, None where a flag was not given.
        base: what holds where neither says anything; None is the defaults.

    Raises:
        SpecError: the file or a flag is out of range, or flags contradict each other.
    """
    spec = _read_spec(given["spec_file"]) if given["spec_file"] is not None else base or Spec()
    values = spec.model_dump()
    values |= {key: given[flag] for flag, key in _TOP.items() if given[flag] is not None}
    # What is not said stays so: for a corpus the teacher decides it, see make_corpus_build.
    values["packing"] = spec.packing.model_dump(exclude_unset=True)
    values["packing"] |= {name: given[name] for name in _PACKING if given[name] is not None}
    values["hidden"] = _kept(spec.hidden or Hidden(), spec.hidden is not None, _parsed(given, "keep"), given)
    values["attention"] = _kept(
        spec.attention or Attention(), spec.attention is not None, _parsed(given, "attention"), given
    )
    _refuse_idle(values, given)
    try:
        return Spec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"what to keep: {first_problem(error, Spec)}") from None


def refuse_packing(given: dict[str, Any]) -> None:
    """Refuse flags of a corpus where there is none.

    Raises:
        SpecError: one was given.
    """
    for name in _PACKING:
        if given[name] is not None:
            raise SpecError(
                f"--{name.replace('_', '-')} says how a corpus is packed; give --corpus FILE, or leave it out"
            )


def _read_spec(path: Path) -> Spec:
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise SpecError(f"--spec {path}: {error.strerror}; give a YAML or JSON file") from None
    except UnicodeDecodeError:
        raise SpecError(f"--spec {path} is not UTF-8 text; give a YAML or JSON file") from None


def _parsed(given: dict[str, Any], flag: str) -> tuple[bool, Keep | None]:
    """Presence of a short form, and what it says."""
    text = given[flag]
    if text is None:
        return False, None
    keep = parse_keep(text, f"--{flag}")
    if flag == "attention" and keep is not None and keep.fraction < 1.0:
        raise SpecError(f"--attention {text!r}: attention scores have no columns; give layers and tokens, as in 2l_16t")
    return True, keep


def _kept(
    base: Hidden | Attention, is_kept: bool, said: tuple[bool, Keep | None], given: dict[str, Any]
) -> dict[str, Any] | None:
    """Hidden states or attention as the flags change them; None where they are not kept."""
    was_given, keep = said
    if keep is None and (was_given or not is_kept):
        return None
    values = base.model_dump()
    if keep is not None:
        values["depth"]["num_layers"], values["length"]["tokens"] = keep.layers, keep.tokens
        values["depth"]["kept"] = None
        if isinstance(base, Hidden):
            values["width"]["fraction"] = keep.fraction
    for flag, (part, key) in _SHARED.items():
        if given[flag] is not None:
            values[part][key] = given[flag]
    if given["encoding"] is not None:
        values["encoding"] = given["encoding"]
    if isinstance(base, Hidden) and given["width"] is not None:
        values["width"]["scheme"] = given["width"]
    if isinstance(base, Attention) and given["heads"] is not None:
        values["heads"] = numbers_or_word(given["heads"], "--heads", ("all", "mean"))
    values["depth"] |= _depth(given, keep)
    return values


def _depth(given: dict[str, Any], keep: Keep | None) -> dict[str, Any]:
    """Changes that ``--layer-map``, ``--student-layer-numbers`` and ``--store-layers`` make to the depth."""
    changes: dict[str, Any] = {}
    if given["student_layer_numbers"] is not None:
        changes["kept"] = numbers(given["student_layer_numbers"], "--student-layer-numbers")
        if keep is None:
            changes["num_layers"] = None
    if given["layer_map"] is not None:
        changes |= layer_map_changes(given["layer_map"])
        if changes["layers"] is not None and given["student_layers"] is None:
            changes["student_layers"] = len(changes["layers"])
    if given["store_layers"] is not None:
        changes["stored"] = numbers_or_word(given["store_layers"], "--store-layers", ("mapped", "all"))
    return changes


def _refuse_idle(values: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse flags that say how something is kept of which nothing is."""
    idle = [flag for kept, flag in _OWN.items() if values[kept] is None]
    if values["hidden"] is None and values["attention"] is None:
        idle += [*_SHARED, "layer_map", "student_layer_numbers", "store_layers", "encoding"]
    for flag in idle:
        if given[flag] is not None:
            what, be, example = (
                ("attention", "is", "--attention 16t") if flag == "heads" else ("hidden states", "are", "--keep 10t")
            )
            raise SpecError(
                f"--{flag.replace('_', '-')} says how {what} {be} kept, but none {be}; leave it out, or give {example}"
            )
