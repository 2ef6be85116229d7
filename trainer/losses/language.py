"""Losses on the next token as terms of a stage: to a teacher's distribution, and to the text.

Both are compared with the same logits of the student, which one pass over its head makes in chunks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, assert_never

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.errors import MismatchError
from hskcache.store.kinds.vocabulary import NextTokens as Stored
from hskcache.store.kinds.vocabulary import VocabularyField
from trainer.batch import Batch, DrawnTarget, StatesTarget, TopTarget
from trainer.losses.abc import Computation, LossTerm, Seen, Settings, WeightedSum, present
from trainer.losses.matches import Matches
from trainer.losses.next_tokens import DrawnTokens, GoldTokens, NextTokens, TeacherStates, TopTokens
from trainer.losses.speech import student_head
from trainer.losses.vocabulary import vocabulary_loss
from trainer.recipe import GoldTerm, NextTerm, Term


@dataclass(frozen=True, eq=False)
class Places:
    """Places of what is known of some positions among all those of a pass.

    Attributes:
        all_T: positions of the pass in the flattened batch, int64, in any order, as those of packed rows are.
        own_K: those that something is known of, likewise.
    """

    all_T: Tensor
    own_K: Tensor

    def put(self, known: Tensor, fill: float) -> Tensor:
        """Knowledge [K, ...] of the own positions as one of all, [T, ...]; ``fill``: of the others."""
        if self.own_K is self.all_T:
            return known
        return known.new_full((len(self.all_T), *known.shape[1:]), fill).index_copy_(0, self._place_K, known)

    @cached_property
    def _place_K(self) -> Tensor:
        order_T = self.all_T.argsort()
        return order_T[torch.searchsorted(self.all_T, self.own_K, sorter=order_T)]


class OverVocabulary(Computation):
    """One pass over the student's head for all terms."""

    def summed(self, terms: Mapping[str, tuple[Any, Term]], seen: Seen) -> WeightedSum:
        """Sum over the positions that the most is known of; those of a batch without any add nothing.

        Each term is averaged over the positions of the global batch that it learns at.
        """
        final = present(seen.final, "next tokens, which a causal student says")
        own = {name: term.positions(settings, seen.batch) for name, (term, settings) in terms.items()}
        # Of the positions with a target some may be known of: those of the text are all.
        all_T = max(own.values(), key=len)
        states_TD = final.states_BLD.flatten(0, 1).index_select(0, all_T)
        known = {
            name: term.known(settings, seen.batch, Places(all_T, own[name])) for name, (term, settings) in terms.items()
        }
        nums = {name: term.num_positions(settings, seen.batch) for name, (term, settings) in terms.items()}
        return WeightedSum(*vocabulary_loss(states_TD, final.head, known, nums))


OVER_VOCABULARY = OverVocabulary()


class _OnNextTokens(LossTerm[Settings]):
    """A loss on next tokens."""

    computation = OVER_VOCABULARY

    def check_student(self, student: PreTrainedModel, matches: Matches) -> None:
        """Refuse one that says no next tokens, or those of another vocabulary than the teacher."""
        head = student_head(student)
        if head is None:
            raise MismatchError(
                f"the student is a {type(student).__name__}, which says no next tokens; give a causal language model"
            )
        field = matches.fields.get(Stored.name)
        if isinstance(field, VocabularyField) and field.vocab_size != len(head.weight_VD):
            raise MismatchError(
                f"the student says {len(head.weight_VD):,} token ids and the teacher said {field.vocab_size:,}; use a "
                "student with the teacher's vocabulary"
            )

    def positions(self, settings: Settings, batch: Batch) -> Tensor:
        """Places in the flattened batch that the term learns at, int64."""
        raise NotImplementedError

    def num_positions(self, settings: Settings, batch: Batch) -> int:
        """Number of these in the global batch; where nothing else is said, of all whose next token is predicted."""
        return batch.totals.get(settings.kind or "", batch.num_answers)

    def known(self, settings: Settings, batch: Batch, places: Places) -> NextTokens:
        """Knowledge of all positions of the pass."""
        raise NotImplementedError


class NextLoss(_OnNextTokens[NextTerm]):
    """Against the teacher's distribution of the next token."""

    keep: ClassVar[Mapping[str, str]] = {"--vocabulary": "top:32"}
    setting = "divergence"

    def check(self, settings: NextTerm, matches: Matches, num_heads: int) -> None:
        """Refuse what a part of the distribution cannot tell."""
        field = matches.fields.get(settings.kind or "")
        if not isinstance(field, VocabularyField) or field.form == "head":
            return
        asked = []
        if settings.divergence != "forward_kl":
            asked.append(f"divergence {settings.divergence}")
        if settings.temperature != 1.0:
            asked.append(f"temperature {settings.temperature:g}")
        if asked:
            kept = "likeliest tokens" if field.form == "top" else "draws"
            raise MismatchError(
                f"the term next has {' and '.join(asked)}, which needs the teacher's whole distribution, and of that "
                f"{field.count} {kept} are kept; build it with --vocabulary head, or learn by forward_kl at "
                "temperature 1"
            )

    def positions(self, settings: NextTerm, batch: Batch) -> Tensor:
        """Those that something is kept of."""
        return self._target(settings, batch).index_T

    def known(self, settings: NextTerm, batch: Batch, places: Places) -> NextTokens:
        """Draws, likeliest tokens or the teacher's states, with padding where nothing is kept."""
        match target := self._target(settings, batch):
            case TopTarget():
                ids_TK = places.put(target.ids_TK, 0)
                return TopTokens(ids_TK, places.put(target.logp_TK, -torch.inf), settings.weight)
            case DrawnTarget():
                counts_TK = places.put(torch.ones_like(target.ids_TK), 0)
                return DrawnTokens(places.put(target.ids_TK, 0), counts_TK, settings.weight)
            case StatesTarget():
                return TeacherStates(
                    places.put(target.states_TD, 0.0),
                    target.head,
                    settings.divergence,
                    settings.temperature,
                    settings.temperature_squared,
                    settings.share,
                    places.put(torch.ones_like(target.index_T, dtype=torch.bool), False),
                    settings.weight,
                )
            case unknown:
                assert_never(unknown)

    def _target(self, settings: NextTerm, batch: Batch) -> TopTarget | DrawnTarget | StatesTarget:
        target = present(batch.targets.get(settings.kind), "next tokens")
        assert isinstance(target, TopTarget | DrawnTarget | StatesTarget)
        return target


class GoldLoss(_OnNextTokens[GoldTerm]):
    """Against the next tokens of the text."""

    def positions(self, settings: GoldTerm, batch: Batch) -> Tensor:
        """All whose next token is to be predicted."""
        return present(batch.answered, "the next tokens of a text")

    def known(self, settings: GoldTerm, batch: Batch, places: Places) -> NextTokens:
        """Next tokens."""
        return GoldTokens(batch.inputs["input_ids"].flatten().index_select(0, places.all_T + 1), settings.weight)
