"""The options of a command line that say which columns of a data file are read, and which of its rows."""

import functools
from collections.abc import Callable
from typing import Any, get_args

import click

from hskcache.errors import SpecError
from hskcache.text.layout import OPTIONS, Layout
from hskcache.text.table import BadRows, Unlabelled

Command = Callable[..., Any]


class _ClassNames(click.ParamType):  # type: ignore[type-arg]
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in str(value).split(","))
        if len(names) < 2 or not all(names) or len(set(names)) < len(names):
            raise SpecError(f"--classes {value!r}: give two classes or more, each once: neg,pos")
        return names


def layout(command: Command) -> Command:
    """Give a command ``--task``, the column options and those of rows as one argument ``layout``."""

    @click.option(
        "--task", "task_name", metavar="NAME", help="Task preset (sst2, rte, ...): columns, labels and metrics."
    )
    @click.option("--text", metavar="COLUMN", help="Column of the text: its name, or its number counted from 0.")
    @click.option("--text-pair", metavar="COLUMN", help="Column of the second text of a pair.")
    @click.option("--label", metavar="COLUMN", help="Column of the label.")
    @click.option("--header/--no-header", default=None, help="Whether the first line names columns [default: detect].")
    @click.option(
        "--classes",
        type=_ClassNames(),
        metavar="neg,pos",
        help="Classes as the data writes them, in the order of the model's.  [default: those of model, task or data]",
    )
    @click.option(
        "--unlabelled",
        type=click.Choice(get_args(Unlabelled)),
        help="Rows without a gold label (empty, -, -1) among others: an error, left out, or distilled "
        "without one.  [default: fail]",
    )
    @click.option(
        "--bad-rows",
        type=click.Choice(get_args(BadRows)),
        help="Rows that cannot be used (no text, another width, an unknown label): an error, or left out.  "
        "[default: fail]",
    )
    @functools.wraps(command)
    def wrapper(*args: Any, **given: Any) -> Any:
        return command(*args, layout=Layout(**{name: given.pop(name) for name in OPTIONS}), **given)

    return wrapper
