"""Cost of a build, from its layout and from running a small sample of its rows."""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from hskcache.build.batching import batching_of
from hskcache.build.constants import constants_for, extractor_for
from hskcache.build.extract import Arrays, Buffers
from hskcache.build.job import Job
from hskcache.build.layout import Integers
from hskcache.build.writing import inputs_of
from hskcache.store.fields import INPUTS
from hskcache.store.version2 import VERSION_2

SAMPLE_BATCHES = 3
PCA_SAMPLE_ROWS = 128


class Estimate(NamedTuple):
    """The cost of a build.

    ``num_bytes`` guesses every field's size on disk from a compressed sample, ``most_bytes`` bounds it from its shapes;
    ``full_hidden_bytes`` is what all hidden states of all layers would take in float32; ``seconds`` is the teacher's
    time.
    """

    num_rows: int
    num_shards: int
    num_tokens: int
    num_bytes: dict[str, int]
    most_bytes: dict[str, int]
    full_hidden_bytes: int
    seconds: float


def estimate(job: Job) -> Estimate:
    """Run the teacher over a few batches of the first shard and extend their time and size to all rows."""
    layout, teacher = job.layout, job.teacher.info
    tokens = int(layout.lengths_N.sum())
    fields, sample, seconds = _sample(job)
    first, last = layout.shards[0]
    most_bytes = layout.num_bytes
    num_bytes = {}
    for field, arrays in fields.items():
        rows = np.arange(first, last) if field == INPUTS else sample
        size = layout.sizes[field]
        part = float(size.row_bytes_N[rows].sum() / size.row_bytes_N.sum())
        guess = _header_bytes(arrays) * len(layout.shards) + _payload_bytes(arrays) / part
        num_bytes[field] = min(round(guess) + size.constant_bytes, most_bytes[field])
    return Estimate(
        num_rows=len(layout.lengths_N),
        num_shards=len(layout.shards),
        num_tokens=tokens,
        num_bytes=num_bytes,
        most_bytes=most_bytes,
        full_hidden_bytes=tokens * teacher.width * (teacher.num_layers + 1) * 4,
        seconds=round(seconds * tokens / float(layout.lengths_N[sample].sum()), 3),
    )


def _sample(job: Job) -> tuple[dict[str, Arrays], Integers, float]:
    """Arrays of every field for some rows, which rows these are (inputs: the first shard's), and their seconds."""
    layout = job.layout
    first, last = layout.shards[0]
    batches = list(batching_of(job).batches(first, last))
    picked = [batches[i] for i in _spread([int(layout.lengths_N[index].sum()) for index in batches])]
    extractor = extractor_for(job, {kind: constants_for(job, kind, PCA_SAMPLE_ROWS) for kind in layout.fields})
    # The first run pays for what later ones find ready.
    extractor.knowledge(*extractor.batch(picked[-1]))
    rows = np.sort(np.concatenate(picked))
    begin = perf_counter()
    buffers = Buffers(extractor, rows)
    for index in picked:
        buffers.add(index)
    fields = buffers.to_host().wait().fields
    seconds = perf_counter() - begin
    fields[INPUTS] = inputs_of(job, first, last)
    return {name: fields[name] for name in job.fields}, rows, seconds


def _spread(num_tokens: list[int]) -> list[int]:
    """Places of some batches, spread evenly over the tokens of all: batches of few tokens say little of the others."""
    tokens_to = np.cumsum(num_tokens)
    wanted = tokens_to[-1] * (np.arange(SAMPLE_BATCHES) + 0.5) / SAMPLE_BATCHES
    return sorted({int(place) for place in np.searchsorted(tokens_to, wanted)})


def _header_bytes(arrays: Arrays) -> int:
    """Bytes of a shard whatever its number of rows: documents, and a chunk of one entry for each array."""
    return len(VERSION_2.pack({name: array[:1] for name, array in arrays.items()}))


def _payload_bytes(arrays: Arrays) -> int:
    return len(VERSION_2.pack(arrays)) - _header_bytes(arrays)
