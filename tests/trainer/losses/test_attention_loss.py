"""The attention loss against loops over heads, queries and keys, and which heads are compared with which."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hskcache.cache import AttentionField
from hskcache.errors import MismatchError
from trainer.batch import AttentionTarget
from trainer.losses import attention_loss
from trainer.losses.attention import IN_ORDER, HeadPairs, pair_heads


def target_of(counts: list[int], heads: int, seed: int = 0) -> AttentionTarget:
    """Random scores of rows with these numbers of kept positions; NaN in the padding."""
    most = max(counts)
    valid = torch.arange(most) < torch.tensor(counts)[:, None]
    scores = torch.randn(len(counts), heads, most, most, generator=torch.Generator().manual_seed(seed))
    pairs = valid[:, None, :, None] & valid[:, None, None, :]
    positions = torch.arange(most).expand(len(counts), -1) * valid
    return AttentionTarget(positions, valid, scores.masked_fill(~pairs, torch.nan))


def loops(student: Tensor, target: AttentionTarget, counts: list[int], pairs: list[tuple[int, int]]) -> Tensor:
    """Mean over the pairs of heads (student, stored), kept queries and kept keys."""
    errors = [
        (student[row, own, query, key] - target.scores_BHKK[row, stored, query, key]) ** 2
        for row, count in enumerate(counts)
        for own, stored in pairs
        for query in range(count)
        for key in range(count)
    ]
    return torch.stack(errors).mean()


def num_pairs(counts: list[int]) -> int:
    return sum(count * count for count in counts)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=3), kind=st.sampled_from(["order", "some", "list"]))
def test_the_loss_and_its_gradient_are_those_of_loops_over_what_is_kept(counts: list[int], kind: str) -> None:
    """Three heads in order; stored heads 3 and 1 of a teacher of four; a list for two student heads."""
    student_heads, stored, heads, pairs = {
        "order": (3, 3, IN_ORDER, [(0, 0), (1, 1), (2, 2)]),
        "some": (4, 2, HeadPairs(student=(3, 1)), [(3, 0), (1, 1)]),
        "list": (2, 3, HeadPairs(stored=(2, 2)), [(0, 2), (1, 2)]),
    }[kind]
    target, most = target_of(counts, stored), max(counts)
    student = torch.randn(len(counts), student_heads, most, most, requires_grad=True)
    ours = attention_loss(student, target, num_pairs(counts), heads)
    theirs = loops(student, target, counts, pairs)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)))


def test_means_are_taken_over_all_heads_of_either_side() -> None:
    target = target_of([3, 2], heads=2)
    student = torch.randn(2, 5, 3, 3)
    means = AttentionTarget(target.positions_BK, target.valid_BK, target.scores_BHKK.mean(1, keepdim=True))
    expected = loops(student.mean(1, keepdim=True), means, [3, 2], [(0, 0)])
    assert attention_loss(student, target, 13, HeadPairs(mean=True)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_slices_of_a_batch_add_up_to_its_loss() -> None:
    """Each slice divides by the pairs of the whole batch, so ragged slices weigh what they hold."""
    counts, heads = [4, 1, 2], 2
    target, student = target_of(counts, heads), torch.randn(3, heads, 4, 4)
    whole = attention_loss(student, target, num_pairs(counts))

    def part(row: int, count: int) -> Tensor:
        rows, kept = slice(row, row + 1), slice(count)
        own = AttentionTarget(
            target.positions_BK[rows, kept], target.valid_BK[rows, kept], target.scores_BHKK[rows, :, kept, kept]
        )
        return attention_loss(student[rows, :, kept, kept], own, num_pairs(counts))

    torch.testing.assert_close(torch.stack([part(*row) for row in enumerate(counts)]).sum(), whole)


def test_the_error_is_squared_in_float32() -> None:
    """Scores of half precision that differ by 2**-7 of a large score."""
    target = AttentionTarget(torch.zeros(1, 1).long(), torch.ones(1, 1).bool(), torch.full((1, 1, 1, 1), 256.5))
    loss = attention_loss(torch.full((1, 1, 1, 1), 256.0, dtype=torch.bfloat16), target, 1)
    assert loss.dtype == torch.float32
    assert loss.item() == 0.25


def field(heads: Any, teacher_heads: int = 12) -> AttentionField:
    count = 1 if heads == "mean" else len(heads)
    return AttentionField(num_heads=count, heads=heads, teacher_heads=teacher_heads, encoding="int8", layers=[1])


@pytest.mark.parametrize(
    ("setting", "heads", "student_heads", "expected"),
    [
        ("match", list(range(12)), 12, IN_ORDER),
        ("match", [3, 7], 2, IN_ORDER),
        ("match", [7, 3], 12, HeadPairs(student=(7, 3))),
        ("match", "mean", 5, HeadPairs(mean=True)),
        ("mean", [7, 3], 5, HeadPairs(mean=True)),
        ("mean", "mean", 12, HeadPairs(mean=True)),
        ((1, 0, 1), [7, 3], 3, HeadPairs(stored=(1, 0, 1))),
        ((0, 11), list(range(12)), 2, HeadPairs(stored=(0, 11))),
    ],
)
def test_heads_are_paired_as_the_setting_says(
    setting: Any, heads: Any, student_heads: int, expected: HeadPairs
) -> None:
    assert pair_heads(setting, field(heads), student_heads) == expected


@pytest.mark.parametrize(
    ("setting", "heads", "student_heads", "complaint"),
    [
        ("match", list(range(12)), 2, r"has 2 attention heads and 12 of the teacher's 12 .* heads=mean, or .*\[0,6\]"),
        ("match", [3, 7], 4, r"has 4 attention heads and 2 of the teacher's 12 are stored; .*\[0,0,1,1\]"),
        ((0, 1), [3, 7], 3, "does not fit a student of 3 heads and 2 stored ones; .* from 0 to 1"),
        ((0, 1, 2), [3, 7], 3, "does not fit a student of 3 heads and 2 stored ones"),
        ((0, 0), "mean", 2, "where the mean over heads is stored; set heads=mean"),
    ],
)
def test_heads_that_cannot_be_compared_are_refused_with_both_counts(
    setting: Any, heads: Any, student_heads: int, complaint: str
) -> None:
    with pytest.raises(MismatchError, match=complaint):
        pair_heads(setting, field(heads), student_heads)
