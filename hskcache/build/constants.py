"""The teacher with what is to be kept, and what all rows of a field share, made with a sample of them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hskcache.build.batching import NEWEST, Batching, batching_of
from hskcache.build.extract import Arrays, Extractor
from hskcache.build.job import Job
from hskcache.build.kinds import BUILT
from hskcache.build.kinds.abc import Selector
from hskcache.ragged import Integers

PCA_SAMPLE_ROWS = 2048


def constants_for(job: Job, kind: str, sample_rows: int = PCA_SAMPLE_ROWS, way: type[Batching] = NEWEST) -> Arrays:
    """The shared arrays of a field of a job by the names of the format; empty where its rows share none.

    Args:
        job: what is to be kept.
        kind: of the field, which the job has.
        sample_rows: rows, spread evenly over the data, that what is fitted is fitted to.
        way: of making batches, which says what a row counts for.
    """

    def run(selector: Selector, rows: Integers) -> Iterator[Mapping[Any, Any]]:
        extractor = Extractor(job, [selector])
        per_batch = max(1, job.spec.token_budget // int(batching_of(job, way).costs(job.layout.lengths_N[rows]).max()))
        for first in range(0, len(rows), per_batch):
            yield extractor.knowledge(*extractor.batch(rows[first : first + per_batch]))[selector.name]

    return BUILT[kind].constants(job, job.layout.fields[kind], run, sample_rows)


def extractor_for(
    job: Job,
    constants: Mapping[str, Arrays] | None = None,
    fields: Collection[str] | None = None,
    first_row: int = 0,
) -> Extractor:
    """The teacher with what is to be kept.

    Args:
        job: what is to be kept.
        constants: by kind, those of a cache whose rows it is to extend; None makes them.
        fields: to keep of those that the job has, by kind; None keeps all.
        first_row: row of the cache, or of the whole one that it is a part of, that the job's first one becomes.
    """
    selectors = []
    for kind, field in job.layout.fields.items():
        if fields is None or kind in fields:
            shared = constants_for(job, kind) if constants is None else constants.get(kind, {})
            selectors.append(BUILT[kind].selector(job, field, shared))
    # Layers first: what is wrong in one is wrong in what the teacher makes of it.
    return Extractor(job, sorted(selectors, key=lambda one: not one.field.stored_layers), first_row)
