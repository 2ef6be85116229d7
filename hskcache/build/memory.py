"""Memory of a build, measured in its largest batches, before it begins."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from hskcache.build.batching import Batching, batching_of
from hskcache.build.constants import constants_for, extractor_for
from hskcache.build.estimate import PCA_SAMPLE_ROWS
from hskcache.build.extract import Buffers
from hskcache.build.job import Job
from hskcache.build.layout import Integers
from hskcache.counted import counted
from hskcache.strict import Strict
from hskcache.units import human_bytes


class Memory(Strict):
    """Bytes that a build takes on the teacher's device, beside the libraries.

    Attributes:
        weights: of the teacher.
        batch: of a forward pass over the batch that takes most, and of what is selected of it.
        batch_rows: rows of that batch.
        batch_length: tokens of its longest row.
        held: of what is computed and not yet written, at most.
    """

    weights: int
    batch: int
    batch_rows: int
    batch_length: int
    held: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.batch + self.held

    @property
    def told(self) -> str:
        """A line for a person."""
        weights, batch, held = map(human_bytes, (self.weights, self.batch, self.held))
        rows = f"{counted(self.batch_rows, 'row')} of up to {counted(self.batch_length, 'token')}"
        return f"about {human_bytes(self.total)}: weights {weights}, {rows} at once {batch}, not yet written {held}"


def measure_memory(job: Job) -> Memory | None:
    """Run the teacher over the largest batches of a build and see how much memory they take.

    Those are, of the first shards and of those with the longest row, the batch with most tokens and the one with most
    attention. None on a device that does not tell.

    Raises:
        TeacherError: its device has too little memory.
    """
    extractor = extractor_for(job, {kind: constants_for(job, kind, PCA_SAMPLE_ROWS) for kind in job.layout.fields})
    largest: tuple[int, Integers] | None = None
    for rows in _largest(batching_of(job)):
        buffers = Buffers(extractor, np.sort(rows))
        taken = _peak_bytes(job.teacher.device, lambda buffers=buffers, rows=rows: buffers.add(rows))  # type: ignore[misc]
        if taken is None:
            return None
        largest = max(largest or (taken, rows), (taken, rows), key=lambda one: one[0])
    assert largest is not None
    model = job.teacher.model
    weights = sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)
    lengths = job.layout.lengths_N[largest[1]]
    return Memory(
        weights=weights,
        batch=largest[0],
        batch_rows=len(lengths),
        batch_length=int(lengths.max()),
        held=_held_bytes(job),
    )


def _largest(batching: Batching) -> Iterator[Integers]:
    """The batches of some shards that can take most: of tokens, and of attention; often the same."""
    lengths_N, shards, groups = batching.layout.lengths_N, batching.layout.shards, batching.groups
    longest = int(lengths_N.argmax())
    asked = {0, next(place for place, group in enumerate(groups) if longest < shards[group[-1]][1])}
    batches = [
        batch
        for place in sorted(asked)
        for batch in batching.batches(shards[groups[place][0]][0], shards[groups[place][-1]][1])
    ]
    sizes = [(len(batch), int(lengths_N[batch].max())) for batch in batches]
    most = {max(range(len(sizes)), key=lambda place: sizes[place][0] * sizes[place][1] ** power) for power in (1, 2)}
    return (batches[place] for place in sorted(most))


def _held_bytes(job: Job) -> int:
    """Bytes of the shards that are computed together, twice: those of one group are written while the next is made."""
    shards, sizes = job.layout.shards, job.layout.sizes.values()
    ranges = [slice(shards[group[0]][0], shards[group[-1]][1]) for group in batching_of(job).groups]
    return 2 * max(sum(int(size.row_bytes_N[rows].sum()) for size in sizes) for rows in ranges)


def _peak_bytes(device: torch.device, run: Callable[[], object]) -> int | None:
    """Most bytes of tensors that live at once while something runs, beside those that were there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    # The profiler's library says at every start that it starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    with TemporaryDirectory(prefix="hskcache-") as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    taken = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    return int(np.cumsum([0, *(num_bytes for _, num_bytes in taken)]).max())
