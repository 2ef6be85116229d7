"""Options and words of both ``push`` and ``pull``: which part of a cache, and what is said of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.completion import fields
from hskcache.errors import SpecError
from hskcache.options import Command, with_options
from hskcache.ranges import Whole

if TYPE_CHECKING:
    from hskcache.move.parallel import Watch
    from hskcache.move.pull import Pulled
    from hskcache.move.push import Pushed
    from hskcache.move.selected import Selected, Subset

_OPTIONS = (
    click.option(
        "--fields",
        metavar="A,B",
        help="Only these fields; the inputs always come along.  [default: all]",
        shell_complete=fields,
    ),
    click.option(
        "--rows", metavar="N|A:B", help="Only the first N rows, or rows A to B - 1, in whole shards.  [default: all]"
    ),
    click.option("--jobs", type=Whole(1, 64), default=8, help="Files at a time."),
)


def choice_options(command: Command) -> Command:
    """Add the options for the part of a cache that goes, and for jobs; collect them with :func:`choose`."""
    return with_options(_OPTIONS, command)


def choose(fields: str | None, rows: str | None) -> "Subset":
    """Subset that ``--fields`` and ``--rows`` name. Raises SpecError if one of them is malformed."""
    from hskcache.move.selected import Subset

    names = None if fields is None else tuple(name.strip() for name in fields.split(","))
    if names is not None and "" in names:
        raise SpecError(f"--fields {fields!r} has an empty name; give names such as logits,hidden")
    return Subset(names, None if rows is None else _rows(rows))


def _rows(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(?:([0-9]*):)?([0-9]*)", text.strip())
    if match is None or text.strip() in {"", ":"}:
        raise SpecError(f"--rows {text!r} is not a range; give 1000 for the first rows, or 1000:2000, 1000: or :2000")
    start, stop = int(match[1] or 0), int(match[2]) if match[2] else 1 << 62
    if start >= stop:
        raise SpecError(f"--rows {text!r} is empty; the second number must be larger")
    return start, stop


@contextmanager
def watched(verb: str, subset: "Subset") -> "Iterator[Watch]":
    """A bar of bytes; and a line, where rows were asked for that only whole shards hold."""
    from hskcache.move.parallel import Watch

    with console.progress("bytes") as bar:

        def begin(total: int) -> None:
            bar.add_task(verb, total=total)

        def advance(num_bytes: int) -> None:
            bar.advance(bar.task_ids[0], num_bytes)

        yield Watch(lambda selected: _tell_rounding(subset, selected), begin, advance)


def facts(moved: "Pushed | Pulled") -> dict[str, Any]:
    """Facts of what a place holds, for programs, and of what was moved; ``rows`` are counted in the source."""
    selected, manifest = moved.selected, moved.selected.manifest
    return {
        "cache_id": manifest.cache_id,
        "fields": list(manifest.fields),
        "rows": [selected.start, selected.stop],
        "num_rows": manifest.request.num_rows,
        "num_bytes": manifest.num_bytes,
        **{name: value for name, value in vars(moved).items() if name != "selected"},
    }


def _tell_rounding(subset: "Subset", selected: "Selected") -> None:
    stop = min(subset.rows[1], selected.stop) if subset.rows else selected.stop
    asked = (subset.rows[0] if subset.rows else selected.start, stop)
    if asked != (selected.start, selected.stop):
        console.say(
            f"rows {asked[0]} to {asked[1]} are asked for; in whole shards, with what may be there, these are rows "
            f"{selected.start} to {selected.stop}"
        )
