"""Embeddings of fewer values than the teacher's: along the principal directions of its vectors.

Of all linear maps to so many values the one to the principal directions keeps the products between the vectors best, in
squares over all pairs of them ["The approximation of one matrix by another of lower rank", Eckart and Young, 1936]; so
a student of any width can give vectors that are compared as the teacher's are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hskcache.cache import Cache
from hskcache.errors import SpecError
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.kinds.embedding import EmbeddingField, Embeddings
from trainer.batch import Batch
from trainer.loading.loader import first_shards
from trainer.loading.ordered import Ordered
from trainer.recipe import Losses
from trainer.source.source import Slice, Source

_KIND = Embeddings.name
_MOST_ROWS = 100_000
"""Rows that directions are taken from, at least; of a cache that has more, shards at equal distances."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Orthonormal directions of a teacher's vectors, those of the largest squares first.

    Attributes:
        basis_VN: float32, the directions as columns.
        share: of the squares of the vectors along them.
    """

    basis_VN: Tensor
    share: float


def principal_directions(cache: Cache, name: str, num_dims: int, num_rows: int | None = None) -> Directions:
    """The directions along which the vectors of a field have the largest squares, none of them centred.

    Args:
        cache: that holds them.
        name: of the field.
        num_dims: N.
        num_rows: of the cache, the first ones; None: all.

    Raises:
        DamageError: a file is missing or altered.
    """
    moment_VV: NDArray[np.float64] | float = 0.0
    for vectors_RV in _parts(cache, name, num_rows):
        moment_VV = moment_VV + vectors_RV.T @ vectors_RV
    squares_V, basis_VV = np.linalg.eigh(moment_VV)
    kept_VN = basis_VV[:, ::-1][:, :num_dims]
    # The sign of a direction is any.
    kept_VN = kept_VN * np.sign(kept_VN[np.abs(kept_VN).argmax(0), np.arange(num_dims)])
    basis_VN = torch.from_numpy(np.ascontiguousarray(kept_VN, dtype=np.float32))
    return Directions(basis_VN, float(squares_V[::-1][:num_dims].sum() / squares_V.sum()))


def _parts(cache: Cache, name: str, num_rows: int | None) -> Iterator[NDArray[np.float64]]:
    """Vectors of shards, float64 [R, V]."""
    shards = first_shards(cache, num_rows)
    for start, stop in shards[:: max(1, shards[-1][1] // _MOST_ROWS)]:
        yield np.asarray(cache.column(name, range(start, stop)), np.float64)


def reduced_source(source: Source, directions: Directions) -> Source:
    """The same with the embeddings along some directions, divided by their length where they had length 1."""
    field = source.knowledge.fields[_KIND]
    assert isinstance(field, EmbeddingField)
    num_dims = directions.basis_VN.shape[1]
    fewer = field.model_copy(update={"num_dims": num_dims, "num_encoded": None})

    def reduced(batch: Batch) -> Batch:
        target_BV = batch.targets.get(_KIND)
        if target_BV is None:
            return batch
        led_BN = target_BV @ directions.basis_VN.to(target_BV.device)
        targets = {**batch.targets, _KIND: F.normalize(led_BN, dim=-1) if field.is_normalized else led_BN}
        return replace(batch, targets=targets)

    def loader(losses: Losses, part: Slice, seed: int) -> Ordered[Any, Batch]:
        made = source.loader(losses, part, seed)
        made.changed = reduced
        return made

    knowledge = replace(source.knowledge, fields={**source.knowledge.fields, _KIND: fewer})
    identity = sha256_hex(canonical_json([source.identity, "student_dims", num_dims]))
    return replace(source, knowledge=knowledge, loader=loader, identity=identity)


def check_dims(num_dims: int, field: EmbeddingField | None, where: str) -> None:
    """Raise SpecError unless a student can give so many values of a teacher's embeddings."""
    if field is None:
        raise SpecError(
            f"--student-dims {num_dims} is of students that give embeddings, and the recipe makes none of {where}: it "
            "learns no embedding, or answers the task of the rows; leave it out"
        )
    if num_dims > field.num_dims:
        raise SpecError(
            f"--student-dims {num_dims}: the embeddings of {where} have {field.num_dims} values; give at most so many"
        )
