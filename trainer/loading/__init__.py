"""Stream a cache as batches: seeded order, three residencies, decode on the device. A plain PyTorch iterable."""

from trainer.loading.loader import KnowledgeLoader

__all__ = ["KnowledgeLoader"]
