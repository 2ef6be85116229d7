"""Statistics of decoded values, layer by layer and entry by entry; of a shard some rows at a time are decoded."""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hskcache.cache import Cache
from hskcache.decoded import DECODED, Vectors, decode, layers_of, reconstructed
from hskcache.describe import DESCRIPTIONS
from hskcache.rows import Arrays, Integers, in_pieces, take
from hskcache.stats.model import EntryValues, LayerValues, ValueSpread
from hskcache.stats.moments import Floats, Moments, RunningSpread
from hskcache.store.fields import Field

_MOST_VALUES = 1 << 20
"""Decoded values that are counted at a time: 8 MB, and some copies of them."""
_OUTLIER_DEVIATIONS = 3.0
"""Deviations above the mean from which an entry is an outlier, as in Kovaleva et al., "BERT Busters", 2021."""


class FieldValues:
    """Statistics of the values of a field."""

    def __init__(self, cache: Cache, name: str) -> None:
        self._name, self._field, self._constants = name, cache.fields[name], cache.constants(name)
        self._layers = [_Layer(name, self._field, layer) for layer in layers_of(self._field)]

    def add(self, arrays: Arrays, rows: Integers) -> None:
        """Take a shard, of which some rows count."""
        sizes = DECODED[self._field.kind].num_values(self._field, arrays)
        for piece in in_pieces(rows, sizes[rows], _MOST_VALUES):
            taken = take(self._field, arrays, piece)
            for layer in self._layers:
                vectors = decode(self._field, taken, layer.layer, self._constants)
                layer.add(reconstructed(self._field, vectors, layer.layer, self._constants))

    def told(self) -> list[LayerValues]:
        """The statistics by now, layer by layer."""
        return [layer.told() for layer in self._layers]


class _Layer:
    def __init__(self, name: str, field: Field, layer: int | None) -> None:
        self.name, self.field, self.layer = name, field, layer
        self._entries, self._norms = Moments(), RunningSpread()
        self._least, self._most = np.inf, -np.inf
        self._zeros_E = np.zeros(0)
        self._num_vectors = self._num_nonfinite = 0

    def add(self, vectors: Vectors) -> None:
        is_stored_VE = vectors.entries_VE >= 0
        is_taken_VE = is_stored_VE & vectors.values_VE.isfinite()
        values_VE = vectors.values_VE.double().masked_fill(~is_taken_VE, 0.0)
        self._num_vectors += len(values_VE)
        self._num_nonfinite += int((is_stored_VE & ~is_taken_VE).sum())
        self._norms.add(values_VE.norm(dim=-1).numpy())
        if not is_taken_VE.any():
            return
        taken = _by_entry(values_VE, vectors.entries_VE, is_taken_VE)
        self._entries.add(taken.counts_E, taken.means_E, taken.squares_E)
        self._zeros_E = _sum(self._zeros_E, taken.zeros_E)
        self._least, self._most = min(self._least, taken.least), max(self._most, taken.most)

    def told(self) -> LayerValues:
        moments, num_vectors = self._entries, max(self._num_vectors, 1)
        counts_E = np.maximum(moments.counts_E, 1)
        rms_E = np.sqrt(moments.energies_E / num_vectors)
        outliers = _outliers(rms_E)
        num_values, mean, std = moments.joined()
        ends = (float(self._least), float(self._most)) if num_values else (0.0, 0.0)
        return LayerValues(
            field=self.name,
            kind=self.field.kind,
            layer=self.layer,
            entries=DESCRIPTIONS[self.field.kind].entries,
            num_vectors=self._num_vectors,
            num_values=num_values,
            num_nonfinite=self._num_nonfinite,
            values=ValueSpread(mean=mean, std=std, least=ends[0], most=ends[1]),
            zeros=float(self._zeros_E.sum()) / max(num_values, 1),
            norms=self._norms.told(),
            outliers=outliers.tolist(),
            outlier_share=float((rms_E[outliers] ** 2).sum() / max((rms_E**2).sum(), np.finfo(float).tiny)),
            by_entry=EntryValues(
                counts=moments.counts_E.astype(np.int64).tolist(),
                means=moments.means_E.tolist(),
                stds=moments.stds_E.tolist(),
                zeros=(_sum(self._zeros_E, np.zeros(len(counts_E))) / counts_E).tolist(),
                rms=rms_E.tolist(),
            ),
        )


class _Taken(NamedTuple):
    """Values of some vectors by entry: counts, means, sums of squared differences from them, zeros; and their range."""

    counts_E: Floats
    means_E: Floats
    squares_E: Floats
    zeros_E: Floats
    least: float
    most: float


def _by_entry(values_VE: Tensor, entries_VE: Tensor, is_taken_VE: Tensor) -> _Taken:
    """Values that are taken, at least one; the others are 0."""
    if entries_VE.stride(0) == 0 and bool(is_taken_VE.all()):
        # All vectors have the same entries: no value needs to be looked up by its own.
        return _by_column(values_VE.numpy(), entries_VE[0].numpy())
    values, entries = values_VE[is_taken_VE].numpy(), entries_VE[is_taken_VE].numpy()
    counts_E = np.bincount(entries).astype(np.float64)
    means_E = np.bincount(entries, values) / np.maximum(counts_E, 1)
    squares_E = np.bincount(entries, (values - means_E[entries]) ** 2).astype(np.float64)
    zeros_E = np.bincount(entries, values == 0).astype(np.float64)
    return _Taken(counts_E, means_E, squares_E, zeros_E, float(values.min()), float(values.max()))


def _by_column(values_VE: Floats, entries_E: Integers) -> _Taken:
    found = np.zeros((4, int(entries_E.max()) + 1))
    means_E = values_VE.mean(0)
    parts: tuple[Any, ...] = (len(values_VE), means_E, ((values_VE - means_E) ** 2).sum(0), (values_VE == 0).sum(0))
    for row, part in zip(found, parts, strict=True):
        row[entries_E] = part
    counts_E, means_E, squares_E, zeros_E = found
    return _Taken(counts_E, means_E, squares_E, zeros_E, float(values_VE.min()), float(values_VE.max()))


def _outliers(rms_E: Floats) -> Integers:
    """Entries far above the others, largest first."""
    if not len(rms_E):
        return np.zeros(0, np.int64)
    order = np.argsort(-rms_E, kind="stable")
    limit = rms_E.mean() + _OUTLIER_DEVIATIONS * rms_E.std()
    return order[: int((rms_E > limit).sum())]


def _sum(here_E: Floats, there_E: Floats) -> Floats:
    """Sum of two lists of numbers of which either may be shorter."""
    num_entries = max(len(here_E), len(there_E))
    total: Floats = np.pad(here_E, (0, num_entries - len(here_E))) + np.pad(there_E, (0, num_entries - len(there_E)))
    return total
