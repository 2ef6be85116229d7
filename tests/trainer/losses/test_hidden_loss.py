"""The hidden-state loss, against the exact case of the paper and a dense reference over [P, D] targets."""

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainer.batch import HiddenTarget
from trainer.losses import hidden_loss

Missing = Literal["zero", "ignore"]
KINDS = ("all", "shared", "own", "pca")
BATCH, LENGTH, STUDENT, TEACHER, KEPT = 3, 5, 4, 6, 2


def target_of(kind: str, positions: int, generator: torch.Generator) -> HiddenTarget:
    """Random kept states at distinct positions."""
    index = torch.randperm(BATCH * LENGTH, generator=generator)[:positions]
    width = TEACHER if kind == "all" else KEPT
    values = torch.randn(positions, width, generator=generator)
    columns = mean = basis = None
    if kind == "shared":
        columns = torch.tensor([1, 4])
    if kind == "own":
        columns = torch.stack([torch.randperm(TEACHER, generator=generator)[:KEPT] for _ in range(positions)])
    if kind == "pca":
        mean = torch.randn(TEACHER, generator=generator)
        basis = torch.linalg.qr(torch.randn(TEACHER, KEPT, generator=generator))[0].T.contiguous()
    return HiddenTarget(index, values, columns, TEACHER, mean, basis)


def dense(states_BLD: Tensor, target: HiddenTarget, missing: Missing, num_positions: int) -> Tensor:
    """The same loss with every target written out as a row of D numbers."""
    states = states_BLD.flatten(0, 1)[target.index_P]
    if target.basis_WD is not None:
        assert target.mean_D is not None
        outside = torch.eye(TEACHER) - target.basis_WD.T @ target.basis_WD
        inside = (states - target.mean_D) @ target.basis_WD.T
        if missing == "ignore":
            return (inside - target.values_PW).square().sum() / (num_positions * KEPT)
        # Dropped components are targets of 0: the target is mean + values along the basis.
        full = target.mean_D + target.values_PW @ target.basis_WD
        assert torch.allclose(outside @ target.basis_WD.T, torch.zeros(TEACHER, KEPT), atol=1e-5)
        return (states - full).square().sum() / (num_positions * TEACHER)
    written, kept = torch.zeros(len(states), TEACHER), torch.zeros(len(states), TEACHER, dtype=torch.bool)
    for row in range(len(states)):
        columns = target.columns
        own = torch.arange(TEACHER) if columns is None else columns if columns.dim() == 1 else columns[row]
        written[row, own] = target.values_PW[row]
        kept[row, own] = True
    error = (states - written).square()
    if missing == "zero":
        return error.sum() / (num_positions * TEACHER)
    return error[kept].sum() / (num_positions * target.values_PW.shape[1])


@pytest.mark.parametrize(("missing", "expected"), [("zero", 2.5), ("ignore", 4.0)])
@pytest.mark.parametrize("shared", [True, False])
def test_dropped_columns_are_zeros_or_nothing(missing: Missing, expected: float, shared: bool) -> None:
    """Student [1, 1, 1, 1], kept {0: 3, 3: -1}."""
    columns = torch.tensor([0, 3]) if shared else torch.tensor([[0, 3]])
    target = HiddenTarget(torch.tensor([0]), torch.tensor([[3.0, -1.0]]), columns, width=4)
    assert hidden_loss(torch.ones(1, 1, 4), target, None, missing, num_positions=1).item() == expected


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    missing=st.sampled_from(["zero", "ignore"]),
    projected=st.booleans(),
    positions=st.integers(1, BATCH * LENGTH),
    seed=st.integers(0, 1000),
)
def test_the_loss_and_its_gradients_are_those_of_the_dense_one(
    kind: str, missing: Missing, projected: bool, positions: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = target_of(kind, positions, generator)
    projection = nn.Linear(STUDENT, TEACHER) if projected else None
    width = STUDENT if projected else TEACHER
    states = torch.randn(BATCH, LENGTH, width, generator=generator, requires_grad=True)
    inputs = [states, *(projection.parameters() if projection is not None else [])]
    ours = hidden_loss(states, target, projection, missing, num_positions=17)
    theirs = dense(projection(states) if projection is not None else states, target, missing, num_positions=17)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for mine, reference in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", ["zero", "ignore"])
def test_slices_of_a_batch_add_up_to_its_loss(kind: str, missing: Missing) -> None:
    """Each slice divides by the positions of the whole batch, so ragged slices weigh what they hold."""
    generator = torch.Generator().manual_seed(1)
    whole = target_of(kind, 9, generator)
    states = torch.randn(BATCH, LENGTH, TEACHER, generator=generator)
    rows = whole.index_P // LENGTH

    def part(row: int) -> Tensor:
        mine = rows == row
        own = whole.columns[mine] if whole.columns is not None and whole.columns.dim() == 2 else whole.columns
        index = whole.index_P[mine] - row * LENGTH
        target = HiddenTarget(index, whole.values_PW[mine], own, TEACHER, whole.mean_D, whole.basis_WD)
        return hidden_loss(states[row : row + 1], target, None, missing, num_positions=9)

    expected = hidden_loss(states, whole, None, missing, num_positions=9)
    torch.testing.assert_close(torch.stack([part(row) for row in range(BATCH)]).sum(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_states_give_a_float32_loss(kind: str) -> None:
    target = target_of(kind, 9, torch.Generator().manual_seed(0))
    projection = nn.Linear(STUDENT, TEACHER)
    states = torch.randn(BATCH, LENGTH, STUDENT)
    exact = hidden_loss(states, target, projection, "zero", 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = hidden_loss(states.bfloat16(), target, projection, "zero", 9)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_the_part_outside_the_components_is_not_rounded_away_under_autocast() -> None:
    """A student that is right but for one direction outside the components: what is left is small beside the states."""
    width, kept = 64, 8
    basis = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0].T.contiguous()
    values = torch.full((1, kept), 100.0)
    target = HiddenTarget(torch.tensor([0]), values, None, width, torch.zeros(width), basis[:kept])
    states = (values @ basis[:kept] + basis[kept]).view(1, 1, width)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = hidden_loss(states, target, None, "zero", 1)
    assert loss.item() == pytest.approx(1 / width, rel=0.1)


def test_a_way_to_count_what_is_missing_is_not_taken_for_zero() -> None:
    target = HiddenTarget(torch.tensor([0]), torch.ones(1, 2), torch.tensor([[0, 1]]), width=4)
    missing: Any = "mean"
    with pytest.raises(AssertionError):
        hidden_loss(torch.ones(1, 1, 4), target, None, missing, 1)
