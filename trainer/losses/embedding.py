"""Losses on embeddings of whole rows: to the teacher's vectors, and to how similar these are among each other.

The student's vector is made as the teacher's was: pooled likewise, led to its width where the widths differ, and
divided by its length where the teacher's is.
"""

from collections.abc import Mapping
from typing import ClassVar, assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from hskcache.errors import MismatchError
from hskcache.pooling import finished, pooled
from hskcache.store.kinds.embedding import EmbeddingField
from trainer.losses.abc import LossTerm, Seen, present
from trainer.recipe import EmbeddedTerm, SentenceTerm, SimilarityTerm
from trainer.terms import Distance


def sentence_loss(student_BW: Tensor, teacher_BW: Tensor, num_rows: int, distance: Distance = "mse") -> Tensor:
    """Distance of each row's vector from the teacher's; a scalar in float32.

    ``mse`` is the squared error averaged over the W values ["Making Monolingual Sentence Embeddings Multilingual Using
    Knowledge Distillation", Reimers and Gurevych, 2020, section 2], ``cosine`` one minus the cosine. ``num_rows``: rows
    of the global batch, which this slice is a part of.
    """
    match distance:
        case "mse":
            return F.mse_loss(student_BW, teacher_BW, reduction="sum") / (num_rows * teacher_BW.shape[1])
        case "cosine":
            return (1.0 - F.cosine_similarity(student_BW, teacher_BW)).sum() / num_rows
        case unknown:
            assert_never(unknown)


def similarity_loss(student_BW: Tensor, teacher_BV: Tensor, num_rows: int) -> Tensor:
    """Squared difference of the cosines between the rows of a slice on either side; a scalar in float32.

    Of each row the differences to the other rows of its slice are averaged, and the rows are summed and divided by
    those of the global batch: slices add up to the mean over its rows, though no row is compared with one of another
    slice. A slice of one row adds nothing. The widths of the sides may differ. After "Relational Knowledge
    Distillation", Park et al., 2019, section 3.2, with cosines as the potential and a squared error.
    """
    ours, theirs = (F.normalize(side.float(), dim=-1) for side in (student_BW, teacher_BV))
    # Not under autocast: a small difference of two products near 1.
    with torch.autocast(ours.device.type, enabled=False):
        error_BB = ours @ ours.T - theirs @ theirs.T
    others = max(len(ours) - 1, 1)
    return error_BB.fill_diagonal_(0.0).square().sum() / (others * num_rows)


class _EmbeddedLoss(LossTerm[EmbeddedTerm]):
    """A loss that compares vectors of rows."""

    sees_states = True
    keep: ClassVar[Mapping[str, str]] = {"--embedding": "model"}

    def vectors(self, settings: EmbeddedTerm, seen: Seen) -> tuple[Tensor, Tensor]:
        """The student's vectors and the teacher's, float32 [B, W] each."""
        target_BW = present(seen.batch.targets.get(settings.kind), "embeddings")
        field = seen.matches.fields.get(settings.kind)
        if not isinstance(field, EmbeddingField):
            raise MismatchError("a loss learns from embeddings, and it is not known how they are pooled; say it")
        valid_BL = seen.batch.inputs["attention_mask"].bool()
        pooled_BD = pooled(seen.output.hidden_states[-1], valid_BL, field.pooling)
        head = seen.projection(None, settings)
        return finished(pooled_BD, head, None, field.is_normalized).float(), target_BW


class SentenceLoss(_EmbeddedLoss):
    """Against the teacher's vectors."""

    def loss(self, settings: EmbeddedTerm, seen: Seen) -> Tensor:
        """Loss over the rows of the global batch."""
        assert isinstance(settings, SentenceTerm)
        return sentence_loss(*self.vectors(settings, seen), seen.batch.num_rows, settings.distance)


class SimilarityLoss(_EmbeddedLoss):
    """Against the cosines between the teacher's vectors."""

    def loss(self, settings: EmbeddedTerm, seen: Seen) -> Tensor:
        """Loss over the rows of the global batch, each compared with those of its slice."""
        assert isinstance(settings, SimilarityTerm)
        return similarity_loss(*self.vectors(settings, seen), seen.batch.num_rows)
