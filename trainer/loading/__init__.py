"""Stream a cache as batches: seeded order, three residencies, decode on the device. A plain PyTorch iterable."""

from trainer.loading.loader import KnowledgeLoader
from trainer.loading.tokens import TokenBatch, TokenLoader

__all__ = ["KnowledgeLoader", "TokenBatch", "TokenLoader"]
