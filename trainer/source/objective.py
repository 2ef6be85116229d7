"""A student together with the losses of one stage: what the optimiser sees."""

from collections.abc import Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.attention import IMPLEMENTATION, listening, scores_between
from hskcache.encoder import takes_token_types
from hskcache.errors import MismatchError
from trainer.batch import AttentionTarget, Batch
from trainer.losses import attention_loss, hidden_loss, label_loss, soft_label_loss
from trainer.losses.attention import IN_ORDER, pair_heads
from trainer.recipe import AttentionTerm, EmbeddingTerm, HiddenTerm, Losses
from trainer.source.matches import LayerMatch, Matches
from trainer.source.projections import Projections, Widths, draw, is_projected, name_of, needed

Target = TypeVar("Target")

# How students attended before a stage that listens switched them.
_BEFORE: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


class Objective(nn.Module):
    """The student, the projections it needs while it trains, and the weighted sum of the stage's losses.

    A projection Linear d -> D with bias stands between a student of width d and states of width D where they differ
    [TinyBERT 3.1, eq. 8 and 9]. It is trained with the student and saved beside it, see ``projections``.

    Args:
        student: a sequence classifier, or an encoder where no term is about what a classifier answers.
        losses: the terms of the stage.
        matches: which layers learn from which; only those that the terms are about are used.
        seed: of the projections that are drawn.
        held: projections that the student has learned through before; those that are needed are taken up.

    Raises:
        MismatchError: the student's attention heads cannot be compared as asked, or its attention cannot be seen.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        losses: Losses,
        matches: Matches | None = None,
        seed: int = 0,
        held: Projections | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.losses = losses
        self.matches = matches or Matches()
        self.drops_token_types = not takes_token_types(student)
        self.heads = IN_ORDER
        if losses.attention is not None and self.matches.scores is not None:
            self.heads = pair_heads(losses.attention.heads, self.matches.scores, student.config.num_attention_heads)
        if losses.attention is not None:
            _show_attention(student)
        else:
            restore_attention(student)
        self.projections = draw(needed(losses, self.matches, student.config.hidden_size), held or {}, seed)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a slice, scaled so that the slices of a global batch add up to its mean.

        Returns:
            The weighted sum with its gradient, and every term without one: a term is the whole loss that its weight
            multiplies, a factor T^2 included, so that weights and terms give the sum.

        Raises:
            MismatchError: the batch lacks what a term learns from.
        """
        inputs = batch.inputs
        if self.drops_token_types:
            inputs = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
        seen = _Attentions()
        with listening(seen if self.losses.attention is not None else None):
            output = self.student(**inputs, output_hidden_states=self.losses.needs_hidden)
        terms: list[tuple[str, float, Tensor]] = []
        if (embedding := self.losses.embedding) is not None:
            pairs = self.matches.embedding_pairs(self.losses)
            terms.append(("embedding", embedding.weight, self._states(output, batch, pairs, embedding)))
        if (hidden := self.losses.hidden) is not None:
            pairs = self.matches.hidden_pairs(self.losses)
            terms.append(("hidden", hidden.weight, self._states(output, batch, pairs, hidden)))
        if (attention := self.losses.attention) is not None:
            terms.append(("attention", attention.weight, self._attention(seen, batch, attention)))
        terms += self._answers(output, batch)
        total = torch.stack([weight * term for _, weight, term in terms]).sum()
        return batch.weight * total, {name: batch.weight * term.detach() for name, _, term in terms}

    def _states(
        self, output: Any, batch: Batch, pairs: Sequence[LayerMatch], term: HiddenTerm | EmbeddingTerm
    ) -> Tensor:
        losses = []
        for match in pairs:
            target = _present(batch.hidden.get(match.teacher), f"hidden states of layer {match.teacher}")
            projection = self._projection(match, term)
            states_BLd = output.hidden_states[match.student]
            losses.append(hidden_loss(states_BLd, target, projection, term.missing, batch.num_positions))
        return _sum(losses, "hidden states")

    def _attention(self, seen: "_Attentions", batch: Batch, term: AttentionTerm) -> Tensor:
        losses, num_pairs = [], batch.num_pairs
        if term.mean == "padded":
            assert self.matches.max_length is not None
            num_pairs = batch.num_rows * self.matches.max_length**2
        for match in self.matches.attention:
            target = _present(batch.attention.get(match.teacher), f"attention scores of layer {match.teacher}")
            scores_BHKK = seen.scores(match.student, target)
            losses.append(attention_loss(scores_BHKK, target, num_pairs, self.heads))
        return _sum(losses, "attention scores")

    def _answers(self, output: Any, batch: Batch) -> list[tuple[str, float, Tensor]]:
        terms = []
        if (soft := self.losses.soft) is not None:
            teacher_BC = _present(batch.logits, "logits")
            settings = (soft.temperature, batch.num_rows, soft.temperature_squared)
            loss = soft_label_loss(output.logits, teacher_BC, *settings)
            terms.append(("soft", soft.weight, loss))
        if (label := self.losses.label) is not None:
            loss = label_loss(output.logits, _present(batch.labels, "labels"), batch.num_rows)
            terms.append(("label", label.weight, loss))
        return terms

    def _projection(self, match: LayerMatch, term: HiddenTerm | EmbeddingTerm) -> nn.Linear | None:
        if not is_projected(term, Widths(self.student.config.hidden_size, self.matches.width or 0)):
            return None
        projection = self.projections[name_of(match, term)]
        assert isinstance(projection, nn.Linear)
        return projection


class _Attentions:
    """What every self-attention of one forward pass computed with, in the order of the layers."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor, float]] = []

    def __call__(self, query_BHLd: Tensor, key_BHLd: Tensor, _mask: Tensor | None, scaling: float) -> None:
        """Listen."""
        self.layers.append((query_BHLd, key_BHLd, scaling))

    def scores(self, layer: int, target: AttentionTarget) -> Tensor:
        """Scores [B, H, K, K] of a layer, counted from 1, between the positions of a target, and of no others."""
        query_BHLd, key_BHLd, scaling = self.layers[layer - 1]
        return scores_between(query_BHLd, key_BHLd, target.positions_BK, scaling)


def can_show_attention(student: PreTrainedModel) -> bool:
    """Whether the student's queries and keys can be seen; it is left as it was."""
    before = student.config._attn_implementation
    try:
        student.set_attn_implementation(IMPLEMENTATION)
    except ValueError:
        # A model without any attention of the usual kind.
        return False
    seen: bool = student.config._attn_implementation == IMPLEMENTATION
    student.set_attn_implementation(before)
    return seen


def restore_attention(student: PreTrainedModel) -> None:
    """Let a student attend as it did before an objective listened to its attention, if one did."""
    if (before := _BEFORE.pop(student, None)) is not None:
        student.set_attn_implementation(before)


def _show_attention(student: PreTrainedModel) -> None:
    """Switch to the attention that can be listened to."""
    if (before := student.config._attn_implementation) != IMPLEMENTATION:
        student.set_attn_implementation(IMPLEMENTATION)
        _BEFORE[student] = before


def _sum(losses: Sequence[Tensor], what: str) -> Tensor:
    """The sum over the layers."""
    if not losses:
        raise MismatchError(f"a loss learns from {what} and no pair of layers is given; match some, or leave it out")
    return torch.stack(list(losses)).sum()


def _present(target: Target | None, what: str) -> Target:
    if target is None:
        raise MismatchError(f"a loss learns from {what} and the batch has none; load them, or leave the loss out")
    return target
