"""The options that both command lines have, and how options become one argument of a command."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from hskcache.completion import places, tasks, views
from hskcache.errors import SpecError
from hskcache.ranges import Whole
from hskcache.runtime import check_device

Command = Callable[..., Any]


def gathered(kind: Callable[..., Any], name: str, of: Iterable[str] | None = None) -> Callable[[Command], Command]:
    """Give a command one argument in place of the options that it is made of.

    ``kind``: makes the argument, from the values of the options by the names of their parameters. ``name``: of the
    argument. ``of``: the parameters; None takes those of ``kind``.
    """
    names = tuple(inspect.signature(kind).parameters) if of is None else tuple(of)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*args: Any, **values: Any) -> Any:
            return command(*args, **{name: kind(**{one: values.pop(one) for one in names})}, **values)

        return wrapper

    return decorate


def with_options(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """Give a command options, which its help lists in their order."""
    for option in reversed(options):
        command = option(command)
    return command


dense_teacher = click.option(
    "--teacher",
    required=True,
    metavar="DIR_OR_ID",
    help="The dense teacher, fine-tuned on the task.",
    shell_complete=places,
)
profile = click.option(
    "--profile",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Tell where the time goes at the end, and write a trace that browsers show, such as trace.json.",
)


class Device(click.ParamType):  # type: ignore[type-arg]
    """Device to compute on, such as ``auto`` or ``cuda:1``; whether it is there is seen when it is used."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same. Raises SpecError if it is none of these."""
        check_device(str(value))
        return str(value)


class _ClassNames(click.ParamType):  # type: ignore[type-arg]
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in str(value).split(","))
        if len(names) < 2 or not all(names) or len(set(names)) < len(names):
            raise SpecError(f"--classes {value!r}: give two classes or more, each once: neg,pos")
        return names


device = click.option(
    "--device",
    type=Device(),
    metavar="auto|cpu|cuda|cuda:N|mps",
    default="auto",
    help="Where to compute; auto takes CUDA where there is one.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs on stdout.")


def seed(of: str, numbers: "click.ParamType[int] | None" = None) -> Callable[[Command], Command]:
    """The option ``--seed`` of what is drawn, 0 where not given; ``numbers``: None is a whole number from 0 on."""
    return click.option("--seed", type=numbers or Whole(min=0), default=0, help=f"Of {of}.")


def _view_given(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value and param.name is not None and ctx.get_parameter_source(param.name) != ParameterSource.DEFAULT:
        raise SpecError("--view is empty; give a view such as 1l_5t_0.05h, or leave it out to see all of the cache")
    return value


def view(what: str) -> Callable[[Command], Command]:
    """The option ``--view``, empty where it is not given."""
    return click.option(
        "--view",
        metavar="VIEW",
        default="",
        callback=_view_given,
        show_default=False,
        help=f"{what} as if it had been built so: 1l_5t_0.05h for layers, tokens and columns of hidden states, "
        "attention=1l_5t, copies=1, rows=1000, fields=logits+hidden, or several of these with commas between; the "
        "guide's page on views has more.",
        shell_complete=views,
    )


def each_once(_context: click.Context, parameter: click.Parameter, sources: tuple[str, ...]) -> tuple[str, ...]:
    """Files that a repeated option names: a callback of the option. Raises SpecError if one is named twice."""
    for place, source in enumerate(sources):
        if source in sources[:place]:
            raise SpecError(f"{parameter.opts[0]} {source} is given twice; give each file once")
    return sources


def layout(command: Command) -> Command:
    """Give a command ``--task``, the column options and those of rows as one argument ``layout``."""
    # Most commands read no rows, and do not wait for what can.
    from hskcache.text.layout import OPTIONS, Layout
    from hskcache.text.table import BadRows, Unlabelled

    options = (
        click.option(
            "--task",
            "task_name",
            metavar="NAME",
            help="Task preset (sst2, rte, ...): columns, labels and metrics.",
            shell_complete=tasks,
        ),
        click.option("--text", metavar="COLUMN", help="Column of the text: its name, or its number counted from 0."),
        click.option(
            "--text-pair",
            "--completion",
            "text_pair",
            metavar="COLUMN",
            help="Column of the second text of a pair, or of what a language model is to say after the text.",
        ),
        click.option("--label", metavar="COLUMN", help="Column of the label."),
        click.option(
            "--header/--no-header", default=None, help="Whether the first line names columns [default: detect]."
        ),
        click.option(
            "--classes",
            type=_ClassNames(),
            metavar="neg,pos",
            help="Classes as the data writes them, in the order of the model's.  [default: those of model, task or "
            "data]",
        ),
        click.option(
            "--unlabelled",
            type=click.Choice(get_args(Unlabelled)),
            help="Rows without a gold label (empty, -, -1) among others: an error, left out, or distilled "
            "without one.  [default: fail]",
        ),
        click.option(
            "--bad-rows",
            type=click.Choice(get_args(BadRows)),
            help="Rows that cannot be used (no text, another width, an unknown label): an error, or left out.  "
            "[default: fail]",
        ),
    )
    return with_options(options, gathered(Layout, "layout", OPTIONS)(command))
