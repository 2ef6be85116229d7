"""A kind of knowledge that hskcache does not have: the last state of a row's first token, in float16.

An object for each room's table, as a new kind would bring one file for each room.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Key
from torch import Tensor
from torch.nn import functional as F

from hskcache.audit.kinds import AUDITED
from hskcache.audit.kinds.abc import AuditedKind, Fresh, TeacherVectors
from hskcache.build.kinds import BUILT
from hskcache.build.kinds.abc import BuiltKind, Encoded, FieldBasis, Size
from hskcache.build.positions import PaddedRows
from hskcache.decoded import DECODED, DecodedKind, Vectors
from hskcache.decoded.abc import LayerRows, Stored, each, tensor_of
from hskcache.describe import DESCRIPTIONS, Description
from hskcache.spec import SECTIONS, Kept, Spec
from hskcache.store.fields import KINDS, StoredField
from hskcache.store.kinds.abc import Array, Kind, Meaning
from hskcache.store.request import Request
from hskcache.teacher.capture import Captured, Wanted
from hskcache.text import TokenizedRows
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds import LOADED, LoadedKind
from trainer.loading.kinds.abc import Decoder
from trainer.losses import LOSSES
from trainer.losses.abc import LossTerm, Seen, present
from trainer.recipe import TERMS, Term
from trainer.source.live_kinds import LIVE, LiveTarget

NAME = "pooled"


class PooledKept(Kept):
    """Key of the spec; there is nothing to choose."""


class PooledField(StoredField):
    kind: Literal["pooled"] = "pooled"
    width: int = Key(ge=1)
    encoding: Literal["float16"] = "float16"


class Pooled(Kind[PooledField]):
    name = NAME
    words = "pooled states"
    field = PooledField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        (NAME, 2): Meaning(("row", "column"), "last state of the first token")
    }

    def arrays(self, field: PooledField) -> dict[str, Array]:
        return {NAME: Array((field.width,), ("float16",))}

    def value_parts(self, field: PooledField) -> Collection[str]:
        return {NAME}

    def of_row(self, field: PooledField, arrays: dict[str, NDArray[Any]]) -> Any:
        return arrays[NAME]

    def kept(self, spec: Spec) -> None:
        return None

    def is_asked(self, request: Request) -> bool:
        return request.spec.sections.get(NAME) is not None


class PooledSelector:
    name = NAME

    def __init__(self, field: PooledField, layer: int) -> None:
        self.field, self.layer = field, layer

    @property
    def wanted(self) -> Wanted:
        return Wanted(hidden=frozenset({self.layer}))

    def select(self, captured: Captured, rows: PaddedRows) -> dict[None, Tensor]:
        return {None: captured.hidden[self.layer][:, 0].float()}

    def encode(self, kept: Tensor, rows: PaddedRows) -> Encoded:
        stored = kept.half()
        return Encoded({NAME: stored}, (~torch.isfinite(stored)).sum(-1, dtype=torch.int32))


class BuiltPooled(BuiltKind[PooledField]):
    def field(self, asked: FieldBasis) -> PooledField | None:
        return None if asked.spec.sections.get(NAME) is None else PooledField(width=asked.teacher.width)

    def size(self, field: PooledField, spec: Spec, rows: TokenizedRows) -> Size:
        return Size(np.full(len(rows), 2 * field.width, np.int64), num_arrays=1)

    def selector(self, job: Any, field: PooledField, constants: Mapping[str, NDArray[Any]]) -> PooledSelector:
        return PooledSelector(field, job.teacher.info.num_layers)


class DescribedPooled(Description[PooledField]):
    holds = "last states of the first token"
    key = NAME

    def told(self, field: PooledField) -> str:
        return f"{field.width} {field.encoding}"

    def shown(self, stored: Any) -> list[float]:
        return [] if stored is None else [float(value) for value in stored]

    def line(self, shown: Any, label_names: list[str]) -> str | None:
        return f"{len(shown)} pooled values" if shown else None


class DecodedPooled(DecodedKind[PooledField]):
    def vectors(self, field: PooledField, part: LayerRows) -> Vectors:
        values = tensor_of(part.arrays[NAME]).float()
        zeros = torch.zeros(len(values), dtype=torch.int64)
        return Vectors(torch.arange(len(values)), zeros, zeros, values, each(values))

    def num_values(self, field: PooledField, arrays: Stored) -> NDArray[np.int64]:
        return np.full(len(arrays[NAME]), field.width)


class AuditedPooled(AuditedKind[PooledField]):
    def table(self, field: PooledField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        entries = fresh.selector.select(fresh.batch.captured, fresh.batch.rows)[None].cpu()[vectors.rows_V]
        return TeacherVectors(entries, entries.abs().amax(-1))


class PooledDecoder(Decoder):
    def __init__(self, name: str) -> None:
        self.name = name

    def decode(self, block: Block, cuts: Cuts) -> Sequence[Tensor]:
        return cuts.split(block.tensors[f"{self.name}/{NAME}"].float())


class LoadedPooled(LoadedKind[PooledField]):
    def decoder(self, stored: Any) -> PooledDecoder:
        return PooledDecoder(stored.name)


class PooledTerm(Term):
    kind = NAME


class PooledLoss(LossTerm[PooledTerm]):
    sees_states = True

    def loss(self, settings: PooledTerm, seen: Seen) -> Tensor:
        target = present(seen.batch.targets.get(NAME), "pooled states")
        ours = seen.output.hidden_states[-1][:, 0].float()
        return F.mse_loss(ours, target, reduction="sum") / (seen.batch.num_rows * target.shape[1])


ENTRIES: tuple[tuple[dict[str, Any], Any], ...] = (
    (SECTIONS, PooledKept),
    (KINDS, Pooled()),
    (BUILT, BuiltPooled()),
    (DESCRIPTIONS, DescribedPooled()),
    (DECODED, DecodedPooled()),
    (AUDITED, AuditedPooled()),
    (LOADED, LoadedPooled()),
    (TERMS, PooledTerm),
    (LOSSES, PooledLoss()),
    (LIVE, lambda kept: LiveTarget(kept.entries.clone(), kept.entries)),
)


@contextmanager
def registered() -> Iterator[None]:
    """The kind stands in the table of every room."""
    for table, entry in ENTRIES:
        table[NAME] = entry
    try:
        yield
    finally:
        for table, _ in ENTRIES:
            del table[NAME]
