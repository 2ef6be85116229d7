"""The shape of a cache, known before the teacher runs: shards, batches, kept positions and bytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hskcache.encoded import ENCODED, column_bytes
from hskcache.errors import SpecError
from hskcache.resolved import attention_field, hidden_field
from hskcache.spec import Length, Spec
from hskcache.store.fields import entry_counts, layer_name
from hskcache.store.manifest import AttentionField, HiddenField, TeacherInfo
from hskcache.store.shard import MAX_SHARD_BYTES
from hskcache.text import TokenizedRows

SHARD_BYTES = 64 << 20
MIN_SHARD_ROWS = 16
MAX_SHARD_ROWS = 4096

_ARRAY_BYTES = 2048
"""More than the documents, headers and checksums of one array take in a shard."""

_BLOCK_ROWS = 1 << 14

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows, their sizes and where they go.

    Attributes:
        lengths_N: tokens of each row.
        kept_N: by field, positions kept of each row, the same for every layer.
        hidden: the hidden field as it will be stored, or None.
        attention: the attention field as it will be stored, or None.
        shard_rows: rows of every shard but the last.
        row_bytes_N: bytes of each row before compression, by field.
        constant_bytes: bytes of what all rows of the hidden field share.
    """

    lengths_N: Integers
    kept_N: dict[str, Integers]
    hidden: HiddenField | None
    attention: AttentionField | None
    shard_rows: int
    row_bytes_N: dict[str, Integers]
    constant_bytes: int

    @property
    def shards(self) -> list[tuple[int, int]]:
        """Row ranges [start, stop) of the shards."""
        total = len(self.lengths_N)
        return [(start, min(start + self.shard_rows, total)) for start in range(0, total, self.shard_rows)]

    def most_bytes(self, field: str, start: int, stop: int) -> int:
        """What a shard takes on disk at most: compression only makes it smaller."""
        kept = {"hidden": self.hidden, "attention": self.attention}.get(field)
        num_arrays = {"inputs": 5, "logits": 1}[field] if kept is None else 1 + 4 * len(kept.layers)
        # The last entry of the offsets belongs to no row.
        return int(self.row_bytes_N[field][start:stop].sum()) + 8 + num_arrays * _ARRAY_BYTES

    @property
    def num_bytes(self) -> dict[str, int]:
        """What each field takes on disk at most."""
        sizes = {
            field: sum(self.most_bytes(field, start, stop) for start, stop in self.shards) for field in self.row_bytes_N
        }
        if "hidden" in sizes:
            sizes["hidden"] += self.constant_bytes
        return sizes

    def batches(self, start: int, stop: int, token_budget: int) -> Iterator[Integers]:
        """Rows of a shard in batches of similar length, each at most ``token_budget`` padded tokens.

        The grouping depends on the shard alone, so a shard's bytes do not depend on where a build was interrupted.
        """
        order = start + np.argsort(-self.lengths_N[start:stop], kind="stable")
        first = 0
        while first < len(order):
            size = max(1, token_budget // int(self.lengths_N[order[first]]))
            yield order[first : first + size]
            first += size


def plan(spec: Spec, teacher: TeacherInfo, num_labels: int | None, rows: TokenizedRows) -> Layout:
    """Work out every shape of the cache from the tokenized rows.

    Args:
        spec: what to keep.
        teacher: its sizes.
        num_labels: width C of the logits; None where there are none.
        rows: tokens.

    Raises:
        SpecError: the layers or heads asked for do not exist, or a shard would be larger than readers accept.
    """
    lengths = rows.lengths.astype(np.int64)
    token_bytes = np.dtype(id_dtype(teacher.vocab_size)).itemsize + (rows.token_type_ids is not None)
    # A row's id, label and offset take 8 bytes each.
    sizes = {"inputs": lengths * token_bytes + 24}
    if num_labels is not None:
        sizes["logits"] = np.full(len(lengths), 4 * num_labels, np.int64)
    hidden = attention = None
    kept: dict[str, Integers] = {}
    if spec.hidden is not None:
        hidden = hidden_field(spec.hidden, teacher)
        kept["hidden"] = kept_counts(spec.hidden.length, rows)
        sizes["hidden"] = kept["hidden"] * position_bytes(hidden) * len(hidden.layers) + 8
    if spec.attention is not None:
        attention = attention_field(spec.attention, teacher)
        kept["attention"] = kept_counts(spec.attention.length, rows)
        sizes["attention"] = attention_bytes(attention, kept["attention"]) + 8
    constant_bytes = 0 if hidden is None else _constant_bytes(hidden)
    layout = Layout(lengths, kept, hidden, attention, spec.shard_rows or _shard_rows(sizes), sizes, constant_bytes)
    name, largest = max(
        ((name, layout.most_bytes(name, *shard)) for name in sizes for shard in layout.shards), key=lambda item: item[1]
    )
    if largest > MAX_SHARD_BYTES:
        raise SpecError(
            f"{layout.shard_rows} rows make a shard of {name} of {largest / 1e9:.1f} GB and readers accept "
            f"{MAX_SHARD_BYTES / 1e9:.1f} GB; give fewer --shard-rows, or leave them out"
        )
    return layout


def id_dtype(vocab_size: int) -> Literal["uint16", "int32"]:
    """The type in which token ids are stored."""
    return "uint16" if vocab_size <= 1 << 16 else "int32"


def kept_counts(length: Length, rows: TokenizedRows) -> Integers:
    """Positions kept of each row, int64 [N]: of those that may be kept, at most as many as asked for."""
    counts = eligible_counts(length, rows)
    return counts if length.tokens is None else np.minimum(counts, min(length.tokens, int(rows.lengths.max())))


def eligible_counts(length: Length, rows: TokenizedRows) -> Integers:
    """Positions of each row that may be kept: all, all but the special tokens after the first, or the first alone."""
    if length.score == "cls":
        return np.ones(len(rows), np.int64)
    counts = rows.lengths.astype(np.int64)
    if length.specials:
        return counts
    special = np.array(sorted(rows.special_ids), dtype=rows.input_ids.dtype)
    # Some rows at a time: those of a corpus do not fit into memory.
    for first in range(0, len(rows), _BLOCK_ROWS):
        offsets = rows.offsets[first : first + _BLOCK_ROWS + 1]
        is_special = np.isin(rows.input_ids[offsets[0] : offsets[-1]], special)
        is_special[offsets[:-1] - offsets[0]] = False
        before = np.concatenate([[0], np.cumsum(is_special)])
        counts[first : first + _BLOCK_ROWS] -= np.diff(before[offsets - offsets[0]])
    return counts


def attention_bytes(field: AttentionField, kept_N: Integers) -> Integers:
    """Bytes of each row before compression, all layers together: positions, scales and scores."""
    sizes = 2 * kept_N
    for name, part in ENCODED[field.encoding].of(1).items():
        array = f"{layer_name(field.layers[0])}/{name}"
        sizes = sizes + np.dtype(part.dtype).itemsize * entry_counts(field, array, kept_N)
    return len(field.layers) * sizes


def position_bytes(field: HiddenField) -> int:
    """Bytes of one kept position of one layer before compression: values, scales, columns and the position itself."""
    columns = column_bytes(field.num_columns, field.width)[1] if field.columns in {"bitmask", "indices"} else 0
    return ENCODED[field.encoding].num_bytes(field.num_columns) + columns + 2


def _constant_bytes(field: HiddenField) -> int:
    per_layer = {"shared": 2 * field.num_columns, "pca": 4 * field.width * (field.num_columns + 1)}
    if field.columns not in per_layer:
        return 0
    return len(field.layers) * (per_layer[field.columns] + 2 * _ARRAY_BYTES)


def _shard_rows(row_bytes_N: dict[str, Integers]) -> int:
    largest = max(float(size.mean()) for size in row_bytes_N.values())
    return int(np.clip(SHARD_BYTES // max(largest, 1.0), MIN_SHARD_ROWS, MAX_SHARD_ROWS))
