"""Mean and variance of numbers that come piece by piece, without the loss of digits that sums of squares have."""

import numpy as np
from numpy.typing import NDArray

from hskcache.stats.model import ValueSpread

Floats = NDArray[np.float64]


class Moments:
    """Count, mean and sum of squared differences from it, of E kinds of numbers at once.

    Pieces are joined as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979, eq. 2.1. ``counts_E``, ``means_E``, ``squares_E``: float64.
    """

    def __init__(self) -> None:
        self.counts_E, self.means_E, self.squares_E = (np.zeros(0) for _ in range(3))

    def add(self, counts_E: Floats, means_E: Floats, squares_E: Floats) -> None:
        """Join those of another piece, which may have fewer or more entries."""
        num_entries = max(len(self.counts_E), len(counts_E))
        ours = [_widened(one, num_entries) for one in (self.counts_E, self.means_E, self.squares_E)]
        theirs = [_widened(one, num_entries) for one in (counts_E, means_E, squares_E)]
        total = ours[0] + theirs[0]
        share = theirs[0] / np.maximum(total, 1)
        apart = theirs[1] - ours[1]
        self.counts_E = total
        self.means_E = ours[1] + apart * share
        self.squares_E = ours[2] + theirs[2] + apart**2 * ours[0] * share

    @property
    def stds_E(self) -> Floats:
        """Standard deviation of each, over all numbers that there are."""
        return np.sqrt(self.squares_E / np.maximum(self.counts_E, 1))

    @property
    def energies_E(self) -> Floats:
        """Sum of the squares of each."""
        return self.squares_E + self.counts_E * self.means_E**2

    def joined(self) -> tuple[int, float, float]:
        """Count, mean and standard deviation of all together."""
        count = self.counts_E.sum()
        if not count:
            return 0, 0.0, 0.0
        mean = float(self.counts_E @ self.means_E / count)
        apart = float(self.squares_E.sum() + self.counts_E @ (self.means_E - mean) ** 2)
        return int(count), mean, float(np.sqrt(apart / count))


class RunningSpread:
    """The spread of numbers that come piece by piece."""

    def __init__(self) -> None:
        self._moments = Moments()
        self._least, self._most = np.inf, -np.inf

    def add(self, numbers: Floats) -> None:
        """Take a piece, flat."""
        if not len(numbers):
            return
        mean = numbers.mean()
        squares = ((numbers - mean) ** 2).sum()
        self._moments.add(np.array([float(len(numbers))]), np.array([mean]), np.array([squares]))
        self._least, self._most = min(self._least, numbers.min()), max(self._most, numbers.max())

    def told(self) -> ValueSpread:
        """The spread by now."""
        count, mean, std = self._moments.joined()
        if not count:
            return ValueSpread(mean=0.0, std=0.0, least=0.0, most=0.0)
        return ValueSpread(mean=mean, std=std, least=float(self._least), most=float(self._most))


def _widened(numbers_E: Floats, num_entries: int) -> Floats:
    return np.pad(numbers_E, (0, num_entries - len(numbers_E)))
