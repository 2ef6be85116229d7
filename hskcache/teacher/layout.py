"""The shape of a cache, known before the teacher runs: shards, batches, kept positions and bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import column_bytes
from hskcache.selection.depth import kept_layers
from hskcache.selection.width import num_columns, uniform_columns
from hskcache.spec import Hidden, Spec
from hskcache.store.manifest import HiddenField, TeacherInfo
from hskcache.text import TokenizedRows

SHARD_BYTES = 64 << 20
MAX_SHARD_ROWS = 4096

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Rows, their sizes and where they go.

    Attributes:
        lengths_N: tokens of each row.
        kept_N: positions kept of each row, the same for every layer; zeros where no hidden states are kept.
        hidden: the hidden field as it will be stored, or None.
        shard_rows: rows of every shard but the last.
        row_bytes_N: bytes of each row before compression, by field.
    """

    lengths_N: Integers
    kept_N: Integers
    hidden: HiddenField | None
    shard_rows: int
    row_bytes_N: dict[str, Integers]

    @property
    def shards(self) -> list[tuple[int, int]]:
        """Row ranges [start, stop) of the shards."""
        total = len(self.lengths_N)
        return [(start, min(start + self.shard_rows, total)) for start in range(0, total, self.shard_rows)]

    @property
    def num_bytes(self) -> dict[str, int]:
        """Bytes of each field before compression."""
        return {field: int(sizes.sum()) for field, sizes in self.row_bytes_N.items()}

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


def eligible_counts(hidden: Hidden, rows: TokenizedRows, special_ids: frozenset[int]) -> Integers:
    """Positions of each row that may be kept: all, all but the special tokens after the first, or the first alone."""
    if hidden.length.score == "cls":
        return np.ones(len(rows.lengths), np.int64)
    if hidden.length.specials:
        return rows.lengths.astype(np.int64)
    special = np.isin(rows.input_ids, sorted(special_ids))
    special[rows.offsets[:-1]] = False
    before = np.concatenate([[0], np.cumsum(special)])
    counts: Integers = rows.lengths - (before[rows.offsets[1:]] - before[rows.offsets[:-1]])
    return counts


def hidden_field(hidden: Hidden, teacher: TeacherInfo) -> HiddenField:
    """How the hidden states of a teacher will be stored.

    Raises:
        SpecError: the layers asked for do not exist.
    """
    layers = sorted({pair.teacher for pair in kept_layers(hidden.depth, teacher.num_layers)})
    width, scheme = teacher.width, hidden.width
    if scheme.scheme == "all" or scheme.fraction == 1.0:
        kept, columns = width, "all"
    elif scheme.scheme == "uniform":
        kept, columns = len(uniform_columns(width, scheme.fraction)), "shared"
    else:
        kept = num_columns(width, scheme.fraction)
        columns = {"random": "shared", "pca": "pca"}.get(scheme.scheme, "")
        if scheme.scheme == "magnitude":
            columns = "bitmask" if column_bytes(kept, width)[0] == "bitmask" else "indices"
    return HiddenField.model_validate(
        {
            "kind": "hidden",
            "width": width,
            "num_columns": kept,
            "columns": columns,
            "encoding": hidden.encoding,
            "layers": layers,
            "max_tokens": hidden.length.tokens,
        }
    )


def position_bytes(field: HiddenField) -> int:
    """Bytes of one kept position of one layer before compression: values, scales, columns and the position itself."""
    parts = get_encoding(field.encoding).parts(field.num_columns).values()
    encoded = sum(int(np.prod(part.shape, dtype=np.int64)) * np.dtype(part.dtype).itemsize for part in parts)
    columns = column_bytes(field.num_columns, field.width)[1] if field.columns in {"bitmask", "indices"} else 0
    return encoded + columns + 2


def plan(spec: Spec, teacher: TeacherInfo, num_labels: int, rows: TokenizedRows, special_ids: frozenset[int]) -> Layout:
    """Work out every shape of the cache from the tokenized rows.

    Raises:
        SpecError: the layers asked for do not exist.
    """
    lengths = rows.lengths.astype(np.int64)
    sizes = {"inputs": lengths * (3 if rows.token_type_ids is not None else 2) + 24}
    sizes["logits"] = np.full(len(lengths), 4 * num_labels, np.int64)
    field, kept = None, np.zeros(len(lengths), np.int64)
    if spec.hidden is not None:
        field = hidden_field(spec.hidden, teacher)
        kept = eligible_counts(spec.hidden, rows, special_ids)
        if spec.hidden.length.tokens is not None:
            kept = np.minimum(kept, spec.hidden.length.tokens)
        sizes["hidden"] = kept * position_bytes(field) * len(field.layers) + 8
    largest = max(float(size.mean()) for size in sizes.values())
    automatic = int(np.clip(SHARD_BYTES // max(largest, 1.0), 64, MAX_SHARD_ROWS))
    return Layout(lengths, kept, field, spec.shard_rows or automatic, sizes)
