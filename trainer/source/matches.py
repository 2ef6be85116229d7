"""Which layers of a student learn from which of the teacher's."""

from dataclasses import dataclass, replace

from hskcache.cache import AttentionField
from trainer.recipe import Losses


@dataclass(frozen=True)
class LayerMatch:
    """A student layer and the teacher layer it learns from; of hidden states, layer 0 is the embedding output."""

    student: int
    teacher: int


@dataclass(frozen=True)
class Matches:
    """Which layers learn from which, and what of the teacher's shape the losses need.

    Attributes:
        hidden: pairs of hidden layers.
        attention: pairs of layers whose attention is compared, counted from 1.
        width: hidden width D of the teacher; None without hidden states.
        scores: how attention scores are stored; None without any.
        max_length: tokens of a row at most; None where nothing is averaged over padded rows.
    """

    hidden: tuple[LayerMatch, ...] = ()
    attention: tuple[LayerMatch, ...] = ()
    width: int | None = None
    scores: AttentionField | None = None
    max_length: int | None = None

    def for_losses(self, losses: Losses) -> "Matches":
        """The pairs that the terms of a stage are about."""
        return replace(
            self,
            hidden=(*self.embedding_pairs(losses), *self.hidden_pairs(losses)),
            attention=self.attention if losses.attention is not None else (),
        )

    def hidden_pairs(self, losses: Losses) -> tuple[LayerMatch, ...]:
        """Those of the term ``hidden``."""
        if losses.hidden is None:
            return ()
        return tuple(match for match in self.hidden if match.student > 0 or losses.hidden.embedding)

    def embedding_pairs(self, losses: Losses) -> tuple[LayerMatch, ...]:
        """That of the term ``embedding``, where the embedding output is kept."""
        return tuple(match for match in self.hidden if match.student == 0) if losses.embedding is not None else ()
