"""Jobs over rows of a cache that stands already: its own, to be computed again, or more of the same kind."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from hskcache.cli.jobs import Rows, make_corpus_build, make_job, packed
from hskcache.errors import MismatchError
from hskcache.text.layout import Layout
from hskcache.text.rows import Examples

if TYPE_CHECKING:
    from hskcache.cache import Cache
    from hskcache.store.manifest import Request
    from hskcache.teacher.job import Job


@dataclass(frozen=True)
class _LayoutOfCache(Layout):
    """Columns of a data file whose labels are the classes of a cache, even where it has none of some class."""

    classes: tuple[str, ...] = ()

    def read(self, source: str, label_names: Sequence[str] | None = None, problem: str | None = None) -> Examples:
        return super().read(source, label_names or (self.classes if self.has_label else None), problem)


def make_part_job(cache: "Cache", teacher: str, device: str, rows: Rows, spool: Path) -> "Job":
    """Load a teacher and tokenize rows as those of a cache were: what is kept, and how, is the cache's.

    Args:
        cache: that the rows belong to, or will.
        teacher: folder or hub id.
        device: where it computes.
        rows: a data file or a corpus; where no column is named, the task is that of the cache.
        spool: folder for the rows of a corpus.

    Raises:
        MismatchError: rows of a task are given for a corpus, or the other way round.
        CacheError: whatever else is at fault.
    """
    request = cache.manifest.request
    is_corpus = request.data.problem == "text"
    if is_corpus != (rows.corpus is not None):
        has, option = ("a corpus", "--corpus") if is_corpus else ("rows of a task", "--data")
        raise MismatchError(f"{cache.root} holds {has}; give {option} FILE")
    rows.check()
    spec = request.spec.model_copy(update={"shard_rows": request.shard_rows})
    if rows.corpus is not None:
        return packed(make_corpus_build(teacher, device, spec, rows.corpus), spool)
    return make_job(teacher, device, spec, Rows(rows.source, _layout(rows.layout, request)))


def _layout(given: Layout, request: "Request") -> Layout:
    columns = {one.name: getattr(given, one.name) for one in fields(Layout)}
    if all(value is None for value in columns.values()):
        columns["task_name"] = request.data.task
    return _LayoutOfCache(**columns, classes=tuple(request.data.label_names))
