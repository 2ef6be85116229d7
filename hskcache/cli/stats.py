"""``hskcache stats``: numbers on what a cache holds."""

from typing import TYPE_CHECKING

import click

from hskcache import console, units
from hskcache.cli.damaged import damage_is_an_answer
from hskcache.cli.options import cache_or_url_argument
from hskcache.counted import counted
from hskcache.options import as_json, view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hskcache.cache import Cache
    from hskcache.stats.model import CacheStats, ClassAnswers, FlagAnswers, ScoreAnswers, ValueSpread

_MOST_OUTLIERS = 5
_MOST_WRONG = 5
_MOST_CLASSES = 10
_MOST_FLAGS = 20


@click.command()
@cache_or_url_argument
@click.option(
    "--values/--no-values",
    "with_values",
    default=True,
    help="Whether to decode what is stored and tell its statistics; needs torch.",
)
@view("Count a part of the cache")
@as_json
def stats(cache: str, with_values: bool, view: str, as_json: bool) -> None:
    """Count what a cache holds: bytes, lengths, kept positions, values by layer, the teacher against labels.

    Every shard is read once; exit 1 if one is damaged.
    """
    from hskcache.remote.place import open_any
    from hskcache.stats import stats as count

    with damage_is_an_answer():
        opened = open_any(cache).view(view)
        with console.advancing("count", opened.num_rows) as advance:
            found = count(opened, with_values, advance)
        if as_json:
            console.print_json(found.model_dump(mode="json"))
        else:
            _print(opened, found)


def _print(cache: "Cache", found: "CacheStats") -> None:
    from hskcache.stats.model import ClassAnswers, FlagAnswers

    lengths = found.lengths
    click.echo(
        f"{counted(found.num_rows, 'row')} of {lengths.mean:.1f} tokens on average, {lengths.median} in the middle, at "
        f"most {lengths.longest}"
    )
    _table(("field", "layer", "bytes", "bytes a row"), _sizes(found))
    _table(("kept", "layer", "positions", "of all", "a row", "most often"), _kept(cache, found))
    heads = ("values", "layer", "mean", "std", "norm", "zeros", "outliers")
    _table(heads, _values(found))
    names = cache.manifest.request.data.label_names
    for answers in found.answers:
        click.echo("")
        click.echo("\n".join(_answers(answers)))
        if isinstance(answers, ClassAnswers) and answers.num_rows and answers.num_classes <= _MOST_CLASSES:
            classes = names if len(names) == answers.num_classes else [str(one) for one in range(answers.num_classes)]
            rows = [(name, *map(str, counts)) for name, counts in zip(classes, answers.confusion, strict=True)]
            console.print_columns(rows, ("label, answered as", *classes), right=range(1, 1 + len(classes)), gap=3)
        if isinstance(answers, FlagAnswers) and answers.num_rows:
            _table(("class", "rows", "answered", "rightly", "F1"), _flags(answers, names))


def _table(header: "Sequence[str]", rows: list[tuple[str, ...]]) -> None:
    if rows:
        click.echo("")
        console.print_columns(rows, header, right=range(1, len(header)), gap=3)


def _sizes(found: "CacheStats") -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for part in found.sizes:
        if part.num_bytes:
            layer, a_row = "" if part.layer is None else str(part.layer), part.num_bytes / max(found.num_rows, 1)
            rows.append((part.field, layer, units.human_bytes(part.num_bytes), f"{a_row:,.1f}"))
    return rows


def _kept(cache: "Cache", found: "CacheStats") -> list[tuple[str, ...]]:
    from hskcache.spelling import Spelling

    spelling = Spelling(cache.tokenizer_path) if found.kept else None
    rows: list[tuple[str, ...]] = []
    for layer in found.kept:
        assert spelling is not None
        often = " ".join(spelling.token(token.token_id) for token in layer.tokens[:5])
        mean = layer.num_kept / max(found.num_rows, 1)
        rows.append((layer.field, str(layer.layer), f"{layer.num_kept:,}", f"{layer.share:.1%}", f"{mean:.1f}", often))
    return rows


def _values(found: "CacheStats") -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for layer in found.values:
        shown = ", ".join(map(str, layer.outliers[:_MOST_OUTLIERS])) + (
            ", ..." if len(layer.outliers) > _MOST_OUTLIERS else ""
        )
        outliers = f"{layer.entries} {shown} ({layer.outlier_share:.0%} of squares)" if layer.outliers else "none"
        rows.append(
            (
                layer.field,
                "" if layer.layer is None else str(layer.layer),
                f"{layer.values.mean:+.4f}",
                f"{layer.values.std:.4f}",
                _spread(layer.norms),
                f"{layer.zeros:.1%}",
                outliers,
            )
        )
    return rows


def _flags(answers: "FlagAnswers", names: "Sequence[str]") -> list[tuple[str, ...]]:
    """Rows of each class, the most frequent ones first where there are many."""
    shown = list(zip(names, answers.classes, strict=True))
    if len(shown) > _MOST_FLAGS:
        shown = sorted(shown, key=lambda pair: -pair[1].num_labels)[:_MOST_FLAGS]
    return [
        (name, f"{one.num_labels:,}", f"{one.num_answers:,}", f"{one.num_both:,}", f"{one.f1:.3f}")
        for name, one in shown
    ]


def _spread(spread: "ValueSpread") -> str:
    return f"{spread.mean:.2f} ± {spread.std:.2f}"


def _answers(answers: "ClassAnswers | FlagAnswers | ScoreAnswers") -> list[str]:
    """The answers of a field beside the labels, as lines for people."""
    from hskcache.stats.model import ClassAnswers, FlagAnswers

    if not answers.num_rows:
        return [f"{answers.field}: no row has a label to compare with"]
    if isinstance(answers, ClassAnswers):
        found = (
            f"{answers.accuracy:.2%} of {counted(answers.num_rows, 'label')} are the most probable class; log loss "
            f"{answers.log_loss:.3f}, expected calibration error {answers.calibration_error:.3f}"
        )
    elif isinstance(answers, FlagAnswers):
        found = (
            f"all labels of {answers.subset_accuracy:.2%} of {counted(answers.num_rows, 'row')} are answered and no "
            f"other; micro F1 {answers.f1_micro:.3f}, macro F1 {answers.f1_macro:.3f}, log loss "
            f"{answers.log_loss:.3f}, expected calibration error {answers.calibration_error:.3f}"
        )
    else:
        found = (
            f"correlation {answers.correlation:.4f} with {counted(answers.num_rows, 'label')}; off by "
            f"{answers.mean_error:.3f} on average"
        )
    wrong = ", ".join(f"{one.row} ({one.surety:.3f})" for one in answers.wrong[:_MOST_WRONG])
    which = "surest and wrong" if isinstance(answers, ClassAnswers | FlagAnswers) else "furthest off"
    return [f"{answers.field}: {found}", *([f"{which} on row {wrong}"] if wrong else [])]
