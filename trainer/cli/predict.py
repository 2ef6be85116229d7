"""``hsktrain predict``: the answers of a model, row by row, and beside those of a cached teacher."""

from dataclasses import dataclass
from pathlib import Path

import click

from hskcache.completion import fields, places
from hskcache.errors import CacheError, SpecError
from hskcache.options import as_json, device, gathered, layout
from hskcache.text.layout import Layout
from trainer.cli import options

_STDOUT = Path("-")


@dataclass(frozen=True)
class PredictRequest:
    """Rows for a model to answer, as the options say it that are called alike; see :func:`_check`."""

    model: str
    data: str | None
    cache: str | None
    field: str | None
    layout: Layout
    out: Path | None
    glue: bool
    force: bool
    max_length: int | None
    bf16: bool
    device: str
    as_json: bool


@click.command()
@options.classifier
@click.option("--data", metavar="FILE", help="Rows to answer; labels are not read.", shell_complete=places)
@click.option(
    "--cache",
    metavar="PATH_OR_URL",
    help="Answer the rows of a cache, beside the teacher's logits in it.",
    shell_complete=places,
)
@click.option(
    "--field",
    metavar="NAME",
    help="With --cache: the teacher's field of logits.  [default: logits, the cache's own]",
    shell_complete=fields,
)
@layout
@click.option(
    "--out",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A .tsv, .csv or .jsonl to write, or - to print; with --cache it may be left out.",
)
@click.option(
    "--glue", is_flag=True, help="Write what GLUE's server takes: index and prediction of every row, in its own words."
)
@click.option("--force", is_flag=True, help="Replace whatever stands at --out.")
@options.trained_max_length
@options.bf16
@device
@as_json
@gathered(PredictRequest, "request")
def predict(request: PredictRequest) -> None:
    """Write what a model answers for every row: its class and the probability of each, or its score.

    Rows keep their order. Columns that are not given are those that the model was trained on. With --cache the rows
    are those of the cache, and how far the student agrees with the teacher is printed: the share of rows with the same
    class and the mean KL divergence, or of scores the mean squared error and Pearson's correlation.
    """
    _check(request)
    from trainer.cli import answering

    if request.cache is not None:
        answering.of_cache(request, request.cache)
    else:
        assert request.data is not None
        answering.of_data(request, request.data)


def _check(request: PredictRequest) -> None:
    """Refuse what needs no model to be seen."""
    layout, out = request.layout, request.out
    if (request.data is None) == (request.cache is None):
        raise SpecError("give --data FILE, rows to answer, or --cache PATH_OR_URL, whose rows are answered")
    if layout.label:
        raise SpecError(f"--label {layout.label}: predict reads no labels; leave it out, or use hsktrain evaluate")
    if request.cache is not None:
        if not layout.is_empty or request.max_length is not None or request.glue:
            raise SpecError("a cache holds its rows as tokens; leave out --glue, --max-length and the columns")
    elif request.field is not None:
        raise SpecError(f"--field {request.field} belongs to --cache; leave it out")
    elif out is None:
        raise SpecError("say where the predictions go: --out FILE, or --out - to print them")
    if request.glue and layout.classes is not None:
        raise SpecError(f"--classes {','.join(layout.classes)}: GLUE's server knows its own labels; leave it out")
    if out is not None:
        _check_out(request, out)


def _check_out(request: PredictRequest, out: Path) -> None:
    from hskcache.disk import require_file, require_file_outside, require_writable
    from trainer.predictions import require_suffix

    if out == _STDOUT:
        if request.as_json:
            raise SpecError("--out - and --json both print on stdout; give a file with --out")
        return
    require_suffix(out)
    if request.glue and out.suffix.lower() != ".tsv":
        raise SpecError(f"--out {out}: GLUE's server takes a .tsv; give a name that ends so")
    require_file(out)
    if request.data is not None and out.exists() and Path(request.data).exists() and out.samefile(request.data):
        raise SpecError(f"--out {out} is the file of the rows; give another")
    if request.cache is not None:
        require_file_outside(request.cache, out)
    if out.exists() and not request.force:
        raise CacheError(f"{out} is there already; give another --out, or --force to replace it")
    require_writable(out.parent)
