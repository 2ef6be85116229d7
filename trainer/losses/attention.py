"""Attention loss between kept positions [TinyBERT 3.1, eq. 7], and which heads of student and teacher are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.attention import IMPLEMENTATION
from hskcache.cache import AttentionField
from hskcache.errors import MismatchError
from trainer.batch import AttentionTarget
from trainer.losses.abc import LossTerm, Seen, present, total
from trainer.losses.matches import Matches
from trainer.recipe import AttentionTerm

HeadSetting = Literal["match", "mean"] | Sequence[int]


@dataclass(frozen=True)
class HeadPairs:
    """Heads that are compared, head by head.

    Attributes:
        student: heads of the student, counted from 0; None takes all in order.
        stored: places of the heads in the field that they learn from; None takes all in order.
        mean: compare the mean over the heads of either side instead.
    """

    student: tuple[int, ...] | None = None
    stored: tuple[int, ...] | None = None
    mean: bool = False


IN_ORDER = HeadPairs()


def pair_heads(setting: HeadSetting, field: AttentionField, student_heads: int) -> HeadPairs:
    """The heads that a setting means. Raises MismatchError if the heads cannot be compared so.

    Args:
        setting: ``match`` takes as many student heads as stored ones in order, or, of a student with as many heads as
            the teacher, those that are stored; ``mean`` averages either side; a list names for each student head the
            place in the field of the head that it learns from.
        field: what is stored; of a mean, the student's mean is all that can be compared with it.
    """
    stored, teacher = field.num_heads, field.teacher_heads
    if not isinstance(setting, str):
        return HeadPairs(stored=_listed(tuple(setting), field, student_heads))
    if setting == "mean" or field.heads == "mean":
        return HeadPairs(mean=True)
    if student_heads == stored:
        return IN_ORDER
    if student_heads == teacher:
        return HeadPairs(student=tuple(field.heads))
    example = ",".join(str(head * stored // student_heads) for head in range(student_heads))
    raise MismatchError(
        f"the student has {student_heads} attention heads and {stored} of the teacher's {teacher} are stored; set "
        f"heads=mean, or a list of {student_heads} stored heads such as [{example}]"
    )


def _listed(places: tuple[int, ...], field: AttentionField, student_heads: int) -> tuple[int, ...]:
    if field.heads == "mean":
        raise MismatchError(
            f"the list of heads {list(places)} cannot be followed where the mean over heads is stored; set heads=mean"
        )
    if len(places) != student_heads or max(places) >= field.num_heads:
        raise MismatchError(
            f"the list of heads {list(places)} does not fit a student of {student_heads} heads and {field.num_heads} "
            f"stored ones; name one for each student head, from 0 to {field.num_heads - 1}"
        )
    return places


def attention_loss(
    student_BHKK: Tensor, target: AttentionTarget, num_pairs: int, heads: HeadPairs = IN_ORDER
) -> Tensor:
    """Mean squared error between attention scores before mask and softmax, over heads and pairs of kept positions.

    Returns a scalar in float32.

    Args:
        student_BHKK: scores of one student layer between ``target.positions_BK``, see
            :func:`hskcache.attention.scores_between`; all of its heads.
        target: kept teacher scores.
        num_pairs: pairs of a kept query and a kept key of the global batch, which this slice is a part of; or of any
            two places of its padded rows: those that are not kept then count as equal.
    """
    ours, theirs = student_BHKK.float(), target.scores_BHKK
    if heads.mean:
        ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    else:
        ours, theirs = _picked(ours, heads.student), _picked(theirs, heads.stored)
    padding_BKK = ~(target.valid_BK[:, :, None] & target.valid_BK[:, None, :])
    # Filled, not multiplied by 0: whatever stands in the padding, it must not reach the sum.
    error = (ours - theirs).masked_fill(padding_BKK[:, None], 0.0)
    return error.square().sum() / (num_pairs * ours.shape[1])


def _picked(scores_BHKK: Tensor, heads: tuple[int, ...] | None) -> Tensor:
    if heads is None:
        return scores_BHKK
    return scores_BHKK.index_select(1, torch.tensor(heads).to(scores_BHKK.device, non_blocking=True))


class AttentionLoss(LossTerm[AttentionTerm]):
    """The loss of the layers whose attention is compared, added up."""

    listens = True
    has_layers = True
    keep: ClassVar[Mapping[str, str]] = {"--attention": "full"}
    setting = "heads"

    def check(self, settings: AttentionTerm, matches: Matches, num_heads: int) -> None:
        """Pair the heads, where it is known which are stored."""
        _heads(settings, matches, num_heads)

    def check_student(self, student: PreTrainedModel, matches: Matches) -> None:
        """Raise unless queries and keys are shown, of as many heads in every layer."""
        if not can_show_attention(student):
            raise MismatchError(
                f"the attention of {type(student).__name__} cannot be seen; use a BERT, RoBERTa, ELECTRA or DistilBERT "
                "student, or leave out the attention term"
            )
        if (numbers := getattr(student.config, "heads_by_layer", None)) is not None:
            raise MismatchError(
                f"the student has {', '.join(map(str, numbers))} heads in its layers, and attention is taught to as "
                "many in each; leave out the attention term, or prune without --global"
            )

    def loss(self, settings: AttentionTerm, seen: Seen) -> Tensor:
        """Loss over the pairs of kept positions of the global batch, or over those of padded rows."""
        batch, matches = seen.batch, seen.matches
        losses, num_pairs = [], batch.num_pairs
        if settings.mean == "padded":
            assert matches.max_length is not None
            num_pairs = batch.num_rows * matches.max_length**2
        heads = _heads(settings, matches, seen.num_heads)
        for match in self.pairs(settings, matches):
            target = present(batch.attention.get(match.teacher), f"attention scores of layer {match.teacher}")
            scores_BHKK = seen.attentions.scores(match.student, target.positions_BK)
            losses.append(attention_loss(scores_BHKK, target, num_pairs, heads))
        return total(losses, "attention scores")


def can_show_attention(student: PreTrainedModel) -> bool:
    """True if the student's queries and keys can be seen; it is left as it was."""
    before = student.config._attn_implementation
    try:
        student.set_attn_implementation(IMPLEMENTATION)
    except ValueError:
        # A model without any attention of the usual kind.
        return False
    seen: bool = student.config._attn_implementation == IMPLEMENTATION
    student.set_attn_implementation(before)
    return seen


def _heads(settings: AttentionTerm, matches: Matches, num_heads: int) -> HeadPairs:
    field = matches.fields.get(settings.kind)
    return pair_heads(settings.heads, field, num_heads) if isinstance(field, AttentionField) else IN_ORDER
