"""``hsktrain predict``: the answers of a model, row by row, and beside those of a cached teacher."""

from pathlib import Path
from typing import Any

import click

from hskcache.errors import CacheError, SpecError
from hskcache.options import as_json, device, layout
from hskcache.text.layout import Layout
from trainer.cli import options

_STDOUT = Path("-")


@click.command()
@click.option("--model", required=True, help="Folder or hub id of a fine-tuned model and its tokenizer.")
@click.option("--data", metavar="FILE", help="Rows to answer; labels are not read.")
@click.option("--cache", metavar="PATH_OR_URL", help="Answer the rows of a cache, beside the teacher's logits in it.")
@click.option(
    "--field", metavar="NAME", help="With --cache: the teacher's field of logits.  [default: logits, the cache's own]"
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
def predict(model: str, layout: Layout, out: Path | None, as_json: bool, **given: Any) -> None:
    """Write what a model answers for every row: its class and the probability of each, or its score.

    Rows keep their order. Columns that are not given are those that the model was trained on. With --cache the rows
    are those of the cache, and how far the student agrees with the teacher is printed: the share of rows with the same
    class and the mean KL divergence, or of scores the mean squared error and Pearson's correlation.
    """
    _check(layout, out, as_json, given)
    from trainer.cli import answering

    if given["cache"] is not None:
        answering.of_cache(model, out, as_json, given)
    else:
        assert out is not None
        answering.of_data(model, layout, out, as_json, given)


def _check(layout: Layout, out: Path | None, as_json: bool, given: dict[str, Any]) -> None:
    """Refuse what needs no model to be seen."""
    if (given["data"] is None) == (given["cache"] is None):
        raise SpecError("give --data FILE, rows to answer, or --cache PATH_OR_URL, whose rows are answered")
    if layout.label:
        raise SpecError(f"--label {layout.label}: predict reads no labels; leave it out, or use hsktrain evaluate")
    if given["cache"] is not None:
        if not layout.is_empty or given["max_length"] is not None or given["glue"]:
            raise SpecError("a cache holds its rows as tokens; leave out --glue, --max-length and the columns")
    elif given["field"] is not None:
        raise SpecError(f"--field {given['field']} belongs to --cache; leave it out")
    elif out is None:
        raise SpecError("say where the predictions go: --out FILE, or --out - to print them")
    if given["glue"] and layout.classes is not None:
        raise SpecError(f"--classes {','.join(layout.classes)}: GLUE's server knows its own labels; leave it out")
    if out is not None:
        _check_out(out, as_json, given)


def _check_out(out: Path, as_json: bool, given: dict[str, Any]) -> None:
    from hskcache.disk import require_file, require_file_outside, require_writable
    from trainer.predictions import require_suffix

    if out == _STDOUT:
        if as_json:
            raise SpecError("--out - and --json both print on stdout; give a file with --out")
        return
    require_suffix(out)
    if given["glue"] and out.suffix.lower() != ".tsv":
        raise SpecError(f"--out {out}: GLUE's server takes a .tsv; give a name that ends so")
    require_file(out)
    if given["data"] is not None and out.exists() and Path(given["data"]).exists() and out.samefile(given["data"]):
        raise SpecError(f"--out {out} is the file of the rows; give another")
    if given["cache"] is not None:
        require_file_outside(given["cache"], out)
    if out.exists() and not given["force"]:
        raise CacheError(f"{out} is there already; give another --out, or --force to replace it")
    require_writable(out.parent)
