"""Statistics of a cache, gathered in one pass over its shards, of which one of each field at a time is in memory."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hskcache.cache import Cache
from hskcache.classes import NO_CLASS, single_classes
from hskcache.errors import DamageError
from hskcache.rows import Arrays, Integers, take
from hskcache.stats.answers import Answers, AnswersOfClasses, AnswersOfFlags, AnswersOfScores
from hskcache.stats.model import CacheStats
from hskcache.stats.positions import KeptOfLayer, Rows
from hskcache.stats.sizes import sizes
from hskcache.store.fields import INPUTS, LogitsField, kind_of, layer_name

__all__ = ["CacheStats", "stats"]


def stats(cache: Cache, with_values: bool = True, advance: Callable[[int], object] = lambda _: None) -> CacheStats:
    """Count everything that a cache holds.

    What is in memory does not grow with the number of rows: a shard of each field, and counts by length, position,
    token, class and column.

    Args:
        cache: it is read from beginning to end, every shard verified.
        with_values: whether values are decoded, which needs torch; without it all else is told.
        advance: called with the rows that have been counted.

    Raises:
        DamageError: a file is missing or altered, or points beyond a row; names the shard.
    """
    rows = Rows()
    fields = [_FieldStats(cache, name, with_values) for name in cache.fields if name != INPUTS]
    needed = [(name, shard) for shard in range(len(cache.shards)) for name in cache.fields]
    cache.ahead(needed)
    for shard, (start, stop) in enumerate(cache.shards):
        inputs = cache.read(INPUTS, shard)
        rows.add(inputs)
        for field in fields:
            field.add(inputs, shard)
        advance(stop - start)
    return CacheStats(
        cache=cache.name,
        cache_id=cache.id,
        num_rows=cache.num_rows,
        num_tokens=int(rows.tokens.counts.sum()),
        sizes=sizes(cache),
        lengths=rows.told(),
        kept=[layer.told(rows) for field in fields for layer in field.kept],
        values=[layer for field in fields if field.values is not None for layer in field.values.told()],
        answers=[field.answers.told() for field in fields if field.answers is not None],
    )


class _FieldStats:
    """Statistics of a field of knowledge."""

    def __init__(self, cache: Cache, name: str, with_values: bool) -> None:
        self._cache, self._name, self._skipped = cache, name, cache.skipped((name,))
        field = cache.fields[name]
        arrays = kind_of(field).arrays(field)
        layers = [layer for layer in field.stored_layers if f"{layer_name(layer)}/positions" in arrays]
        self.kept = [KeptOfLayer(name, layer) for layer in layers]
        self.answers = _answers(cache, name)
        self.values = None
        if with_values:
            from hskcache.stats.values import FieldValues

            self.values = FieldValues(cache, name)

    def add(self, inputs: Arrays, shard: int) -> None:
        """Take a shard, beside the inputs of its rows."""
        arrays, (start, stop) = self._cache.read(self._name, shard), self._cache.shards[shard]
        for layer in self.kept:
            try:
                layer.add(inputs, arrays)
            except DamageError as error:
                raise DamageError(f"{self._name} shard {shard} of {self._cache.name}: {error}") from None
        rows = np.setdiff1d(np.arange(start, stop), self._skipped)
        if self.answers is not None:
            self._answered(inputs, arrays, rows - start, rows)
        if self.values is not None:
            self.values.add(arrays, rows - start)

    def _answered(self, inputs: Arrays, arrays: Arrays, places: Integers, rows: Integers) -> None:
        """Take the answers of some rows of a shard, or of their words."""
        field = self._cache.fields[self._name]
        assert isinstance(field, LogitsField)
        assert self.answers is not None
        arrays, inputs = (
            take(one, own, places) for one, own in ((field, arrays), (self._cache.fields[INPUTS], inputs))
        )
        if field.of_words:
            rows = np.repeat(rows, np.diff(arrays["position_offsets"]))
        labels = _labels(inputs, len(rows))
        if self._cache.manifest.request.data.problem != "multilabel":
            labels = single_classes(labels)
        self.answers.add(arrays[field.array], labels, rows)


def _answers(cache: Cache, name: str) -> Answers | None:
    """Counts of the answers of a field; None where it has none."""
    field = cache.fields[name]
    num_answers = kind_of(field).num_answers(field)
    if num_answers is None:
        return None
    if cache.manifest.request.data.problem == "multilabel":
        return AnswersOfFlags(name, num_answers)
    return AnswersOfClasses(name, num_answers) if num_answers > 1 else AnswersOfScores(name, cache.num_rows)


def _labels(inputs: Arrays, num_rows: int) -> "NDArray[np.generic]":
    """Labels of a shard's rows, or tags of its words; of a cache without any, none of each."""
    labels: NDArray[np.generic] | None = inputs.get("tags", inputs.get("labels"))
    return np.full(num_rows, NO_CLASS) if labels is None else labels
