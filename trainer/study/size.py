"""Bytes a row of the knowledge that a point learns from, as it is encoded, before compression."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.cache import Cache
from hskcache.spec import Kept, Vocabulary
from hskcache.store.fields import KINDS, OFFSETS, kind_of
from hskcache.store.kinds.abc import AXES, ROW, layer_name
from trainer.loading.choice import parse_choice, resolved
from trainer.study.points import Point


@dataclass(frozen=True)
class KnowledgeSizes:
    """KnowledgeSizes of what points learn from a cache.

    Attributes:
        cache: that they learn from.
        counts: entries of each row by field and offsets, as far as they were read, int64 [N].
        known: sizes of points, as far as they were asked for.
    """

    cache: Cache
    counts: dict[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)
    known: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def bytes_per_row(self, point: Point) -> float:
        """Bytes of the fields that the point's recipe learns from, of one of its rows on average; 0 of labels alone.

        Raises:
            CacheError: the cache cannot serve the point.
        """
        key = (point.view, point.fields, point.recipe.kinds, point.num_rows)
        if key not in self.known:
            seen = self.cache.view(point.view)
            chosen = resolved(seen, parse_choice(seen, point.fields))
            names = [name for kind in KINDS if kind in point.recipe.kinds for name in chosen.of(kind)]
            num_rows = point.num_rows or seen.num_rows
            self.known[key] = sum(self._field_bytes(seen, name, num_rows) for name in names) / num_rows
        return self.known[key]

    def encoding(self, point: Point) -> str | None:
        """Encoding of the hidden states that the point learns from; None without any."""
        seen = self.cache.view(point.view)
        chosen = resolved(seen, parse_choice(seen, point.fields))
        names = chosen.of("hidden") if "hidden" in point.recipe.kinds else ()
        return getattr(seen.fields[names[0]], "encoding", None) if names else None

    def _field_bytes(self, seen: Cache, name: str, num_rows: int) -> int:
        """Bytes of the first rows of a field of a view."""
        stored = seen.fields[name]
        kind, total = kind_of(stored), 0
        # Of the layers that are stored a student learns from those of its map.
        pairs = kind.pairs(seen.manifest.request_for(name))
        groups = {layer_name(pair.teacher) for pair in pairs}
        for array, form in kind.arrays(stored).items():
            group, is_of_layer, _ = array.partition("/")
            if pairs and is_of_layer and group not in groups:
                continue
            entry_bytes = int(np.prod(form.shape, dtype=np.int64)) * np.dtype(form.dtypes[0]).itemsize
            offsets = AXES[kind.axis(array)]
            if kind.axis(array) == ROW or offsets is None:
                total += entry_bytes * (num_rows + (array in OFFSETS))
                continue
            counts = self._counts(seen, name, offsets)[:num_rows]
            total += entry_bytes * int(kind.entries(stored, kind.axis(array), counts).sum())
        return total

    def _counts(self, seen: Cache, name: str, offsets: str) -> NDArray[np.int64]:
        """Entries of each row of a field of a view, int64 [N].

        They are read of the cache once: a view has of each row the first so many, or as many of its positions as it
        admits.
        """
        if self._admits_less(seen, name):
            return _read_counts(seen, name, offsets)
        if (name, offsets) not in self.counts:
            self.counts[name, offsets] = _read_counts(self.cache, name, offsets)
        most = getattr(seen.fields[name], "max_tokens", None)
        counts = self.counts[name, offsets]
        return counts if most is None else np.minimum(counts, most)

    def _admits_less(self, seen: Cache, name: str) -> bool:
        """True if a view has other positions of a row than the cache, not only fewer of them."""
        kept, stored = (
            one.manifest.request_for(name).spec.sections.get(seen.fields[name].kind) for one in (seen, self.cache)
        )
        if not isinstance(kept, Kept | Vocabulary) or not isinstance(stored, Kept | Vocabulary):
            return False
        # A share is of as many as there are in each row, of which fewer may be stored.
        return kept.length.share != stored.length.share or (kept.length.score, kept.length.specials) != (
            stored.length.score,
            stored.length.specials,
        )


def _read_counts(cache: Cache, name: str, offsets: str) -> NDArray[np.int64]:
    shards = (cache.read(name, shard, (offsets,))[offsets] for shard in range(len(cache.shards)))
    return np.concatenate([np.diff(one.astype(np.int64)) for one in shards])
