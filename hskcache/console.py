"""Streams of every command: words and progress on stderr, data on stdout, errors as one line and exit code 2.

Of several processes that were started together the first one speaks; errors tell which process they are of.
"""

import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hskcache import processes, units
from hskcache.allocator import keep_freed_memory
from hskcache.errors import CacheError, Interrupted
from hskcache.nearest import meant
from hskcache.threads import bound_waiting

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
"""Settings of click that both command lines have."""

Advance = Callable[..., None]
_PIPE_COLUMNS = 1000
_TRACEBACK = "HSKCACHE_TRACEBACK"


# The extra that brings a package which a base install does not have.
_EXTRAS = dict.fromkeys(
    ("accelerate", "matplotlib", "scipy", "sklearn", "tensorboard", "torch", "transformers"), "student"
) | dict.fromkeys(("fsspec", "h5py", "stamina", "zarr"), "share")


class Commands(click.Group):
    """A group whose commands load when they are used, so that ``--help`` never waits for torch.

    ``commands_at`` maps a command's name to ``"module:attribute"``, ``kept_by`` some of them to what of their work an
    interrupt leaves to go on from.
    """

    def __init__(
        self, *args: Any, commands_at: Mapping[str, str], kept_by: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_traceback_option())
        self.commands_at = commands_at
        self.kept_by = kept_by or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they are written down, which is the order of use."""
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one module that holds the command."""
        if cmd_name not in self.commands_at:
            return None
        module, attribute = self.commands_at[cmd_name].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each name with the first sentence of its docstring, for which none is imported."""
        with formatter.section("Commands"):
            # Whole: a sentence that is cut off says less than a second line.
            formatter.write_dl([(name, self._summary(name).get_short_help_str(1000)) for name in self.commands_at])

    def _summary(self, name: str) -> click.Command:
        """A command that knows nothing but its help, out of the module's bytecode, of which nothing is run."""
        module, attribute = self.commands_at[name].split(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        code = spec.loader.get_code(module)  # type: ignore[union-attr]
        functions = (value for value in code.co_consts if isinstance(value, CodeType))
        return click.Command(name, help=next(one.co_consts[0] for one in functions if one.co_name == attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of a name that is none, tell the nearest."""
        if args and args[0] not in self.commands_at and not args[0].startswith("-"):
            listed = f"; the commands are {', '.join(self.commands_at)}"
            ctx.fail(f"No such command {args[0]!r}{meant(args[0], self.commands_at) or listed}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the user can mend ends in one line, never in a traceback."""
        # Before any command imports torch.
        bound_waiting()
        keep_freed_memory()
        # Before any imports pydantic: looking for plugins takes a tenth of its time, and none serves a command line.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        try:
            return super().invoke(ctx)
        except CacheError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            fail(f"{package} is not installed; install the extra: pip install 'hskcache[{_EXTRAS[package]}]'")
        except RuntimeError as error:
            # By name: to import torch for its class would cost every command its start.
            if type(error).__name__ != "OutOfMemoryError":
                raise
            fail("the device is out of memory; use smaller batches, --gradient-accumulation or --device cpu")
        except MemoryError as error:
            why = f" ({error})" if str(error) else ""
            fail(f"this machine is out of memory{why}; end other programs, or use fewer processes or smaller batches")
        except Interrupted as end:
            # All processes end alike, so one says it.
            if processes.is_first():
                fail(str(end), end.code)
            sys.exit(end.code)
        except KeyboardInterrupt:
            kept = self.kept_by.get(ctx.invoked_subcommand or "")
            goes_on = "begins anew" if kept is None else f"goes on from {kept}"
            fail(f"interrupted; the same command {goes_on}", code=130)
        except OSError as error:
            # A reader that has seen enough, such as head, is no error; click knows what to do.
            if error.strerror is None or error.errno == errno.EPIPE:
                raise
            fail(f"{error.strerror}: {error.filename}" if error.filename else error.strerror)


def _traceback_option() -> click.Option:
    return click.Option(
        ["--traceback"],
        is_flag=True,
        expose_value=False,
        callback=lambda ctx, _, is_wanted: ctx.meta.update({_TRACEBACK: is_wanted}),
        envvar=_TRACEBACK,
        show_envvar=True,
        help="Show below the line of an error where in the code it was raised.",
    )


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on stderr, below it where it comes from if ``--traceback`` is given, and exit with ``code``."""
    line = " ".join(message.split())
    whose = f"rank {processes.rank()}: " if processes.count() > 1 else ""
    click.echo(f"error: {whose}{line}", err=True)
    ctx = click.get_current_context(silent=True)
    if ctx is not None and ctx.meta.get(_TRACEBACK) and (error := sys.exception()) is not None:
        click.echo(_origin(error), err=True, nl=False)
    sys.exit(code)


def _origin(error: BaseException) -> str:
    """Traceback of an error, after those of the errors it was raised for, ``from None`` or not.

    Of these only the classes are named: a library's message may hold the password of a URL.
    """
    import traceback

    text = "".join(traceback.format_exception(error, chain=False))
    earlier = error.__cause__ or error.__context__
    while earlier is not None:
        frames, kind = "".join(traceback.format_tb(earlier.__traceback__)), type(earlier)
        text = f"{frames}{kind.__module__}.{kind.__qualname__}, for which was raised:\n\n{text}"
        earlier = earlier.__cause__ or earlier.__context__
    return text


@contextmanager
def going_on_from(place: Callable[[], str]) -> Iterator[None]:
    """Let an interrupt say where the same command goes on from. Raises Interrupted for Ctrl-C.

    ``place``: what to call it; asked for after the interrupt.
    """
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; the same command goes on from {place()}") from None


def say(message: str) -> None:
    """Print a line of words on stderr."""
    if processes.is_first():
        click.echo(message, err=True)


def print_json(value: Any) -> None:
    """Print ``value`` on stdout for another program."""
    import json

    if processes.is_first():
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def printer(folds: bool = True) -> "Console":
    """A console of rich on stdout; in a pipe, where nobody sees the width, it breaks no line.

    ``folds``: whether it breaks lines that are wider than the terminal; figures are better left whole.
    """
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if folds and sys.stdout.isatty() else _PIPE_COLUMNS)


def print_columns(
    rows: Sequence[Sequence[str]], header: Sequence[str] = (), right: Collection[int] = (), gap: int = 4
) -> None:
    """Print rows in columns on stdout; a terminal folds what is too wide for it within its column.

    ``header``: of the columns. ``right``: numbers of the columns whose cells stand on the right, counted from 0.
    ``gap``: spaces between columns.
    """
    lines = [header, *rows] if header else rows
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            placed = enumerate(zip(line, widths, strict=True))
            cells = (cell.rjust(width) if place in right else cell.ljust(width) for place, (cell, width) in placed)
            click.echo((" " * gap).join(cells).rstrip())
        return
    from rich.table import Column, Table

    columns = (Column(head, justify="right" if place in right else "left") for place, head in enumerate(lines[0]))
    table = Table(*columns, show_header=bool(header), box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for row in rows:
        table.add_row(*row)
    printer().print(table)


def progress(unit: str = "rows", tells_left: bool = False) -> "Progress":
    """A progress bar on stderr, or in a notebook's cell, with ``unit`` per second and the time left.

    Returns a context manager; ``task = bar.add_task("build", total=n)`` then ``bar.advance(task, k)``.

    ``tells_left``: whether the tasks tell the time left in words of their own, as their field ``left``.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    class Rate(TextColumn):
        def render(self, task: Any) -> Any:
            from rich.text import Text

            speed = task.finished_speed or task.speed
            return Text(units.human_rate(speed, unit) if speed else "", style="progress.data.speed")

    class Bars(Progress):
        """Bars of which nothing is left where nothing was done: the command was refused, or all was there."""

        def stop(self) -> None:
            if any(task.completed for task in self.tasks):
                super().stop()
                return
            for task in self.tasks:
                task.visible = False
            self.live.transient = True
            self.live.stop()

    console = Console(stderr=True)
    done: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    left = TextColumn("{task.fields[left]}") if tells_left else TimeRemainingColumn(elapsed_when_finished=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        done,
        Rate(""),
        left,
    )
    if console.is_jupyter:
        from hskcache.notebook import NotebookBars

        return NotebookBars(*columns)
    return Bars(*columns, console=console, disable=not processes.is_first())


@contextmanager
def advancing(verb: str, total: int | None = None, unit: str = "rows") -> "Iterator[Advance]":
    """A progress bar of one task: yields what advances it by a count, and tells the total where that comes with it."""
    with progress(unit) as bar:
        task = bar.add_task(verb, total=total)

        def advance(count: int = 1, total: int | None = None) -> None:
            bar.update(task, advance=count, total=total)

        yield advance
