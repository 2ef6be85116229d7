"""Distillation losses. Each is a sum over a slice divided by the size of the global batch, so that slices add up.

One file a kind of knowledge, and the table of the terms that a recipe may have.
"""

from typing import Any

from hskcache.output_head import OutputHead
from hskcache.selection.depth import LayerPair
from hskcache.table import Table
from trainer.losses.abc import LossTerm
from trainer.losses.attention import AttentionLoss, attention_loss
from trainer.losses.embedding import SentenceLoss, SimilarityLoss, sentence_loss, similarity_loss
from trainer.losses.hidden import EmbeddingLoss, HiddenLoss, hidden_loss
from trainer.losses.language import GoldLoss, NextLoss
from trainer.losses.logits import LabelLoss, SoftLoss, label_loss, soft_label_loss
from trainer.losses.matches import Matches
from trainer.losses.next_tokens import DrawnTokens, GoldTokens, TeacherStates, TopTokens
from trainer.losses.vocabulary import VocabularyLoss, vocabulary_loss
from trainer.recipe import Losses

__all__ = [
    "LOSSES",
    "DrawnTokens",
    "GoldTokens",
    "LossTerm",
    "OutputHead",
    "TeacherStates",
    "TopTokens",
    "VocabularyLoss",
    "attention_loss",
    "hidden_loss",
    "label_loss",
    "pairs_of",
    "sentence_loss",
    "similarity_loss",
    "soft_label_loss",
    "vocabulary_loss",
]

LOSSES: Table[LossTerm[Any]] = Table(
    "a term of a loss",
    {
        "embedding": EmbeddingLoss(),
        "hidden": HiddenLoss(),
        "attention": AttentionLoss(),
        "sentence": SentenceLoss(),
        "similarity": SimilarityLoss(),
        "soft": SoftLoss(),
        "label": LabelLoss(),
        "next": NextLoss(),
        "gold": GoldLoss(),
    },
)
"""Losses by the name of the term."""


def pairs_of(losses: Losses, matches: Matches) -> dict[str, tuple[LayerPair, ...]]:
    """Pairs of layers that the terms of a stage compare, by kind of knowledge; of a kind without layers none."""
    pairs: dict[str, tuple[LayerPair, ...]] = {}
    for name, settings in losses.terms.items():
        if settings.kind is not None and LOSSES[name].has_layers:
            pairs[settings.kind] = (*pairs.get(settings.kind, ()), *LOSSES[name].pairs(settings, matches))
    return pairs
