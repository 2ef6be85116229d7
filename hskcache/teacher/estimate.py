"""What a build will cost, from its layout and from running a small sample of its rows."""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from hskcache.store.shard import pack_shard
from hskcache.teacher.build import Job, extractor_for, inputs_of
from hskcache.teacher.extract import Arrays, Buffers
from hskcache.teacher.layout import Integers

SAMPLE_BATCHES = 3


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
    sample, seconds = _sample(job)
    num_bytes = {field: int(size * layout.num_bytes[field]) for field, size in sample.items()}
    return Estimate(
        num_rows=len(layout.lengths_N),
        num_shards=len(layout.shards),
        num_tokens=tokens,
        num_bytes=num_bytes,
        most_bytes=layout.num_bytes,
        full_hidden_bytes=tokens * teacher.width * (teacher.num_layers + 1) * 4,
        seconds=round(seconds, 3),
    )


def _sample(job: Job) -> tuple[dict[str, float], float]:
    """Compressed bytes over planned bytes of every field, and seconds of all rows, from some batches."""
    layout = job.layout
    batches = list(layout.batches(*layout.shards[0], job.spec.token_budget))
    picked = [batches[i] for i in np.unique(np.linspace(0, len(batches) - 1, SAMPLE_BATCHES).astype(int))]
    extractor = extractor_for(job)
    # The first run pays for what later ones find ready.
    extractor.knowledge(*extractor.batch(picked[-1]))
    rows = np.sort(np.concatenate(picked))
    start = perf_counter()
    buffers = Buffers(extractor, rows)
    for index in picked:
        buffers.add(index)
    fields = buffers.to_host().wait(job.examples.source)
    elapsed = perf_counter() - start
    ratios = {field: _ratio(arrays, layout.row_bytes_N[field][rows]) for field, arrays in fields.items()}
    first, last = layout.shards[0]
    ratios["inputs"] = _ratio(inputs_of(job, first, last), layout.row_bytes_N["inputs"][first:last])
    return ratios, float(elapsed * layout.lengths_N.sum() / layout.lengths_N[rows].sum())


def _ratio(arrays: Arrays, planned: Integers) -> float:
    return min(1.0, len(pack_shard(arrays)) / max(int(planned.sum()), 1))
