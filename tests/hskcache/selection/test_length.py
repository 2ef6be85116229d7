import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hskcache.selection.length import (
    attention_logit_score,
    attention_score,
    cls_eligible,
    eligible_BL,
    left_score,
    random_score,
    received_score,
    right_score,
    top_positions,
)

TRUE = torch.ones(1, 4, dtype=torch.bool)


def kept(scores: torch.Tensor, eligible: torch.Tensor, tokens: int | None) -> list[list[int]]:
    positions, counts = top_positions(scores, eligible, tokens)
    return [row[:count].tolist() for row, count in zip(positions, counts.tolist(), strict=True)]


def test_logit_mean_and_probability_mean_rank_differently() -> None:
    scores = torch.tensor([[[0.0, 5, 2, 1], [0, -6, 1, 2]]])
    assert attention_logit_score(scores).tolist() == [[0.0, -0.5, 1.5, 1.5]]
    assert kept(attention_logit_score(scores), TRUE, 4) == [[2, 3, 0, 1]]
    assert kept(attention_score(scores.softmax(-1)), TRUE, 4) == [[1, 3, 2, 0]]


def test_padding_and_every_special_token_but_the_first_are_never_kept() -> None:
    scores = torch.tensor([[3.0, 1, 2, 9, 0.5, -0.5]])
    valid = torch.tensor([[True, True, True, True, False, False]])
    special = torch.tensor([[True, False, False, True, False, False]])
    positions, counts = top_positions(scores, eligible_BL(valid, special), 4)
    assert positions.tolist() == [[0, 2, 1, 0]]
    assert counts.tolist() == [3]


def test_both_separators_of_a_pair_are_excluded_row_by_row() -> None:
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    special = torch.tensor([[True, False, True, False, False, True], [True, False, False, True, False, False]])
    assert kept(left_score(2, 6, "cpu"), eligible_BL(valid, special), 6) == [[0, 1, 3, 4], [0, 1, 2]]


def test_without_a_special_mask_the_separator_can_be_kept() -> None:
    scores = torch.tensor([[3.0, 1, 2, 9, 0.5, -0.5]])
    valid = torch.tensor([[True, True, True, True, False, False]])
    assert kept(scores, eligible_BL(valid, None), 4) == [[3, 0, 2, 1]]


def test_equal_scores_go_to_the_lowest_positions() -> None:
    assert kept(torch.ones(1, 4), TRUE, 2) == [[0, 1]]


def test_negative_zero_equals_zero_and_nan_and_minus_infinity_come_last_but_before_the_ineligible() -> None:
    scores = torch.tensor([[-0.0, 0.0, torch.nan, -torch.nan, -torch.inf, 9.0, torch.inf, -1.0]])
    eligible = torch.tensor([[True, True, True, True, True, False, True, True]])
    assert kept(scores, eligible, 8) == [[6, 0, 1, 7, 2, 3, 4]]


def test_more_tokens_than_positions_keep_every_position() -> None:
    positions, counts = top_positions(torch.tensor([[1.0, 3, 2, 0]]), TRUE, 9)
    assert positions.tolist() == [[1, 2, 0, 3]]
    assert counts.tolist() == [4]


def test_no_limit_keeps_the_eligible_positions_in_the_order_of_the_row() -> None:
    eligible = torch.tensor([[True, False, True, True]])
    assert kept(torch.tensor([[1.0, 9, 3, 7]]), eligible, None) == [[0, 2, 3]]


def test_cls_keeps_position_0_alone() -> None:
    valid = torch.tensor([[True, True, False], [False, False, False]])
    assert kept(left_score(2, 3, "cpu"), cls_eligible(valid), None) == [[0], []]


def test_left_keeps_the_first_positions() -> None:
    assert kept(left_score(1, 4, "cpu"), TRUE, 3) == [[0, 1, 2]]


