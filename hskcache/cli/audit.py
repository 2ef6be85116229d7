"""``hskcache audit``: does a cache hold what its teacher gives?"""

import sys
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.cli.options import cache_or_url_argument
from hskcache.completion import fields, places
from hskcache.counted import counted
from hskcache.options import as_json, device, seed
from hskcache.ranges import FiniteRange, Whole
from hskcache.runtime import require_teacher_extra

if TYPE_CHECKING:
    from hskcache.audit.audit import Question
    from hskcache.audit.findings import AuditReport, Identity, Layer
    from hskcache.cache import Cache


@click.command()
@cache_or_url_argument
@click.option(
    "--teacher",
    required=True,
    metavar="DIR_OR_ID",
    help="The teacher that the cache, or the field of --field, was made with.",
    shell_complete=places,
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME",
    help="A field to audit, such as one that was added; repeatable.  [default: those the cache was built with]",
    shell_complete=fields,
)
@click.option("--rows", type=Whole(min=1), default=256, help="Rows to draw; all if there are fewer.")
@seed("the draw", click.INT)
@click.option(
    "--tolerance",
    type=FiniteRange(min=0),
    help="Allowed beyond the bound of the encoding, as a share of the largest magnitude of the teacher's vector."
    "  [default: 1e-4 for a teacher in float32, 0.1 in bfloat16, 0.015 in float16]",
)
@device
@as_json
def audit(
    cache: str,
    teacher: str,
    fields: tuple[str, ...],
    rows: int,
    seed: int,
    tolerance: float | None,
    device: str,
    as_json: bool,
) -> None:
    """Run the teacher again over random rows of a cache and compare; exit 1 if what is stored is not what it gives.

    No data set is needed: the rows are those that the cache holds. An error may be as large as the bound of the
    encoding and the tolerance, which is for floats that add up otherwise on another machine. No teacher knows the
    labels of the rows: labels are not audited.
    """
    require_teacher_extra()
    from hskcache.audit.audit import Question
    from hskcache.remote.place import open_any

    opened = open_any(cache)
    report = _audited(opened, teacher, device, Question(fields or None, rows, seed, tolerance))
    if as_json:
        console.print_json({"cache": cache, "cache_id": opened.id, "teacher": teacher, **report.model_dump()})
    else:
        _print(report)
    console.say(f"{cache}: {_summary(report)}")
    if not report.ok:
        sys.exit(1)


def _audited(cache: "Cache", name: str, device: str, question: "Question") -> "AuditReport":
    """Load the teacher, say what is known of it before it runs, and run it."""
    from hskcache.audit.audit import audit as run
    from hskcache.audit.audit import origins, prepare_audit
    from hskcache.teacher.load import load_for

    loaded = load_for(name, device, origins(cache, question.fields)[0].request)
    prepared = prepare_audit(loaded, cache, question)
    for identity in prepared.identities:
        for line in _words(name, identity):
            console.say(line)
    with console.advancing("audit", prepared.work_rows) as advance:
        return run(prepared, advance)


def _words(teacher: str, identity: "Identity") -> list[str]:
    """Lines on a teacher that is not the one of some fields."""
    names = ", ".join(identity.fields)
    lines = []
    if not identity.same_weights:
        lines.append(f"{teacher} is another teacher than {names} came from: the digest of its weights differs")
    if not identity.same_tokenizer:
        lines.append(f"the tokenizer of {teacher} is not the one that the rows were made with")
    if identity.config is not None:
        lines.append(f"the configuration of {teacher} differs from that of {names}: {identity.config}")
    return lines


def _summary(report: "AuditReport") -> str:
    skipped = f", {report.num_skipped} left out of the cache" if report.num_skipped else ""
    said = f"{counted(report.num_rows, 'row')} audited{skipped}"
    bad = {row for layer in report.layers for row in layer.bad_rows}
    faults = [
        words
        for words, is_so in (
            ("another teacher", not all(one.same_weights for one in report.identities)),
            ("another tokenizer", not all(one.same_tokenizer for one in report.identities)),
            ("values that the teacher does not give", bool(bad)),
        )
        if is_so
    ]
    return f"{said}: {', '.join(faults)}" if faults else f"{said}, all as the teacher gives them"


def _print(report: "AuditReport") -> None:
    # Narrower than 80 columns with fields of the usual names, and with longer ones no figure is cut off.
    printer = console.printer(folds=False)
    printer.print(_errors(report))
    if chosen := [one for one in report.layers if (one.same_positions, one.same_columns) != (None, None)]:
        printer.print(_choices(chosen))
    for line in filter(None, map(_next_tokens, report.layers)):
        printer.print(line)
    for layer in report.layers:
        if layer.num_bad_rows:
            where = layer.field if layer.layer is None else f"{layer.field} layer {layer.layer}"
            rest = layer.num_bad_rows - len(layer.bad_rows)
            rows = ", ".join(map(str, layer.bad_rows)) + (f" and {rest} more" if rest else "")
            wrong = f"; {layer.num_wrong} with positions or columns that are not the best" if layer.num_wrong else ""
            printer.print(f"{where}: bad rows, the worst first: {rows}{wrong}")


def _errors(report: "AuditReport") -> Any:
    heads = ("max\nerror", "mean\nerror", "\ncosine", "\nKL", "\nbound", "of\nallowed", "bad\nrows")
    table = _table("\nfield", "stored\nas", *heads)
    for layer in report.layers:
        table.add_row(
            _named(layer),
            layer.encoding,
            f"{layer.max_abs:.3g}",
            f"{layer.mean_abs:.3g}",
            "" if layer.cosine is None else f"{layer.cosine:.6f}",
            "" if layer.kl is None else f"{layer.kl:.2g}",
            f"{layer.bound:.3g}",
            _times(layer.excess),
            str(layer.num_bad_rows),
        )
    return table


def _next_tokens(layer: "Layer") -> str | None:
    """Line on what is compared of next tokens alone; None of other kinds."""
    if layer.log_z_error is None:
        return None
    first = "" if layer.same_first is None else f"the likeliest token is the same at {layer.same_first:.2%}; "
    return f"{_named(layer)}: {first}log Z is off by {layer.log_z_error:.2g} at most"


def _choices(layers: "list[Layer]") -> Any:
    table = _table("chosen again", "positions", "columns")
    for layer in layers:
        shares = ("" if share is None else f"{share:.2%}" for share in (layer.same_positions, layer.same_columns))
        table.add_row(_named(layer), *shares)
    return table


def _table(*columns: str) -> Any:
    """A table of figures by layer."""
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _named(layer: "Layer") -> str:
    return layer.field if layer.layer is None else f"{layer.field} {layer.layer}"


def _times(excess: float | None) -> str:
    """An error as a share of what is allowed; of one far beyond, how often."""
    if excess is None:
        return "infinite"
    return f"{excess:.1%}" if excess < 10 else f"{excess:.3g} x"
