"""``hskcache diff``: what differs between two caches."""

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json
from hskcache.spec import SECTIONS, format_keep

if TYPE_CHECKING:
    from hskcache.cache import Cache
    from hskcache.compare.difference import Difference, MatchedRows

_MOST_CHARACTERS = 60
_ID_CHARACTERS = 12
_DIGEST = re.compile("[0-9a-f]{64}")


@click.command()
@click.argument("here", metavar="A", shell_complete=places)
@click.argument("there", metavar="B", shell_complete=places)
@click.option(
    "--values/--no-values",
    "with_values",
    default=True,
    help="Whether to decode and compare what is stored of the rows that both have; needs torch.",
)
@as_json
def diff(here: str, there: str, with_values: bool, as_json: bool) -> None:
    """Compare two caches: what was asked for, fields, rows and values; exit 1 if their content differs.

    A and B are folders or URLs. Caches of one id are the same: whether files are as they were written, `hskcache
    verify` tells.
    """
    from hskcache.remote.place import open_any

    difference = _compared((open_any(here), open_any(there)), with_values)
    if as_json:
        console.print_json({"here": here, "there": there, **difference.model_dump(mode="json")})
    elif difference.ids[0] == difference.ids[1]:
        click.echo(f"the same bytes: both have the id {difference.ids[0]}")
    else:
        _print(difference)
    console.say(f"{here} and {there}: " + ("the same content" if difference.same else "different"))
    if not difference.same:
        sys.exit(1)


def _compared(caches: "tuple[Cache, Cache]", with_values: bool) -> "Difference":
    """Difference of two caches; a bar tells how far the comparison is, where there is any work."""
    from hskcache.compare.difference import difference, work_rows

    total = work_rows(*caches, with_values)
    if not total:
        return difference(*caches, with_values)
    with console.advancing("diff", total) as advance:
        return difference(*caches, with_values, advance)


def _print(found: "Difference") -> None:
    printer = console.printer()
    printer.print(_changes(found))
    for name, fields in (("A", found.fields_here), ("B", found.fields_there)):
        if fields:
            printer.print(f"only {name} has the fields {', '.join(fields)}")
    assert found.rows is not None
    printer.print(_rows(found.rows))
    for shards in found.shards:
        ranges = ", ".join(f"{start} to {stop - 1}" for start, stop in shards.ranges)
        same = f"shards of the rows {ranges} are the same" if ranges else "no shard is the same"
        printer.print(f"{shards.field}: {same}")
    if any(one.num_rows for one in found.values or ()):
        console.printer(folds=False).print(_values(found))


def _changes(found: "Difference") -> Any:
    from rich.table import Table

    table = Table("key", "A", "B", box=None, pad_edge=False, padding=(0, 2))
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.overflow = "fold"
    table.add_row("cache id", *(_words("", identity) for identity in found.ids))
    for change in found.changes:
        words = (_words(change.key, value) for value in (change.here, change.there))
        shortened = (text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 4]} ..." for text in words)
        table.add_row(change.key, *shortened)
    return table


def _words(key: str, value: Any) -> str:
    """A value of the JSON of a request or of a field as a person reads it."""
    if (section := SECTIONS.get(key.removeprefix("spec."))) is not None:
        return format_keep(None if value is None else section.model_validate(value))
    if value is None:
        return "not given"
    if isinstance(value, list):
        return ", ".join(_words("", one) for one in value) or "none"
    if isinstance(value, dict):
        if value.keys() >= {"name", "num_rows"}:
            return f"{value['name']} ({counted(value['num_rows'], 'row')})"
        if value.keys() == {"teacher", "student"}:
            return f"{value['teacher']}->{value['student']}"
    text = str(value)
    return text[:_ID_CHARACTERS] if _DIGEST.fullmatch(text) else text


def _rows(rows: "MatchedRows") -> str:
    text = f"rows: {rows.here} in A, {rows.there} in B, {rows.common} in both"
    if rows.num_other_tokens:
        ranges = ", ".join(f"{start} to {stop - 1}" for start, stop in rows.other_tokens)
        text += f"; {rows.num_other_tokens} with other tokens ({ranges}{', ...' if len(rows.other_tokens) > 9 else ''})"
    elif rows.common:
        text += ", with the same tokens"
    return text + (f"; {rows.num_other_labels} with other labels" if rows.num_other_labels else "")


def _values(found: "Difference") -> Any:
    from rich.table import Table

    heads = ("\nrows", "max\ndifference", "mean\ndifference", "\ncosine", "\nKL", "same\npositions", "same\ncolumns")
    # Narrower than 80 columns with fields of the usual names.
    table = Table("\nfield", *heads, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found.values or ():
        if not one.num_rows:
            continue
        unlike = f" and {one.num_nonfinite} not finite" if one.num_nonfinite else ""
        table.add_row(
            one.field if one.layer is None else f"{one.field} {one.layer}",
            str(one.num_rows),
            f"{one.max_abs:.3g}{unlike}" if one.num_values else "",
            f"{one.mean_abs:.3g}" if one.num_values else "",
            "" if one.cosine is None else f"{one.cosine:.6f}",
            "" if one.kl is None else f"{one.kl:.2g}",
            f"{one.same_positions:.2%}",
            f"{one.same_entries:.2%}" if one.num_values else "",
        )
    return table
