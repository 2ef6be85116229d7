"""What is kept of a distribution over a vocabulary, against float64 and its definition."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hskcache.selection.vocabulary import (
    chunks,
    drawn_tokens,
    gaps_of,
    likeliest,
    packed_ids,
    stored_top,
    top_tokens,
    uniforms,
)
from hskcache.store.kinds.vocabulary import VocabularyField, log_probabilities, unpacked
from trainer.loading.kinds.vocabulary import log_probabilities as loaded


def logits(num: int, vocab_size: int, spread: float, seed: int = 0) -> Tensor:
    return spread * torch.randn(num, vocab_size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("count", [2, 8, 49])
def test_log_probabilities_come_back_within_their_bound_and_add_up_with_the_tail(spread: float, count: int) -> None:
    given = logits(200, 50, spread)
    exact = given.double().log_softmax(-1)
    top, log_z_C = top_tokens(given.clone(), count)
    assert torch.allclose(log_z_C, given.logsumexp(-1), rtol=1e-6)
    expected, ids = exact.topk(count)
    if spread:
        assert torch.equal(top.ids_PK, ids)
    stored = stored_top(top)
    arrays = {name: tensor.numpy() for name, tensor in stored._asdict().items()}
    found = torch.from_numpy(log_probabilities(arrays))
    ranges, tail = stored.ranges.double().unsqueeze(-1), stored.log_tail.double().unsqueeze(-1)
    # Half a step of the token, as much of the mean of all, and what float16 rounds of range and tail.
    allowed = ranges / 255 + ranges * 2.0**-10 + 2.0**-10 + 1e-5
    assert bool(((found - expected).abs() <= allowed).all())
    assert torch.allclose(found.exp().sum(-1, keepdim=True) + tail.exp(), torch.ones(200, 1, dtype=torch.float64))
    mass = 1 - expected.exp().sum(-1, keepdim=True)
    assert torch.allclose(tail.exp(), mass, rtol=2.0**-7, atol=2e-3)
    assert torch.allclose(loaded(*stored).double(), found, atol=1e-5)
    assert bool((found.diff(dim=-1) <= 0).all())


@pytest.mark.parametrize("vocab_size", [2, 50, 1021, 4096, 50_257])
@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_likeliest_come_by_their_logit_and_of_equal_ones_the_lowest_id_first(vocab_size: int, count: int) -> None:
    count = min(count, vocab_size)
    # Rounded, so that most are equal to others; and all alike, both zeros, and hardly any that can be said.
    coarse = logits(20, vocab_size, 3.0).round()
    zeros = torch.zeros(1, vocab_size)
    zeros[:, ::2] = -0.0
    ruled_out = torch.full((1, vocab_size), -torch.inf)
    ruled_out[:, vocab_size // 2] = -3.0
    given = torch.cat([coarse, logits(20, vocab_size, 3.0), zeros, ruled_out])
    found = likeliest(given, count)
    assert torch.equal(found, given.sort(dim=-1, descending=True, stable=True).indices[:, :count])
    # Whatever else the batch holds.
    assert all(torch.equal(likeliest(row[None], count)[0], ids) for row, ids in zip(given, found, strict=True))
    assert likeliest(given[:0], count).shape == (0, count)


def test_the_tail_of_a_sharp_distribution_is_not_lost() -> None:
    given = torch.zeros(1, 100)
    given[0, :3] = torch.tensor([60.0, 59.0, 58.0])
    top, _ = top_tokens(given.clone(), 3)
    expected = torch.tensor([97.0]).log() - given.double().logsumexp(-1)
    assert torch.allclose(stored_top(top).log_tail.double(), expected, rtol=1e-3)


def test_of_a_certain_teacher_all_is_finite() -> None:
    given = torch.full((2, 40), -2e4)
    given[:, 7] = 0.0
    stored = stored_top(top_tokens(given.clone(), 4)[0])
    assert all(bool(one.float().isfinite().all()) for one in stored)
    assert float(loaded(*stored)[0, 0]) == 0.0


def test_draws_are_those_of_systematic_sampling() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    # Points 0.05, 0.15 ... 0.95 of the cumulative distribution 0.5, 0.8, 1.
    drawn, log_z_C = drawn_tokens(p.log().float(), torch.tensor([0.5], dtype=torch.float64), 10)
    assert torch.allclose(log_z_C, torch.zeros(1), atol=1e-6)
    assert drawn.tolist() == [[0] * 5 + [1] * 3 + [2] * 2]


@pytest.mark.parametrize("vocab_size", [2, 63, 64, 65, 1000, 1021])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_draws_found_block_by_block_are_those_of_the_whole_distribution(vocab_size: int, count: int) -> None:
    given = logits(100, vocab_size, 4.0)
    given[:, vocab_size // 2] = -torch.inf
    u = torch.rand(100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    below = given.double().softmax(-1).cumsum(-1)
    points = (torch.arange(count) + u[:, None]) / count
    drawn, _ = drawn_tokens(given.clone(), u, count)
    # As far as sums of float32 tell.
    earliest, latest = (torch.searchsorted(below, points + off, right=True) for off in (-1e-6, 1e-6))
    assert bool((drawn >= earliest).all())
    assert bool((drawn <= latest.clamp(max=vocab_size - 1)).all())
    assert bool((drawn != vocab_size // 2).all())


def test_tokens_that_cannot_be_said_leave_no_tail() -> None:
    given = torch.full((1, 40), -torch.inf)
    given[0, :3] = torch.tensor([1.0, 2.0, 3.0])
    top, log_z_C = top_tokens(given.clone(), 3)
    assert torch.allclose(log_z_C, given.logsumexp(-1))
    assert torch.allclose(top.logp_PK.exp().sum(), torch.tensor(1.0))
    assert float(top.log_tail_P) == -torch.inf


@pytest.mark.parametrize("count", [1, 7, 50])
def test_no_token_is_drawn_a_whole_time_more_or_less_often_than_on_average(count: int) -> None:
    given = logits(300, 60, 3.0)
    p = given.double().softmax(-1)
    u = torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn, log_z_C = drawn_tokens(given.clone(), u, count)
    assert torch.allclose(log_z_C, given.logsumexp(-1), rtol=1e-6)
    counts = torch.zeros_like(p).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    assert bool(((counts - count * p).abs() < 1 + 1e-5).all())
    assert bool((drawn.diff(dim=-1) >= 0).all())


def test_draws_are_unbiased_over_seeds_and_vary_less_than_independent_ones() -> None:
    num, count = 2000, 10
    given = logits(1, 30, 1.5).expand(num, -1)
    p = given[0].double().softmax(-1)
    rows = torch.zeros(num, dtype=torch.int64)
    u = torch.cat([uniforms(rows[:1], rows[:1] + 3, seed) for seed in range(num)])
    drawn, _ = drawn_tokens(given.clone(), u, count)
    shares = torch.zeros(num, 30, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(num, count).double()) / count
    independent = p * (1 - p) / count
    assert bool(((shares.mean(0) - p).abs() < 4 * (shares.var(0) / num).sqrt() + 1e-9).all())
    assert float(shares.var(0).sum()) < 0.7 * float(independent.sum())


def test_a_token_without_probability_is_never_drawn() -> None:
    given = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).repeat(3, 1)
    u = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert drawn_tokens(given, u, 4)[0].unique().tolist() == [1]


@pytest.mark.parametrize("vocab_size", [64, 1000])
def test_of_logits_that_are_no_numbers_log_z_is_none_and_ids_are_tokens(vocab_size: int) -> None:
    given = logits(4, vocab_size, 3.0)
    given[1, 5], given[2], given[3, -1] = torch.nan, torch.nan, -torch.nan
    drawn, log_z_C = drawn_tokens(given.clone(), torch.full((4,), 0.5, dtype=torch.float64), 9)
    top, top_z_C = top_tokens(given.clone(), 9)
    for ids, found in ((drawn, log_z_C), (top.ids_PK, top_z_C)):
        assert found.isfinite().tolist() == [True, False, False, False]
        assert bool(((ids >= 0) & (ids < vocab_size)).all())


def test_a_uniform_number_depends_on_seed_row_and_position_alone() -> None:
    rows, places = torch.arange(40).repeat_interleave(50), torch.arange(50).repeat(40)
    u = uniforms(rows, places, 3)
    assert torch.equal(u.flip(0), uniforms(rows.flip(0), places.flip(0), 3))
    assert len(u.unique()) == 2000
    assert not torch.equal(u, uniforms(rows, places, 4))
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    # Neighbours in a row and in a column go their own ways.
    table = (u - 0.5).view(40, 50)
    for pairs in (table[:, 1:] * table[:, :-1], table[1:] * table[:-1]):
        assert abs(float(pairs.mean())) < 4 / 12 / pairs.numel() ** 0.5


@pytest.mark.parametrize("vocab_size", [300, 65_536, 65_537, 131_072, 131_073, 151_936, 1 << 20])
@pytest.mark.parametrize("count", [2, 3, 7, 8, 32])
def test_ids_come_back_whatever_the_vocabulary(vocab_size: int, count: int) -> None:
    drawn = np.random.default_rng(0).integers(0, vocab_size, (20, count))
    drawn[0, :2] = (0, vocab_size - 1)
    for form in ("top", "sampled"):
        field = VocabularyField(form=form, vocab_size=vocab_size, count=count)
        expected = drawn if form == "top" else np.sort(drawn, -1)
        ids = torch.from_numpy(expected)
        low, high = packed_ids(ids if form == "top" else gaps_of(ids), field.high_bits)
        name = "ids" if form == "top" else "gaps"
        arrays = {name: low.numpy().view(np.uint16)}
        assert (high is None) == (vocab_size <= 65_536)
        if high is not None:
            assert high.shape == (20, field.high_bytes)
            arrays[f"{name}_high"] = high.numpy()
        assert np.array_equal(unpacked(field, arrays), expected)


def test_chunks_cover_all_positions_and_hold_few_logits() -> None:
    for num, size in ((0, 300), (5, 300), (10_000, 151_936), (70_000, 300)):
        parts = list(chunks(num, size))
        assert [place for part in parts for place in range(part.start, part.stop)] == list(range(num))
        assert all((part.stop - part.start) * size <= 1 << 24 for part in parts)
