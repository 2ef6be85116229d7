"""Options that several commands share, and the spec they add up to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from hskcache.errors import SpecError
from hskcache.spec import (
    ComputeDtype,
    EncodingName,
    Hidden,
    ScoreLayer,
    ScoreName,
    Spec,
    WidthName,
    parse_keep,
    parse_spec,
)

Command = TypeVar("Command", bound=Callable[..., Any])

cache_argument = click.argument("cache", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout for another program.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
teacher_option = click.option(
    "--teacher", required=True, metavar="DIR_OR_ID", help="A fine-tuned encoder with its tokenizer."
)
data_option = click.option(
    "--data", required=True, metavar="FILE", help="TSV, CSV, JSONL, Parquet, or hub:REPO[:CONFIG]:SPLIT."
)

# Defaults are None here and told in the help, so that a flag that was not given leaves what --spec says.
_SPEC = (
    click.option(
        "--keep", metavar="1l_10t_0.1h", help="Layers, tokens, share of columns; a part left out keeps all; full, none."
    ),
    click.option("--student-layers", type=click.IntRange(min=1), help="Layers of the student to come.  [default: 4]"),
    click.option(
        "--depth-target", type=click.IntRange(min=1), help="Teacher layer of the top student layer.  [default: last]"
    ),
    click.option("--score", type=click.Choice(get_args(ScoreName)), help="What ranks positions.  [default: attention]"),
    click.option(
        "--score-layer", type=click.Choice(get_args(ScoreLayer)), help="Whose attention scores.  [default: producing]"
    ),
    click.option(
        "--specials/--no-specials", default=None, help="Whether [SEP] and its like may be kept.  [default: specials]"
    ),
    click.option("--width", type=click.Choice(get_args(WidthName)), help="What ranks columns.  [default: magnitude]"),
    click.option(
        "--encoding", type=click.Choice(get_args(EncodingName)), help="How values are stored.  [default: int8]"
    ),
    click.option("--max-length", type=click.IntRange(min=3), help="Tokens of a row at most.  [default: 128]"),
    click.option(
        "--token-budget", type=click.IntRange(min=1), help="Padded tokens of one teacher batch.  [default: 4096]"
    ),
    click.option(
        "--dtype", type=click.Choice(get_args(ComputeDtype)), help="What the teacher computes in.  [default: float32]"
    ),
    click.option(
        "--shard-rows", type=click.IntRange(min=1), help="Rows of a shard.  [default: from the size of a row]"
    ),
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
_HIDDEN = {
    "student_layers": ("depth", "student_layers"),
    "depth_target": ("depth", "target"),
    "score": ("length", "score"),
    "score_layer": ("length", "score_layer"),
    "specials": ("length", "specials"),
    "width": ("width", "scheme"),
}


def spec_options(command: Command) -> Command:
    """Everything that decides what is kept; collect it with :func:`build_spec`."""
    for option in reversed(_SPEC):
        command = option(command)
    return command


def build_spec(given: dict[str, Any]) -> Spec:
    """The spec of a command line: the file of ``--spec`` first, then what the flags say.

    Args:
        given: values of :func:`spec_options` by name, None where a flag was not given.

    Raises:
        SpecError: the file or a flag is out of range, or flags contradict each other.
    """
    spec = _read_spec(given["spec_file"]) if given["spec_file"] is not None else Spec()
    values = spec.model_dump()
    values |= {key: given[flag] for flag, key in _TOP.items() if given[flag] is not None}
    values["hidden"] = _hidden(spec.hidden, given)
    return Spec.model_validate(values)


def _read_spec(path: Path) -> Spec:
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise SpecError(f"--spec {path}: {error.strerror}; give a YAML or JSON file") from None
    except UnicodeDecodeError:
        raise SpecError(f"--spec {path} is not UTF-8 text; give a YAML or JSON file") from None


def _hidden(base: Hidden | None, given: dict[str, Any]) -> dict[str, Any] | None:
    keep = parse_keep(given["keep"]) if given["keep"] is not None else None
    if keep is None and (base is None or given["keep"] is not None):
        if idle := [flag for flag in (*_HIDDEN, "encoding") if given[flag] is not None]:
            raise SpecError(
                f"--{idle[0].replace('_', '-')} says how hidden states are kept, but none are; leave it out, or give "
                "--keep 1l_10t_0.1h"
            )
        return None
    hidden = (base or Hidden()).model_dump()
    if keep is not None:
        hidden["depth"]["num_layers"] = keep.layers
        hidden["length"]["tokens"] = keep.tokens
        hidden["width"]["fraction"] = keep.fraction
    for flag, (part, key) in _HIDDEN.items():
        if given[flag] is not None:
            hidden[part][key] = given[flag]
    if given["encoding"] is not None:
        hidden["encoding"] = given["encoding"]
    return hidden
