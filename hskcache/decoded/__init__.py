"""Stored values of some rows as vectors of floats, whatever their kind: one file a kind, and the table of them."""

from typing import Any

from hskcache.decoded.abc import DecodedKind, Dense, LayerRows, Stored, Vectors
from hskcache.decoded.attention import DecodedAttention
from hskcache.decoded.distance import Distance, Same
from hskcache.decoded.embedding import DecodedEmbedding
from hskcache.decoded.hidden import DecodedHidden
from hskcache.decoded.logits import DecodedLogits
from hskcache.decoded.vocabulary import DecodedVocabulary
from hskcache.errors import MismatchError
from hskcache.store.fields import OFFSETS, StoredField, knowledge, layer_name
from hskcache.table import Table

__all__ = [
    "DECODED",
    "DecodedKind",
    "Dense",
    "Distance",
    "Same",
    "Stored",
    "Vectors",
    "decode",
    "dense",
    "layers_of",
    "reconstructed",
]

DECODED: Table[DecodedKind[Any]] = Table(
    "a kind that is decoded",
    {
        "logits": DecodedLogits(),
        "hidden": DecodedHidden(),
        "attention": DecodedAttention(),
        "embedding": DecodedEmbedding(),
        "vocabulary": DecodedVocabulary(),
    },
)
"""Decoders by the name of the kind; the inputs are tokens and no vectors."""


def layers_of(field: StoredField) -> list[int | None]:
    """The layers of a field; of a kind without any the one that has no number."""
    return list(field.stored_layers) or [None]


def decode(field: StoredField, arrays: Stored, layer: int | None, constants: Stored) -> Vectors:
    """The vectors of one layer of some rows, on the host.

    Args:
        field: how they are stored.
        arrays: of the rows, as a shard holds them.
        layer: teacher layer; None for logits.
        constants: what all rows of the field share.

    Raises:
        MismatchError: the field holds no vectors but tokens.
    """
    if field.kind not in knowledge():
        raise MismatchError("inputs are tokens and not knowledge of a teacher; give another field")
    return DECODED[field.kind].vectors(field, _part(arrays, layer, constants))


def dense(field: StoredField, arrays: Stored, layer: int | None, constants: Stored) -> Dense:
    """The values of one layer of some rows in the teacher's own columns; arguments as of :func:`decode`."""
    return DECODED[field.kind].dense(field, _part(arrays, layer, constants))


def reconstructed(field: StoredField, vectors: Vectors, layer: int | None, constants: Stored) -> Vectors:
    """Vectors whose coordinates along principal components have become hidden columns again; others as they are."""
    return DECODED[field.kind].reconstructed(field, vectors, _part({}, layer, constants))


def _part(arrays: Stored, layer: int | None, constants: Stored) -> LayerRows:
    if layer is None:
        return LayerRows(arrays, constants)
    prefix = f"{layer_name(layer)}/"
    inside, shared = (
        {name.removeprefix(prefix): array for name, array in side.items() if name.startswith(prefix)}
        for side in (arrays, constants)
    )
    return LayerRows({name: arrays[name] for name in OFFSETS & arrays.keys()} | inside, shared)
