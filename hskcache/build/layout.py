"""The shape of a cache, known before the teacher runs: shards, batches, kept positions and bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hskcache.build.kinds import BUILT
from hskcache.build.kinds.abc import ARRAY_BYTES, FieldBasis, Size
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.spec import Spec
from hskcache.store.fields import INPUTS, StoredField
from hskcache.store.grid import MAX_SHARD_BYTES
from hskcache.store.manifest import TeacherInfo
from hskcache.text import TokenizedRows

SHARD_BYTES = 64 << 20
MIN_SHARD_ROWS = 16
MAX_SHARD_ROWS = 4096

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShardLayout:
    """Rows, their sizes and where they go.

    Attributes:
        lengths_N: tokens of each row.
        fields: what the teacher is run for, by kind, as it will be stored.
        sizes: what each field takes, the inputs among them.
        shard_rows: rows of every shard but the last.
    """

    lengths_N: Integers
    fields: Mapping[str, StoredField]
    sizes: Mapping[str, Size]
    shard_rows: int

    @property
    def kept_N(self) -> dict[str, Integers]:
        """Number of positions kept of each row, by field that keeps any, the same for every layer."""
        return {name: size.kept_N for name, size in self.sizes.items() if size.kept_N is not None}

    @cached_property
    def shards(self) -> list[tuple[int, int]]:
        """Row ranges [start, stop) of the shards."""
        total = len(self.lengths_N)
        return [(start, min(start + self.shard_rows, total)) for start in range(0, total, self.shard_rows)]

    def most_bytes(self, field: str, start: int, stop: int) -> int:
        """Most bytes of a shard on disk: compression only makes it smaller."""
        size = self.sizes[field]
        # The last entry of the offsets belongs to no row.
        return int(size.row_bytes_N[start:stop].sum()) + 8 + size.num_arrays * ARRAY_BYTES

    @property
    def num_bytes(self) -> dict[str, int]:
        """Most bytes of each field on disk."""
        return {
            field: sum(self.most_bytes(field, start, stop) for start, stop in self.shards) + size.constant_bytes
            for field, size in self.sizes.items()
        }


@dataclass(frozen=True, eq=False)
class BesideTokens:
    """Sizes of what is stored of rows beside their tokens.

    Attributes:
        row_bytes: of each row, or of every row: its id, label and offset take 8 bytes each.
        num_arrays: of the inputs, tokens and their types among them.
    """

    row_bytes: Integers | int = 24
    num_arrays: int = 5

    def with_more(self, row_bytes: Integers | int, num_arrays: int) -> "BesideTokens":
        """Sizes with those of more arrays."""
        return BesideTokens(self.row_bytes + row_bytes, self.num_arrays + num_arrays)


ONLY_TOKENS = BesideTokens()


def plan(
    spec: Spec,
    teacher: TeacherInfo,
    num_labels: int | None,
    rows: TokenizedRows,
    beside: BesideTokens = ONLY_TOKENS,
) -> ShardLayout:
    """Work out every shape of the cache from the tokenized rows.

    Args:
        spec: what to keep.
        teacher: its sizes.
        num_labels: width C of the logits; None where there are none.
        rows: tokens.
        beside: what is stored of rows beside their tokens.

    Raises:
        SpecError: the layers or heads asked for do not exist, or a shard would be larger than readers accept.
    """
    lengths = rows.lengths.astype(np.int64)
    token_arrays = [one for one in (rows.token_type_ids, rows.targets) if one is not None]
    token_bytes = np.dtype(id_dtype(teacher.vocab_size)).itemsize + len(token_arrays)
    if rows.documents is not None:
        # The number of a row's document, and the targets.
        beside = beside.with_more(8, 2)
    sizes = {INPUTS: Size(lengths * token_bytes + beside.row_bytes, num_arrays=beside.num_arrays)}
    if rows.words is not None:
        # A word's place and tag take 10 bytes.
        word_bytes = 10 * rows.words.counts + 8
        sizes[INPUTS] = Size(sizes[INPUTS].row_bytes_N + word_bytes, num_arrays=beside.num_arrays + 2)
    fields: dict[str, StoredField] = {}
    for kind, built in BUILT.items():
        if (field := built.field(FieldBasis(spec, teacher, num_labels, rows.words is not None))) is not None:
            fields[kind], sizes[kind] = field, built.size(field, spec, rows)
    layout = ShardLayout(lengths, fields, sizes, spec.shard_rows or _shard_rows(sizes))
    name, largest = max(
        ((name, layout.most_bytes(name, *shard)) for name in sizes for shard in layout.shards), key=lambda item: item[1]
    )
    if largest > MAX_SHARD_BYTES:
        raise SpecError(
            f"{counted(layout.shard_rows, 'row')} make a shard of {name} of {largest / 1e9:.1f} GB and readers accept "
            f"{MAX_SHARD_BYTES / 1e9:.1f} GB; give fewer --shard-rows, or leave them out"
        )
    return layout


def id_dtype(vocab_size: int) -> Literal["uint16", "int32"]:
    """The type in which token ids are stored."""
    return "uint16" if vocab_size <= 1 << 16 else "int32"


def _shard_rows(sizes: Mapping[str, Size]) -> int:
    largest = max(float(size.row_bytes_N.mean()) for size in sizes.values())
    return int(np.clip(SHARD_BYTES // max(largest, 1.0), MIN_SHARD_ROWS, MAX_SHARD_ROWS))
