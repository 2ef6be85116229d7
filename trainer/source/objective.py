"""A student together with the losses of one stage: what the optimiser sees."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.attention import IMPLEMENTATION, listening
from hskcache.classes import problem_of
from hskcache.encoder import takes_token_types
from hskcache.output_head import without_logits
from hskcache.selection.depth import LayerPair
from trainer.batch import Batch
from trainer.losses import LOSSES
from trainer.losses.abc import Attentions, Seen
from trainer.losses.matches import Matches
from trainer.losses.speech import Final, live, student_head
from trainer.recipe import Losses, Term
from trainer.source.projections import Projections, draw, is_projected, name_of, needed, widths_for

# How students attended before a stage that listens switched them.
_BEFORE: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


class Objective(nn.Module):
    """The student, the projections it needs while it trains, and the weighted sum of the stage's losses.

    A projection Linear d -> D with bias stands between a student of width d and states of width D where they differ
    [TinyBERT 3.1, eq. 8 and 9]. It is trained with the student and saved beside it, see ``projections``. Raises
    MismatchError if the student's attention heads cannot be compared as asked, or its attention cannot be seen.

    Args:
        student: a sequence classifier, an encoder where no term is about what a classifier answers, or a causal
            language model, whose forward pass ends before its head.
        matches: which layers learn from which; only those that the terms are about are used.
        seed: of the projections that are drawn.
        held: projections that the student has learned through before; those that are needed are taken up.
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
        self.terms = {name: (LOSSES[name], settings) for name, settings in losses.terms.items()}
        self.computations = {
            computation: {name: one for name, one in self.terms.items() if one[0].computation is computation}
            for computation in dict.fromkeys(term.computation for term, _ in self.terms.values())
        }
        self.head = student_head(student)
        self.num_heads = int(getattr(student.config, "num_attention_heads", 0))
        for term, settings in self.terms.values():
            term.check(settings, self.matches, self.num_heads)
        if self._listens:
            _show_attention(student)
        else:
            restore_attention(student)
        self.projections = draw(needed(losses, self.matches, student.config.hidden_size), held or {}, seed)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a slice, scaled so that the slices of a global batch add up to its mean.

        Returns the weighted sum with its gradient, and every term without one: a term is the whole loss that its weight
        multiplies, a factor T^2 included, so that weights and terms give the sum. Raises MismatchError if the batch
        lacks what a term learns from.
        """
        inputs = batch.inputs
        if self.drops_token_types:
            inputs = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
        attentions = Attentions()
        with listening(attentions if self._listens else None):
            output, final = self._run(inputs)
        seen = Seen(
            output,
            attentions,
            batch,
            self.matches,
            self.num_heads,
            self._is_multilabel,
            self._projection,
            final,
        )
        sums = [computation.summed(terms, seen) for computation, terms in self.computations.items()]
        terms = {name: term for one in sums for name, term in one.terms.items()}
        total = torch.stack([one.total for one in sums]).sum()
        return batch.weight * total, {name: batch.weight * terms[name] for name in self.terms}

    def _run(self, inputs: dict[str, Tensor]) -> tuple[Any, Final | None]:
        """Output of the student; of a language model without logits, of which some at a time are made of its end."""
        asked: dict[str, Any] = {"output_hidden_states": any(term.sees_states for term, _ in self.terms.values())}
        if self.head is None:
            return self.student(**inputs, **asked), None
        with without_logits(self.student, self.head) as states:
            output = self.student(**inputs, **asked, use_cache=False)
        return output, Final(states[0], live(self.head, self.student))

    @property
    def _is_multilabel(self) -> bool:
        return problem_of(self.student.config) == "multilabel"

    @property
    def _listens(self) -> bool:
        return any(term.listens for term, _ in self.terms.values())

    def _projection(self, match: LayerPair | None, term: Term) -> nn.Linear | None:
        widths = widths_for(self.student.config.hidden_size, self.matches, term)
        if widths is None or not is_projected(term, widths):
            return None
        projection = self.projections[name_of(match, term)]
        assert isinstance(projection, nn.Linear)
        return projection


def restore_attention(student: PreTrainedModel) -> None:
    """Let a student attend as it did before an objective listened to its attention, if one did."""
    if (before := _BEFORE.pop(student, None)) is not None:
        student.set_attn_implementation(before)


def _show_attention(student: PreTrainedModel) -> None:
    """Switch to the attention that can be listened to."""
    if (before := student.config._attn_implementation) != IMPLEMENTATION:
        student.set_attn_implementation(IMPLEMENTATION)
        _BEFORE[student] = before
