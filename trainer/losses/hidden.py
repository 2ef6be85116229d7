"""Hidden-state loss on the kept entries alone [MUD 2.2]; no dense [L, D] target is ever built."""

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hskcache.selection.depth import LayerPair
from trainer.batch import HiddenTarget
from trainer.losses.abc import LossTerm, Seen, present, total
from trainer.losses.matches import Matches
from trainer.recipe import EmbeddingTerm, HiddenTerm, StatesTerm

Missing = Literal["zero", "ignore"]
States = TypeVar("States", bound=StatesTerm)


class _OnStates(LossTerm[States]):
    """The loss of the layers that a term compares, added up."""

    sees_states = True
    has_layers = True

    def loss(self, settings: States, seen: Seen) -> Tensor:
        """Loss over the kept positions of the global batch."""
        losses = []
        for match in self.pairs(settings, seen.matches):
            target = present(seen.batch.hidden.get(match.teacher), f"hidden states of layer {match.teacher}")
            projection = seen.projection(match, settings)
            states_BLd = seen.output.hidden_states[match.student]
            losses.append(hidden_loss(states_BLd, target, projection, settings.missing, seen.batch.num_positions))
        return total(losses, "hidden states")


class EmbeddingLoss(_OnStates[EmbeddingTerm]):
    """Loss on the embedding outputs."""

    what = "the embedding output (layer 0)"
    keep: ClassVar[Mapping[str, str]] = {"--keep": "full"}

    def pairs(self, settings: EmbeddingTerm, matches: Matches) -> tuple[LayerPair, ...]:
        """Pair of layer 0, where the embedding output is kept."""
        return tuple(match for match in super().pairs(settings, matches) if match.student == 0)


class HiddenLoss(_OnStates[HiddenTerm]):
    """Loss on the layers, and on the embedding outputs where the settings say so."""

    keep: ClassVar[Mapping[str, str]] = {"--keep": "1l_10t_0.1h"}

    def pairs(self, settings: HiddenTerm, matches: Matches) -> tuple[LayerPair, ...]:
        """Pairs of the layers, and that of layer 0."""
        return tuple(match for match in super().pairs(settings, matches) if match.student > 0 or settings.embedding)


def hidden_loss(
    student_BLd: Tensor, target: HiddenTarget, projection: nn.Linear | None, missing: Missing, num_positions: int
) -> Tensor:
    """Mean squared error between projected student states and the kept teacher states of one layer.

    With s the projected student state of a kept position and v its kept values in columns C: ``ignore`` averages (s_c -
    v_c)^2 over C; ``zero`` takes the dropped columns as targets of 0 and averages over all D: |s|^2 - |s_C|^2 + |s_C -
    v|^2. With principal components, s_C is the projection of s - mean onto them and |s|^2 becomes |s - mean|^2. Returns
    a scalar in float32.

    Args:
        student_BLd: hidden states of one student layer, d wide.
        target: kept teacher states.
        projection: Linear d -> D; None where d = D.
        missing: what a dropped column counts as.
        num_positions: kept positions of the global batch, which this slice is a part of.
    """
    states = student_BLd.flatten(0, 1).index_select(0, target.index_P)
    values = target.values_PW
    if missing == "ignore" and target.columns is not None and target.columns.dim() == 1:
        return _squared(_project(states, projection, target.columns) - values) / (num_positions * values.shape[1])
    states = _project(states, projection, None)
    if target.mean_D is not None:
        states = states - target.mean_D
    kept = _kept(states, target)
    error = _squared(kept - values)
    match "ignore" if target.width == values.shape[1] else missing:
        case "ignore":
            return error / (num_positions * values.shape[1])
        case "zero":
            return (_squared(states) - _squared(kept) + error) / (num_positions * target.width)
        case unknown:
            assert_never(unknown)


def _project(states_Pd: Tensor, projection: nn.Linear | None, columns_W: Tensor | None) -> Tensor:
    """States in the teacher's width, float32; only ``columns_W`` of them where those are all that is needed."""
    if projection is None:
        return (states_Pd if columns_W is None else states_Pd.index_select(1, columns_W)).float()
    if columns_W is None:
        return F.linear(states_Pd, projection.weight, projection.bias).float()
    weight, bias = projection.weight.index_select(0, columns_W), projection.bias.index_select(0, columns_W)
    return F.linear(states_Pd, weight, bias).float()


def _kept(states_PD: Tensor, target: HiddenTarget) -> Tensor:
    """The student's side of the kept values, [P, W]."""
    if target.basis_WD is not None:
        # Not under autocast: the part outside the components is a small difference of two large squares.
        with torch.autocast(states_PD.device.type, enabled=False):
            return states_PD @ target.basis_WD.T
    if target.columns is None:
        return states_PD
    if target.columns.dim() == 1:
        return states_PD.index_select(1, target.columns)
    return states_PD.gather(1, target.columns)


def _squared(tensor: Tensor) -> Tensor:
    return tensor.square().sum()
