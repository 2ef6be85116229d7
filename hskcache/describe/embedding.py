"""Description of embeddings."""

from typing import Any

from hskcache.counted import counted
from hskcache.describe.abc import Description
from hskcache.store.kinds.embedding import EmbeddingField


class DescribedEmbedding(Description[EmbeddingField]):
    """A vector a row."""

    holds = "embeddings"
    key = "embedding"

    def told(self, field: EmbeddingField) -> str:
        """Pooling, size and encoding."""
        size = f"{field.num_dims} of {field.width}" if field.num_dims < field.width else f"{field.width}"
        length = ", of length 1" if field.is_normalized else ""
        of = "" if field.num_encoded is None else f" of vectors of {field.num_encoded}"
        return f"{field.pooling} of the last states; {size} values{length}; {field.encoding}{of}"

    def shown(self, stored: Any) -> dict[str, int]:
        """Number of stored entries of each part."""
        return {} if stored is None else {name: int(array.size) for name, array in stored.items()}

    def line(self, shown: Any, label_names: list[str]) -> str | None:
        """Size of the vector."""
        return f"embedding of {counted(shown['values'], 'stored value')}" if shown else None
