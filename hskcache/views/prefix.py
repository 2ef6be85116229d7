"""First values of encoded embeddings, as far as torch tells."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.store.fields import EmbeddingField

_LEAST_LENGTH = 1e-12
"""As a vector that is divided by its length has it at least, see ``torch.nn.functional.normalize``."""


def prefix(source: EmbeddingField, field: EmbeddingField, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of the first values, divided by their length where the field's vectors have length 1.

    Args:
        source: how the arrays are stored.
        field: the same with fewer values.
        arrays: the parts of the encoding, by name.
    """
    encoding, names = get_encoding(source.encoding), ENCODED[source.encoding].of(source.num_dims)
    encoded = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in names}
    places_RW = torch.arange(field.num_dims).expand(len(arrays["values"]), -1)
    kept = encoding.take(encoded, places_RW)
    if field.is_normalized:
        values_RW = encoding.decode(kept, field.num_dims)
        lengths_R = torch.linalg.vector_norm(values_RW, dim=-1).clamp(min=_LEAST_LENGTH)
        if "scales" in kept:
            kept = {**kept, "scales": kept["scales"] / lengths_R}
        else:
            kept = encoding.encode(values_RW / lengths_R[:, None])
    return {name: part.contiguous().numpy().copy() for name, part in kept.items()}
