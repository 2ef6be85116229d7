"""Embeddings as they are loaded: a vector a row."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.store.kinds.embedding import EmbeddingField
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds.abc import Decoder, LoadedKind, StoredTargets


@dataclass(frozen=True, eq=False)
class EmbeddingDecoder(Decoder):
    """Decode the vectors of one field; ``field``: how they are stored under its ``name``."""

    name: str
    field: EmbeddingField

    def decode(self, block: Block, cuts: Cuts) -> Sequence[Tensor]:
        """Vectors [B, W] float32 of each batch."""
        width, tensors = self.field.num_dims, block.tensors
        encoded = {part: tensors[f"{self.name}/{part}"] for part in ENCODED[self.field.encoding].of(width)}
        return cuts.split(get_encoding(self.field.encoding).decode(encoded, width))


class LoadedEmbedding(LoadedKind[EmbeddingField]):
    """[B, W] float32 in a batch."""

    def decoder(self, stored: StoredTargets) -> EmbeddingDecoder:
        """Decoder of one field."""
        return EmbeddingDecoder(stored.name, stored.field)
