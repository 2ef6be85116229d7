"""The scores of positions by the word that people type: what each looks at, and the function of it.

Which positions a score admits at all, :data:`hskcache.spec.SCORES` says, which needs no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hskcache.selection.length import (
    attention_logit_score,
    attention_score,
    entropy_score,
    left_score,
    random_score,
    received_score,
    right_score,
)
from hskcache.table import Table


class Attended(NamedTuple):
    """One attention layer over a padded batch, before the mask and the softmax.

    ``raw_BHQL``: scores of Q neighbouring queries, float32. ``mask``: the model's own, added to the scores or, where it
    is bool, kept where True; None where there is none. ``valid_BL``: True where a token is real, bool. ``first``: of
    the queries.
    """

    raw_BHQL: Tensor
    mask: Tensor | None
    valid_BL: Tensor
    first: int = 0

    @property
    def probabilities_BHQL(self) -> Tensor:
        """After the mask and the softmax, float32."""
        raw, mask = self.raw_BHQL, self.mask
        if mask is not None:
            queries = slice(None) if mask.shape[2] == 1 else slice(self.first, self.first + raw.shape[2])
            mask = mask[:, :, queries, : raw.shape[3]]
            raw = raw.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else raw + mask
        return torch.softmax(raw, dim=-1)


class Scored(NamedTuple):
    """A padded batch as a score sees it that no attention gives.

    ``input_ids_BL``: token ids, int64; ``row_ids_B``: rows of the data set, int64; ``seed``: of what is drawn.
    """

    input_ids_BL: Tensor
    row_ids_B: Tensor
    seed: int


@dataclass(frozen=True)
class AttentionScore:
    """A score that an attention layer gives: ``of`` leads from what was attended to float32 [B, L].

    ``every_query`` says that it looks at all queries, not at the first alone, and gives the part of the queries that it
    is shown, a sum; ``before_softmax``, that probabilities do not give it.
    """

    of: Callable[[Attended], Tensor]
    every_query: bool = False
    before_softmax: bool = False


@dataclass(frozen=True)
class RowScore:
    """A score of the rows themselves: ``of`` leads from a batch to float32 [B, L]."""

    of: Callable[[Scored], Tensor]


def _left(rows: Scored) -> Tensor:
    batch, length = rows.input_ids_BL.shape
    return left_score(batch, length, rows.input_ids_BL.device)


def _right(rows: Scored) -> Tensor:
    batch, length = rows.input_ids_BL.shape
    return right_score(batch, length, rows.input_ids_BL.device)


class SaidNext(NamedTuple):
    """Answers of a language model for the next token at some positions.

    ``logits_CV``: float32; ``gold_C``: those of the row's own next tokens.
    """

    logits_CV: Tensor
    gold_C: Tensor


@dataclass(frozen=True)
class NextScore:
    """A score of what the teacher says of the next token: ``of`` leads from its answers to float32 [C]."""

    of: Callable[[SaidNext], Tensor]


SCORED: Table[AttentionScore | RowScore | NextScore] = Table(
    "a score of positions",
    {
        "attention": AttentionScore(lambda one: attention_score(one.probabilities_BHQL[:, :, 0])),
        "attention-logit": AttentionScore(
            lambda one: attention_logit_score(one.raw_BHQL[:, :, 0]), before_softmax=True
        ),
        "received": AttentionScore(
            lambda one: received_score(one.probabilities_BHQL, one.valid_BL, one.first), every_query=True
        ),
        "left": RowScore(_left),
        "right": RowScore(_right),
        "random": RowScore(lambda rows: random_score(rows.row_ids_B, rows.input_ids_BL.shape[1], rows.seed)),
        "cls": RowScore(_left),
        "all": RowScore(_left),
        "last": RowScore(_right),
        "entropy": NextScore(lambda said: entropy_score(said.logits_CV)),
        "loss": NextScore(lambda said: said.logits_CV.logsumexp(-1) - said.gold_C),
    },
)
"""Scores by the word, as in :data:`hskcache.spec.SCORES`."""
