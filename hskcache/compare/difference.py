"""Difference between two caches: in what was asked for, in the fields, in the rows, and in the values stored of them.

Shards are compared by their digests; only what these do not tell is read, a shard of each cache at a time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Key
from pydantic import computed_field

from hskcache.cache import Cache
from hskcache.classes import has_gold
from hskcache.compare.matched import Flags, Matched
from hskcache.difference import differences
from hskcache.rows import Arrays, Integers
from hskcache.store.fields import INPUTS
from hskcache.strict import Strict

_MOST_RANGES = 10


class Change(Strict):
    """A key of what two caches were asked for with, or of what they store, that has two values.

    ``key``: its path, such as ``spec.hidden.encoding``. ``here``: its value in the first cache; None where it has none.
    ``there``: its value in the second.
    """

    key: str
    here: Any
    there: Any


class MatchedRows(Strict):
    """The rows of two caches, matched by their numbers in the data set.

    Attributes:
        here, there: how many each has.
        common: how many both have.
        start: number in the data set of the first common row.
        other_tokens: common rows whose tokens differ, as ranges [start, stop) of those numbers: the first ten.
        num_other_tokens: how many these are.
        num_other_labels: common rows whose labels differ.
    """

    here: int
    there: int
    common: int
    start: int
    other_tokens: list[tuple[int, int]]
    num_other_tokens: int
    num_other_labels: int


class SameShards(Strict):
    """Rows of a field that are the same, byte for byte, in both caches.

    ``ranges``: of rows [start, stop) in the data set: neighbouring shards of the same digests together.
    """

    field: str
    ranges: list[tuple[int, int]]
    num_rows: int


class Values(Strict):
    """One layer of a field that both caches have, over common rows of the same tokens whose shards differ.

    Attributes:
        layer: teacher layer; None for logits.
        num_nonfinite: of these, NaN or infinite here or there; the differences leave them out.
        max_abs, mean_abs: largest and mean absolute difference.
        cosine: mean cosine of two vectors; None where all are zeros.
        kl: mean Kullback-Leibler divergence, in nats, of the softmax here from that there; None of what is no score.
        same_positions: share of the positions that both keep.
        same_entries: share of the columns, classes or keys that both store, of these positions.
    """

    field: str
    layer: int | None
    num_rows: int
    num_values: int
    num_nonfinite: int
    max_abs: float
    mean_abs: float
    cosine: float | None
    kl: float | None
    same_positions: float
    same_entries: float

    @property
    def same(self) -> bool:
        """True if there is no difference."""
        return self.max_abs == 0 and self.num_nonfinite == 0 and self.same_positions == self.same_entries == 1


class Difference(Strict):
    """Everything that differs between two caches.

    Attributes:
        changes: keys with two values, of what was asked for and of how fields are stored; where the ids are the same,
            nothing is looked for.
        fields_here, fields_there: fields that only the first or the second has.
        rows: None where the ids are the same.
        shards: by field that both have.
        values: by field and layer; None where values were not compared.
        same_request: whether all that decides the content was asked for alike; names do not.
    """

    ids: tuple[str, str]
    changes: list[Change] = Key(default=[])
    fields_here: list[str] = Key(default=[])
    fields_there: list[str] = Key(default=[])
    rows: MatchedRows | None = None
    shards: list[SameShards] = Key(default=[])
    values: list[Values] | None = Key(default=[])
    same_request: bool = True

    @computed_field  # type: ignore[prop-decorator]
    @property
    def same(self) -> bool:
        """True if the content is the same: the same bytes, or the same values in other bytes."""
        if self.ids[0] == self.ids[1]:
            return True
        if self.rows is None or self.values is None or self.fields_here or self.fields_there or not self.same_request:
            return False
        rows = self.rows
        whole = rows.here == rows.there == rows.common and not rows.num_other_tokens and not rows.num_other_labels
        stored_alike = not any(change.key.startswith(("fields.", "added.", "skipped.")) for change in self.changes)
        return whole and stored_alike and all(value.same for value in self.values)


def difference(
    here: Cache, there: Cache, with_values: bool = True, on_rows: Callable[[int], None] | None = None
) -> Difference:
    """Compare two caches. Raises DamageError if a file that had to be read is missing or altered.

    ``with_values``: whether stored values are decoded and compared, which needs torch; ``on_rows``: called with the
    number of common rows of each field that is done, see :func:`work_rows`.
    """
    ids = here.id, there.id
    if here.id == there.id:
        return Difference(ids=ids)
    report = on_rows or (lambda _rows: None)
    matched = Matched(here, there)
    same_tokens, num_other_labels = _compare_inputs(matched)
    report(matched.num_rows)
    return Difference(
        ids=ids,
        changes=_changes(matched),
        fields_here=[name for name in here.fields if name not in there.fields],
        fields_there=[name for name in there.fields if name not in here.fields],
        rows=_rows(matched, same_tokens, num_other_labels),
        shards=[_same_shards(matched, name) for name in matched.fields],
        values=_values(matched, same_tokens, report) if with_values else None,
        same_request=here.manifest.request_digest == there.manifest.request_digest,
    )


def work_rows(here: Cache, there: Cache, with_values: bool = True) -> int:
    """Sum of the counts that :func:`difference` reports."""
    if here.id == there.id:
        return 0
    matched = Matched(here, there)
    return matched.num_rows * (len(matched.fields) if with_values else 1)


def _changes(matched: Matched) -> list[Change]:
    """Keys that differ, names included; of fields that both have."""
    here, there = matched.here.manifest, matched.there.manifest
    changes = list(differences(here.request.model_dump(mode="json"), there.request.model_dump(mode="json")))
    both = [name for name in here.fields if name in there.fields]
    for section in ("fields", "added"):
        ours, theirs = (
            {
                name: value.model_dump(mode="json", exclude={"environment"})
                for name, value in getattr(manifest, section).items()
                if name in both
            }
            for manifest in (here, there)
        )
        changes += differences(ours, theirs, section)
    for name in both:
        changes += differences(*matched.skipped(name), f"skipped.{name}")
    return [Change(key=key, here=ours, there=theirs) for key, ours, theirs in changes]


def _compare_inputs(matched: Matched) -> tuple[Flags, int]:
    """Flags of the common rows that have the same tokens, and the number of other labels."""
    same = np.ones(matched.num_rows, np.bool_)
    num_other_labels = 0
    for segment, here, there in matched.pairs(INPUTS):
        same[segment.start : segment.stop] = _same_tokens(here, there)
        for name in {"labels", "tags"} & here.keys() & there.keys():
            ours, theirs = here[name], there[name]
            if len(ours) != len(theirs):
                # Of other words: none is the same.
                num_other_labels += max(len(ours), len(theirs))
                continue
            # A row or a word that has none here and there has the same.
            num_other_labels += int((_others(ours, theirs) & (has_gold(ours) | has_gold(theirs))).sum())
    return same, num_other_labels


def _others(ours: NDArray[Any], theirs: NDArray[Any]) -> Flags:
    """Flags of the labels that differ; all of them where one side has a value for each class and the other has not."""
    if ours.shape != theirs.shape:
        return np.ones(len(ours), np.bool_)
    flags: Flags = (ours != theirs).reshape(len(ours), -1).any(1)
    return flags


def _same_tokens(here: Arrays, there: Arrays) -> Flags:
    """Flags of the rows that have the same token ids and, where both store them, token types."""
    begin, others = here["row_offsets"], there["row_offsets"]
    same: Flags = np.diff(begin) == np.diff(others)
    lengths = np.where(same, np.diff(begin), 0)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    for name in {"input_ids", "token_type_ids"} & here.keys() & there.keys():
        unlike = here[name][begin[owners] + within] != there[name][others[owners] + within]
        same[owners[unlike]] = False
    return same


def _rows(matched: Matched, same_tokens: Flags, num_other_labels: int) -> MatchedRows:
    other = _ranges(np.flatnonzero(~same_tokens) + matched.start)
    return MatchedRows(
        here=matched.here.num_rows,
        there=matched.there.num_rows,
        common=matched.num_rows,
        start=matched.start,
        other_tokens=other[:_MOST_RANGES],
        num_other_tokens=int((~same_tokens).sum()),
        num_other_labels=num_other_labels,
    )


def _same_shards(matched: Matched, name: str) -> SameShards:
    rows = np.flatnonzero(matched.same_rows(name))
    return SameShards(field=name, ranges=_ranges(rows + matched.start), num_rows=len(rows))


def _ranges(rows: Integers) -> list[tuple[int, int]]:
    """Ascending numbers as ranges [start, stop)."""
    if not len(rows):
        return []
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def _values(matched: Matched, same_tokens: Flags, report: Callable[[int], None]) -> list[Values]:
    """The values of every field but the inputs; rows that one of the caches has left out are no part of it."""
    # Decoding needs torch, which reading does not.
    from hskcache.compare.values import distances

    values = []
    for name in matched.fields[1:]:
        counts = same_tokens & ~matched.same_rows(name)
        for skipped in matched.skipped(name):
            counts[skipped] = False
        for layer, distance, positions, entries in distances(matched, name, counts):
            values.append(
                Values(
                    field=name,
                    layer=layer,
                    num_rows=int(counts.sum()),
                    **distance.figures,
                    same_positions=positions.share,
                    same_entries=entries.share,
                )
            )
        report(matched.num_rows)
    return values
