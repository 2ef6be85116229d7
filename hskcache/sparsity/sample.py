"""The rows that scores are taken over: in their own order, in batches, padded to the longest row of each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import SpecError
from hskcache.text import TokenizedRows
from hskcache.text.labels import Labels

_MODULUS = 1 << 64


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows and what is asked of them.

    Raises SpecError for a batch size below 1, or a temperature that is no number above 0.

    Attributes:
        rows: through the teacher's tokenizer.
        labels: class index int64 [N] or score float32 [N] of every row; None leaves the task loss out.
        batch_size: rows of a batch. Gradients cancel within a batch and not across, so it belongs to the scores.
        temperature: T of the distillation loss, above 0.
        index_N: numbers of the rows that count, int64, rising; None takes all.
        source: what to call the rows in an error.
    """

    rows: TokenizedRows
    labels: Labels | None
    batch_size: int = 32
    temperature: float = 2.0
    index_N: NDArray[np.int64] | None = None
    source: str = "the sample"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SpecError(f"a batch of {self.batch_size} rows; give at least 1")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SpecError(f"a temperature of {self.temperature:g}; give a number above 0")

    def __len__(self) -> int:
        return len(self.rows) if self.index_N is None else len(self.index_N)

    @property
    def batches(self) -> Iterator[NDArray[np.int64]]:
        """Row numbers of each batch, the last perhaps smaller."""
        numbers = np.arange(len(self.rows)) if self.index_N is None else self.index_N
        for start in range(0, len(numbers), self.batch_size):
            yield numbers[start : start + self.batch_size]


def draw_rows(num_rows: int, limit: int, seed: int) -> NDArray[np.int64]:
    """``limit`` of the row numbers 0 to ``num_rows``, or all if there are no more: int64, rising."""
    return np.sort(np.argsort(uniform(seed, num_rows), kind="stable")[:limit])


def uniform(seed: int, num: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) that a seed gives everywhere: float64 [num]; any integer is a seed, modulo 2**64."""
    raw = np.random.Philox(key=seed % _MODULUS).random_raw(num)
    # The upper 53 bits, as many as a float64 holds.
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
