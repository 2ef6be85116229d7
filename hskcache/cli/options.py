"""Options that several commands share, and the spec they add up to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from hskcache.errors import SpecError
from hskcache.spec import (
    Depth,
    EncodingName,
    Hidden,
    Length,
    ScoreLayer,
    ScoreName,
    Spec,
    Width,
    WidthName,
    parse_keep,
    parse_spec,
)

Command = TypeVar("Command", bound=Callable[..., Any])

cache_argument = click.argument("cache", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout for another program.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")

_SPEC = (
    click.option(
        "--keep", default=None, metavar="1l_10t_0.1h", help="Layers, tokens, share of columns; or full, none."
    ),
    click.option("--student-layers", type=int, default=None, help="Layers of the student to come.  [default: 4]"),
    click.option(
        "--depth-target", type=int, default=None, help="Teacher layer of the top student layer.  [default: last]"
    ),
    click.option(
        "--score", type=click.Choice(get_args(ScoreName)), default=None, help="What ranks the positions of a row."
    ),
    click.option(
        "--score-layer", type=click.Choice(get_args(ScoreLayer)), default=None, help="Whose attention scores."
    ),
    click.option("--specials/--no-specials", default=None, help="Whether [SEP] and its like may be kept."),
    click.option("--width", type=click.Choice(get_args(WidthName)), default=None, help="What ranks the columns."),
    click.option("--encoding", type=click.Choice(get_args(EncodingName)), default=None, help="How values are stored."),
    click.option("--max-length", type=int, default=None, help="Tokens of a row at most.  [default: 128]"),
    click.option("--token-budget", type=int, default=None, help="Padded tokens of one teacher batch.  [default: 4096]"),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default=None, help="The teacher's."),
    click.option("--shard-rows", type=int, default=None, help="Rows of a shard.  [default: from the size of a row]"),
    click.option(
        "--spec", "spec_file", type=click.Path(path_type=Path), default=None, help="All of this as YAML or JSON."
    ),
)

data_option = click.option(
    "--data", required=True, metavar="FILE", help="TSV, CSV, JSONL, Parquet, or hub:REPO[:CONFIG]:SPLIT."
)


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
        SpecError: the file or a flag is out of range.
    """
    path = given["spec_file"]
    spec = Spec()
    if path is not None:
        try:
            spec = parse_spec(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"--spec {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    values = spec.model_dump()
    top = {
        "max_length": "max_length",
        "token_budget": "token_budget",
        "dtype": "compute_dtype",
        "shard_rows": "shard_rows",
    }
    values |= {key: given[flag] for flag, key in top.items() if given[flag] is not None}
    values["hidden"] = _hidden(spec.hidden, given)
    checked: Spec = _checked(Spec, values)
    return checked


def _hidden(base: Hidden | None, given: dict[str, Any]) -> dict[str, Any] | None:
    hidden = (base or Hidden()).model_dump()
    if given["keep"] is not None:
        keep = parse_keep(given["keep"])
        if keep is None:
            return None
        hidden["depth"]["num_layers"] = keep.layers
        hidden["length"]["tokens"] = keep.tokens
        hidden["width"]["fraction"] = keep.fraction
    elif base is None:
        return None
    places = {
        "student_layers": ("depth", "student_layers"),
        "depth_target": ("depth", "target"),
        "score": ("length", "score"),
        "score_layer": ("length", "score_layer"),
        "specials": ("length", "specials"),
        "width": ("width", "scheme"),
    }
    for flag, (part, key) in places.items():
        if given[flag] is not None:
            hidden[part][key] = given[flag]
    if given["encoding"] is not None:
        hidden["encoding"] = given["encoding"]
    for part, model in (("depth", Depth), ("length", Length), ("width", Width)):
        hidden[part] = _checked(model, hidden[part]).model_dump()
    return hidden


def _checked(model: Any, values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from hskcache.spec import first_problem

    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"--{first_problem(error).replace('_', '-')}") from None
