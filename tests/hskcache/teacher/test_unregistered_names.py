"""A score, scheme or map that is in the spec and nowhere else is an error, not the next best thing."""

from typing import Any

import numpy as np
import pytest
import torch

from hskcache.build.positions import PaddedRows, Positions
from hskcache.errors import SpecError
from hskcache.resolved import hidden_field
from hskcache.selection.depth import kept_layers
from hskcache.spec import Depth, Hidden, Length, Width
from hskcache.store.manifest import TeacherInfo
from hskcache.teacher.capture import Captured


def rows() -> PaddedRows:
    ids_BL = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0]])
    return PaddedRows(ids_BL, ids_BL > 0, torch.arange(2), {"hidden": np.array([2, 2])})


def chosen(**length: Any) -> torch.Tensor:
    """Positions of one layer where the forward pass has left no score behind."""
    kept = Length.model_construct(**{"tokens": 2, "score_layer": "producing", "specials": True, "seed": 0} | length)
    return Positions(kept, [1], 4, frozenset()).choose(Captured(), rows())[1]


@pytest.mark.parametrize("score", ["entropy", "attention"])
def test_a_score_that_nobody_computes_is_not_the_order_of_the_row(score: str) -> None:
    """Neither one without a function nor one that was not captured."""
    with pytest.raises((SpecError, KeyError)):
        chosen(score=score)
    assert chosen(score="left").tolist() == [[0, 1], [0, 1]]


def test_a_layer_to_score_by_is_one_of_those_that_are_known() -> None:
    with pytest.raises(AssertionError):
        chosen(score="attention", score_layer="middle")


def test_a_width_scheme_is_not_taken_for_magnitude() -> None:
    size = {"num_layers": 4, "width": 32, "num_heads": 4}
    teacher = TeacherInfo.model_construct(**size)
    width = Width.model_construct(scheme="variance", fraction=0.5, seed=0)
    with pytest.raises(AssertionError):
        hidden_field(Hidden.model_construct(**dict(Hidden()) | {"width": width}), teacher)


def test_a_map_is_not_taken_for_bottom() -> None:
    with pytest.raises(AssertionError):
        kept_layers(Depth.model_construct(**dict(Depth()) | {"student_layers": 2, "mapping": "middle"}), 4)