def test_received_attention_is_the_mean_over_heads_and_real_queries_only() -> None:
    heads = torch.tensor([[[0.5, 0.5, 0], [1, 0, 0], [0, 0, torch.nan]], [[0.5, 0.5, 0], [0, 1, 0], [0.2, 0.2, 0.6]]])
    valid = torch.tensor([[True, True, False]])
    assert received_score(heads[None], valid).tolist() == [[0.5, 0.5, 0.0]]
    assert received_score(heads[None], torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("score", [attention_score, attention_logit_score])
def test_scores_of_a_half_precision_teacher_are_averaged_in_float32(score: object) -> None:
    assert callable(score)
    mean = score(torch.tensor([[[1.0], [1.0009765625], [1.0009765625]]], dtype=torch.float16))
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(1 + 2 / 3 / 1024, abs=1e-7)


@given(
    scores=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.sampled_from([-2, 0, 1, 5])
    ),
    data=st.data(),
)
def test_top_positions_are_a_stable_sort_of_the_eligible_and_nested_in_k(
    scores: np.ndarray, data: st.DataObject
) -> None:
    eligible = data.draw(hnp.arrays(np.bool_, scores.shape))
    tokens = data.draw(st.integers(1, scores.shape[1] + 2))
    expected = [
        [int(i) for i in np.argsort(-row, kind="stable") if may[i]] for row, may in zip(scores, eligible, strict=True)
    ]
    for k in range(1, tokens + 1):
        found = kept(torch.from_numpy(scores), torch.from_numpy(eligible), k)
        assert found == [row[:k] for row in expected]


def test_the_right_score_keeps_the_last_eligible_ones_from_the_end() -> None:
    may = torch.tensor([[True, True, True, False, True, False], [True, False, False, False, False, False]])
    assert kept(right_score(2, 6, "cpu"), may, 3) == [[4, 2, 1], [0]]
    assert kept(left_score(2, 6, "cpu"), may, 3) == [[0, 1, 2], [0]]


def test_random_scores_depend_on_seed_row_and_position_alone() -> None:
    whole = random_score(torch.tensor([7, 3, 10**12]), 16, seed=5)
    assert torch.equal(random_score(torch.tensor([3]), 9, seed=5), whole[1:2, :9])
    assert not torch.equal(random_score(torch.tensor([3]), 16, seed=6), whole[1:2])
    assert not torch.equal(whole[0], whole[1])


def test_random_scores_are_those_of_splitmix64_written_in_plain_integers() -> None:
    def mix(state: int) -> int:
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    seed, row = 2**64 - 3, 41
    start = mix((row + mix(seed)) % 2**64)
    expected = [(mix((start + (i + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 40) / 2**24 for i in range(64)]
    assert random_score(torch.tensor([row]), 64, seed)[0].tolist() == expected


def test_random_scores_fill_the_unit_interval_evenly() -> None:
    scores = random_score(torch.arange(2000), 32, seed=0)
    assert scores.dtype == torch.float32
    assert scores.min() >= 0
    assert scores.max() < 1
    shares = torch.histc(scores, bins=16, min=0, max=1) / scores.numel()
    assert (shares * 16 - 1).abs().max() < 0.06
    assert (scores.mean(0) - 0.5).abs().max() < 0.03
    assert abs(torch.corrcoef(torch.stack([scores[:, 0], scores[:, 1]]))[0, 1]) < 0.08


def test_selection_never_asks_the_device_for_a_value() -> None:
    """On the meta device there are no values, so that anything that would wait for one fails."""
    valid = torch.ones(2, 8, dtype=torch.bool, device="meta")
    scores = random_score(torch.arange(2, device="meta"), 8, seed=1)
    received = received_score(torch.rand(2, 3, 8, 8, device="meta"), valid)
    for eligible in (eligible_BL(valid, ~valid), cls_eligible(valid)):
        for tokens in (3, None):
            positions, counts = top_positions(scores + received, eligible, tokens)
            assert positions.shape == (2, tokens or 8)
            assert counts.shape == (2,)
