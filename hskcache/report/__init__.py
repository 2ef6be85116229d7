"""A page about a cache for people to look at: one HTML file that asks nobody for anything."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hskcache.cache import Cache
from hskcache.disk import require_file_outside, writing_to
from hskcache.errors import CacheError, MismatchError
from hskcache.move.whole import replacing
from hskcache.stats import stats

MOST_WRONG_ROWS = 6
"""Rows that are shown of those which the teacher is surest to be wrong on."""


@dataclass(frozen=True)
class ReportRequest:
    """A page to write.

    Attributes:
        out: its file.
        study: folder of a study of the cache, whose curves are shown; None shows none.
        num_rows: rows that are shown, evenly chosen.
        with_values: whether values are decoded, which needs torch.
        force: whether a file that is no such page is replaced.
        view: what the cache is a view of, in words; empty where it is whole.
    """

    out: Path
    study: Path | None = None
    num_rows: int = 8
    with_values: bool = True
    force: bool = False
    view: str = ""


def report(cache: Cache, request: ReportRequest, advance: Callable[[int], object] = lambda _: None) -> None:
    """Write the page of a cache.

    Args:
        cache: it is read from beginning to end, a shard of each field at a time.
        request: what to show, and where.
        advance: called with the rows that have been counted.

    Raises:
        MismatchError: the study is of another cache.
        CacheError: something else stands at the file, or it cannot be written.
        DamageError: a file of the cache is missing or altered; names the shard.
    """
    from hskcache.report.page import Content, page
    from hskcache.report.shown import shown_rows
    from hskcache.studied import read_results

    _check_out(cache, request)
    study = None if request.study is None else read_results(request.study)
    if study is not None and study.cache != cache.id:
        raise MismatchError(
            f"the study {request.study} is of the cache {study.cache[:12]}, and {cache.name} is {cache.id[:12]}; give "
            "the cache that it is of, or leave out --study"
        )
    found = stats(cache, request.with_values, advance)
    count = min(request.num_rows, cache.num_rows)
    first = np.linspace(0, cache.num_rows - 1, count).astype(int).tolist() if count else []
    wrong = [one.row for answers in found.answers for one in answers.wrong[:MOST_WRONG_ROWS]]
    rows = shown_rows(cache, [*first, *wrong], request.with_values)
    _write(request.out, page(Content(cache, found, first, rows, study, request.view)))


def _check_out(cache: Cache, request: ReportRequest) -> None:
    from hskcache.report.page import GENERATOR

    require_file_outside(cache.name, request.out)
    if request.out.is_file() and not request.force:
        with request.out.open("rb") as file:
            begin = file.read(1000)
        if begin and GENERATOR.encode() not in begin:
            raise CacheError(
                f"{request.out} is there and is no page of hskcache report; give another --out, or --force"
            )


def _write(out: Path, text: str) -> None:
    """Put the page in its place once it is whole."""
    with writing_to(out, "the start"), replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")
