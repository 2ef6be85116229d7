"""Distributions of the lengths of rows, of what was kept of them, and of which tokens that are."""

import numpy as np
from numpy.typing import NDArray

from hskcache.rows import Arrays, Integers
from hskcache.stats.model import KeptPositions, LengthCounts, TokenCount
from hskcache.store.fields import check_positions, layer_name

MOST_TOKENS = 20
"""Tokens that are told of those that were kept most often."""


class Histogram:
    """Counts of whole numbers from 0 on, as many as there are."""

    def __init__(self) -> None:
        self.counts: Integers = np.zeros(0, np.int64)

    def add(self, numbers: NDArray[np.integer]) -> None:
        """Count some numbers."""
        more = np.bincount(numbers.astype(np.int64), minlength=len(self.counts))
        more[: len(self.counts)] += self.counts
        self.counts = more

    def at(self, number: int) -> int:
        """Count of a number."""
        return int(self.counts[number]) if number < len(self.counts) else 0


class Rows:
    """The rows' lengths and tokens."""

    def __init__(self) -> None:
        self.lengths, self.tokens = Histogram(), Histogram()

    def add(self, inputs: Arrays) -> None:
        """Take the inputs of a shard."""
        self.lengths.add(np.diff(inputs["row_offsets"]))
        self.tokens.add(inputs["input_ids"])

    def told(self) -> LengthCounts:
        """The statistics by now."""
        counts = self.lengths.counts
        num_rows, num_tokens = int(counts.sum()), int(counts @ np.arange(len(counts)))
        return LengthCounts(
            counts=counts.tolist(),
            mean=num_tokens / max(num_rows, 1),
            median=int(np.searchsorted(np.cumsum(counts), num_rows / 2)) if num_rows else 0,
            longest=max(len(counts) - 1, 0),
        )


class KeptOfLayer:
    """Kept positions of one layer, beside the rows that they are of."""

    def __init__(self, field: str, layer: int) -> None:
        self.field, self.layer = field, layer
        self._array = f"{layer_name(layer)}/positions"
        self._by_count, self._by_position, self._best, self._tokens = (Histogram() for _ in range(4))

    def add(self, inputs: Arrays, arrays: Arrays) -> None:
        """Take a shard of the field and that of the inputs. Raises DamageError for a position beyond its row."""
        starts, offsets, positions = inputs["row_offsets"], arrays["position_offsets"], arrays[self._array]
        check_positions({"position_offsets": offsets, self._array: positions}, np.diff(starts))
        counts = np.diff(offsets)
        self._by_count.add(counts)
        self._by_position.add(positions)
        self._best.add(positions[offsets[:-1][counts > 0]])
        self._tokens.add(inputs["input_ids"][np.repeat(starts[:-1], counts) + positions])

    def told(self, rows: Rows) -> KeptPositions:
        """The statistics by now, beside those of all rows."""
        num_kept, kept = int(self._by_position.counts.sum()), self._tokens.counts
        most = [int(token) for token in np.argsort(-kept, kind="stable")[:MOST_TOKENS] if kept[token]]
        return KeptPositions(
            field=self.field,
            layer=self.layer,
            num_kept=num_kept,
            share=num_kept / max(int(rows.tokens.counts.sum()), 1),
            by_count=self._by_count.counts.tolist(),
            by_position=self._by_position.counts.tolist(),
            first_by_position=self._best.counts.tolist(),
            tokens=[
                TokenCount(token_id=token, num_kept=int(kept[token]), num_there=rows.tokens.at(token)) for token in most
            ],
        )
