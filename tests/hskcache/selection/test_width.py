import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hskcache.errors import TeacherError
from hskcache.selection.columns import num_columns, uniform_columns
from hskcache.selection.width import (
    magnitude_columns,
    pca_components,
    random_columns,
)

# Few distinct magnitudes, so that ties and their rule decide most cases.
# Each as float32 has it: numpy 1 tells 3e38 from its neighbour, and hypothesis refuses what an array cannot hold.
TIED = st.sampled_from(
    [float(np.float32(x)) for x in (0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-45, -1e-40, 3e38, np.inf, -np.inf)]
)


@pytest.mark.parametrize(
    ("width", "fraction", "expected"),
    [(768, 0.1, 77), (768, 0.01, 8), (768, 0.4, 307), (768, 1.0, 768), (5, 0.5, 2), (7, 0.5, 4), (4, 0.01, 1)],
)
def test_the_number_of_columns_is_rounded_half_to_even_and_at_least_1(
    width: int, fraction: float, expected: int
) -> None:
    assert num_columns(width, fraction) == expected


def test_uniform_columns_are_those_of_the_paper() -> None:
    tenth = uniform_columns(768, 0.1)
    assert tenth == list(range(0, 751, 10))
    assert len(tenth) == 76
    two_fifths = uniform_columns(768, 0.4)
    assert len(two_fifths) == 307
    assert two_fifths[:6] == [0, 2, 5, 8, 10, 12]
    assert uniform_columns(768, 0.01) == [0, 100, 200, 300, 400, 500, 600]


@given(width=st.integers(1, 1100), fraction=st.floats(1e-4, 1.0))
def test_uniform_columns_are_distinct_ascending_and_inside_the_width(width: int, fraction: float) -> None:
    columns = uniform_columns(width, fraction)
    assert columns == sorted(set(columns))
    assert columns[0] == 0
    assert columns[-1] < width
    assert abs(len(columns) - num_columns(width, fraction)) <= 1


def test_random_columns_are_a_fixed_set_of_a_seed() -> None:
    """The literals pin the set across versions: a cache's columns can be drawn again from its spec."""
    assert random_columns(20, 6, seed=0).tolist() == [11, 12, 13, 14, 15, 17]
    assert random_columns(20, 6, seed=1).tolist() == [0, 7, 11, 13, 16, 18]


@given(width=st.integers(1, 200), data=st.data(), seed=st.integers(0, 2**70))
def test_random_columns_are_exactly_w_distinct_ascending_columns(width: int, data: st.DataObject, seed: int) -> None:
    wanted = data.draw(st.integers(1, width))
    columns = random_columns(width, wanted, seed).tolist()
    assert len(columns) == wanted
    assert columns == sorted(set(columns))
    assert columns[0] >= 0
    assert columns[-1] < width


def test_random_columns_favour_no_column() -> None:
    counts = torch.zeros(24)
    for seed in range(2000):
        counts[random_columns(24, 6, seed)] += 1
    assert (counts / 500 - 1).abs().max() < 0.2


def test_magnitude_is_decided_position_by_position() -> None:
    values = torch.tensor([[1.0, -9, 2, 8], [0.1, 0.2, -0.3, 0.4]])
    assert magnitude_columns(values, 2).tolist() == [[1, 3], [2, 3]]


def test_equal_magnitudes_keep_exactly_w_of_the_lowest_columns() -> None:
    assert magnitude_columns(torch.ones(2, 3, 768), 77).tolist() == [[list(range(77))] * 3] * 2


def test_nan_is_kept_before_everything_whatever_its_sign() -> None:
    values = torch.tensor([[torch.inf, 1.0, torch.nan, 2.0, -torch.nan]])
    assert magnitude_columns(values, 2).tolist() == [[2, 4]]


@given(values=hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 40)), elements=TIED), data=st.data())
def test_magnitude_columns_are_those_of_a_stable_sort(values: np.ndarray, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, values.shape[1]))
    order = np.argsort(-np.abs(values), axis=1, kind="stable")
    found = magnitude_columns(torch.from_numpy(values), wanted).numpy()
    assert np.array_equal(found, np.sort(order[:, :wanted], axis=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_magnitude_columns_of_a_hidden_state_in_the_teachers_dtype(dtype: torch.dtype) -> None:
    values = torch.randn(64, 768, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = values.float().abs().sort(dim=-1, descending=True, stable=True).indices[:, :77].sort(-1).values
    assert torch.equal(magnitude_columns(values, 77), expected)


def test_magnitude_never_asks_the_device_for_a_value() -> None:
    assert magnitude_columns(torch.rand(5, 16, device="meta"), 3).shape == (5, 3)


def test_principal_components_are_those_of_a_singular_value_decomposition() -> None:
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(300, 12, generator=generator) * torch.linspace(3, 0.5, 12) + 5
    mean, basis = pca_components(sample, 4)
    assert mean.dtype == basis.dtype == torch.float32
    assert torch.allclose(mean, sample.mean(0), atol=1e-5)
    expected = torch.linalg.svd(sample.double() - sample.double().mean(0)).Vh[:4]
    agreement = (basis.double() * expected).sum(1).abs()
    assert torch.allclose(agreement, torch.ones(4, dtype=torch.float64), atol=1e-6)


def test_principal_components_are_orthonormal_with_their_largest_entry_positive() -> None:
    basis = pca_components(torch.randn(40, 9, generator=torch.Generator().manual_seed(0)), 9).basis
    assert torch.allclose(basis @ basis.T, torch.eye(9), atol=1e-6)
    assert (basis.gather(1, basis.abs().argmax(1, keepdim=True)) > 0).all()


def test_principal_components_reconstruct_a_plane_exactly_and_leave_the_sample_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    sample = (torch.randn(50, 2, generator=generator) @ torch.randn(2, 10, generator=generator) + 1).double()
    before = sample.clone()
    mean, basis = pca_components(sample, 2)
    rebuilt = (sample.float() - mean) @ basis.T @ basis + mean
    assert torch.allclose(rebuilt, sample.float(), atol=1e-5)
    assert torch.equal(sample, before)


def test_principal_components_exist_for_fewer_states_than_directions() -> None:
    basis = pca_components(torch.tensor([[1.0, 2, 3, 4]]), 3).basis
    assert torch.allclose(basis @ basis.T, torch.eye(3), atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_principal_components_of_broken_states_are_refused(bad: float) -> None:
    with pytest.raises(TeacherError, match="NaN or infinity"):
        pca_components(torch.tensor([[1.0, bad], [2.0, 3.0]]), 1)
