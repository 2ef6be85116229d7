"""Hidden states as they are built: positions first, then columns, then the encoding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.build.kinds.abc import (
    ARRAY_BYTES,
    Arrays,
    BuiltKind,
    Encoded,
    FieldBasis,
    Run,
    Size,
    kept_counts,
    num_nonfinite,
)
from hskcache.build.positions import PaddedRows, Positions, owners, positions_of
from hskcache.encoded import ENCODED, column_bytes
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import pack_columns
from hskcache.ragged import ragged_index
from hskcache.resolved import hidden_field
from hskcache.selection.columns import uniform_columns
from hskcache.selection.width import magnitude_columns, pca_components, random_columns
from hskcache.spec import Hidden, Spec
from hskcache.store.fields import layer_name
from hskcache.store.kinds.hidden import HiddenField, HiddenStates
from hskcache.teacher.capture import Captured, Wanted
from hskcache.text import TokenizedRows

if TYPE_CHECKING:
    from hskcache.build.job import Job

PCA_SAMPLE_POSITIONS = 1 << 16


@dataclass(frozen=True)
class KeptStates:
    """Kept hidden states of one layer over a batch; a row's positions stand together, best first.

    Attributes:
        positions_P: position of each kept state in its row, int64.
        values_PW: kept values, float32; with ``pca`` the coordinates along the components.
        columns_PW: kept columns, ascending, int64; None where all positions share them.
    """

    positions_P: Tensor
    values_PW: Tensor
    columns_PW: Tensor | None


class HiddenSelector:
    """The three dimensions of one spec, and the encoding.

    Args:
        hidden: what to keep.
        field: how it is stored.
        positions: the length dimension.
        constants: what all rows share, by the names of the format.
        device: of the teacher.
    """

    name = HiddenStates.name

    def __init__(
        self,
        hidden: Hidden,
        field: HiddenField,
        positions: Positions,
        constants: Mapping[str, NDArray[np.generic]],
        device: torch.device,
    ) -> None:
        self.hidden = hidden
        self.field = field
        self.positions = positions
        self.constants = {
            name: torch.from_numpy(np.ascontiguousarray(_signed(array))).to(device) for name, array in constants.items()
        }

    @property
    def wanted(self) -> Wanted:
        """The stored layers, and the scores that choose their positions."""
        return Wanted(hidden=frozenset(self.field.layers)) | self.positions.wanted

    def select(self, captured: Captured, rows: PaddedRows) -> dict[int, KeptStates]:
        """Kept entries of every stored layer."""
        chosen = self.positions.choose(captured, rows)
        kept_B = rows.kept_B[self.name]
        slots_BK = next(iter(chosen.values())).shape
        device = rows.input_ids_BL.device
        flat = ragged_index(np.arange(slots_BK[0]) * slots_BK[1], kept_B, device)
        return {layer: self._columns(layer, captured.hidden[layer], chosen[layer], flat) for layer in self.field.layers}

    def encode(self, kept: KeptStates, rows: PaddedRows) -> Encoded:
        """Positions, values, scales and columns of one layer, kept positions first."""
        encoding = get_encoding(self.field.encoding)
        values = encoding.encode(kept.values_PW)
        arrays = {"positions": kept.positions_P.to(torch.int16), **values}
        if kept.columns_PW is not None:
            match self.field.columns:
                case "bitmask":
                    arrays["bitmask"] = pack_columns(kept.columns_PW, self.field.width)
                case "indices":
                    arrays["columns"] = kept.columns_PW.to(torch.int16)
                case columns:
                    raise AssertionError(f"{columns} are not of a position alone")
        # What is read back counts: an encoding of less range than the states may overflow.
        bad = num_nonfinite(encoding.decode(values, self.field.num_columns))
        kept_B = rows.kept_B[self.name]
        nonfinite = torch.zeros(len(kept_B), dtype=torch.int32, device=bad.device)
        return Encoded(arrays, nonfinite.index_add_(0, owners(kept_B, bad.device), bad))

    def _columns(self, layer: int, hidden_BLD: Tensor, positions_BK: Tensor, slots: Tensor) -> KeptStates:
        batch, length, width = hidden_BLD.shape
        positions = positions_BK.reshape(-1).index_select(0, slots)
        rows = torch.div(slots, positions_BK.shape[1], rounding_mode="floor")
        states = hidden_BLD.reshape(batch * length, width).index_select(0, rows * length + positions).float()
        name = layer_name(layer)
        match self.field.columns:
            case "all":
                return KeptStates(positions, states, None)
            case "shared":
                return KeptStates(positions, states.index_select(1, self.constants[f"{name}/columns"].long()), None)
            case "pca":
                basis, mean = self.constants[f"{name}/basis"], self.constants[f"{name}/mean"]
                return KeptStates(positions, (states - mean) @ basis.T, None)
            case "indices" | "bitmask":
                columns = magnitude_columns(states, self.field.num_columns)
                return KeptStates(positions, states.gather(-1, columns), columns)
            case unknown:
                assert_never(unknown)


class BuiltHidden(BuiltKind[HiddenField]):
    """Building of the layers, positions and columns that the spec names."""

    def field(self, asked: FieldBasis) -> HiddenField | None:
        """Field of the layers and columns that the spec names."""
        return None if asked.spec.hidden is None else hidden_field(asked.spec.hidden, asked.teacher)

    def size(self, field: HiddenField, spec: Spec, rows: TokenizedRows) -> Size:
        """Size of a vector for every position, layer by layer."""
        assert spec.hidden is not None
        kept_N = kept_counts(spec.hidden.length, rows)
        row_bytes_N = kept_N * position_bytes(field) * len(field.layers) + 8
        return Size(row_bytes_N, 1 + 4 * len(field.layers), kept_N, _constant_bytes(field))

    def wanted(self, field: HiddenField, asked: FieldBasis) -> Wanted:
        """The stored layers, and the scores that choose their positions."""
        assert asked.spec.hidden is not None
        positions = positions_of(asked.spec.hidden, field.layers, asked.teacher.num_layers, frozenset())
        return Wanted(hidden=frozenset(field.layers)) | positions.wanted

    def constants(self, job: "Job", field: HiddenField, run: Run, sample_rows: int) -> Arrays:
        """The columns of a fixed choice, or the principal components of a sample."""
        hidden = job.spec.hidden
        assert hidden is not None
        if field.columns == "shared":
            columns = _columns(hidden, field)
            return {f"{layer_name(layer)}/columns": columns for layer in field.layers}
        if field.columns != "pca":
            return {}
        constants: Arrays = {}
        for layer, states in self._sample(job, field, run, sample_rows).items():
            components = pca_components(states, field.num_columns)
            constants[f"{layer_name(layer)}/mean"] = components.mean.numpy()
            constants[f"{layer_name(layer)}/basis"] = components.basis.numpy()
        return constants

    def selector(self, job: "Job", field: HiddenField, constants: Mapping[str, NDArray[Any]]) -> HiddenSelector:
        """The three dimensions of the spec."""
        hidden = job.spec.hidden
        assert hidden is not None
        positions = positions_of(hidden, field.layers, job.teacher.info.num_layers, job.rows.special_ids)
        return HiddenSelector(hidden, field, positions, constants, job.teacher.device)

    def _sample(self, job: "Job", field: HiddenField, run: Run, sample_rows: int) -> dict[int, torch.Tensor]:
        """Kept states of a sample of rows with all their columns, float32 [P, D] on the host, by layer."""
        whole = field.model_copy(update={"columns": "all", "num_columns": field.width})
        kept_N = job.layout.kept_N[HiddenStates.name]
        count = max(1, min(len(kept_N), sample_rows, int(PCA_SAMPLE_POSITIONS / kept_N.mean())))
        rows = np.unique(np.linspace(0, len(kept_N) - 1, count).astype(np.int64))
        states: dict[int, list[torch.Tensor]] = {layer: [] for layer in field.layers}
        for kept in run(self.selector(job, whole, {}), rows):
            for layer, entries in kept.items():
                states[layer].append(entries.values_PW.cpu())
        return {layer: torch.cat(parts) for layer, parts in states.items()}


def position_bytes(field: HiddenField) -> int:
    """Bytes of one kept position of one layer before compression: values, scales, columns and the position itself."""
    columns = column_bytes(field.num_columns, field.width)[1] if field.columns in {"bitmask", "indices"} else 0
    return ENCODED[field.encoding].num_bytes(field.num_columns) + columns + 2


def _constant_bytes(field: HiddenField) -> int:
    per_layer = {"shared": 2 * field.num_columns, "pca": 4 * field.width * (field.num_columns + 1)}
    if field.columns not in per_layer:
        return 0
    return len(field.layers) * (per_layer[field.columns] + 2 * ARRAY_BYTES)


def _columns(hidden: Hidden, field: HiddenField) -> NDArray[np.uint16]:
    match hidden.width.scheme:
        case "uniform":
            columns = uniform_columns(field.width, hidden.width.fraction)
        case "random":
            columns = random_columns(field.width, field.num_columns, hidden.width.seed).tolist()
        case scheme:
            raise AssertionError(f"{scheme} shares no columns")
    return np.array(columns, np.uint16)


def _signed(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Unsigned 16-bit as 32-bit: torch computes little in uint16."""
    return array.astype(np.int32) if array.dtype == np.uint16 else array
