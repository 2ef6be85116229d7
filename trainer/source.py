"""Where the batches of a run come from: here a cache, in ``live`` a teacher in the loop."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hskcache.cache import open_cache
from trainer.gate import Knowledge, cached_knowledge
from trainer.loading import KnowledgeLoader
from trainer.loading.ordered import Ordered
from trainer.loading.residency import Residency
from trainer.recipe import Losses


@dataclass(frozen=True)
class Slice:
    """The part of every global batch that one forward pass of one process sees."""

    batch_size: int
    rank: int
    world_size: int
    accumulation: int
    device: str


@dataclass(frozen=True)
class Source:
    """What there is to learn from and how to load it.

    Attributes:
        knowledge: what there is.
        loader: makes the loader of a stage: for its losses, the slice of this process, and the seed of the order.
        tokenizer: folder or name of the tokenizer that made the rows.
        identity: digest of what the batches are made of.
    """

    knowledge: Knowledge
    loader: Callable[[Losses, Slice, int], Ordered[Any]]
    tokenizer: str
    identity: str


def fields_of(losses: Losses) -> tuple[str, ...]:
    """The fields that a stage learns from, beside the inputs."""
    terms = {"logits": losses.soft, "hidden": losses.hidden}
    return tuple(field for field, term in terms.items() if term is not None)


def cached_source(path: Path, residency: Residency = "auto") -> Source:
    """A cache to learn from.

    Raises:
        CacheError: there is none, or it is not complete.
    """
    cache = open_cache(path)

    def loader(losses: Losses, part: Slice, seed: int) -> KnowledgeLoader:
        return KnowledgeLoader(
            cache,
            residency=residency,
            fields=fields_of(losses),
            batch_size=part.batch_size,
            seed=seed,
            device=part.device,
            rank=part.rank,
            world_size=part.world_size,
            accumulation=part.accumulation,
        )

    return Source(cached_knowledge(cache), loader, str(cache.tokenizer_path), cache.id)
