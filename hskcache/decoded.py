"""What a field stores of some rows as vectors of floats, whatever its kind, and how far two sets of them are apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.cache import AttentionField, Field, HiddenField, InputsField, LogitsField
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.encoding.bitmask import unpack_columns
from hskcache.errors import MismatchError
from hskcache.store.fields import layer_name

Stored = Mapping[str, NDArray[Any]]


class Vectors(NamedTuple):
    """Stored vectors of one layer over some rows.

    Of logits there is one a row, of hidden states one a kept position, of attention one a head and query.

    Attributes:
        rows_V: place of the row among those given, int64.
        heads_V: place of the head among those stored; 0 where there are none, int64.
        positions_V: position of the state or of the query in its row; 0 for logits, int64.
        values_VE: float32; 0 where nothing is stored.
        entries_VE: what each value is of, int64: a class, a hidden column, a component of ``pca``, or the position of
            a key; -1 where nothing is stored.
    """

    rows_V: Tensor
    heads_V: Tensor
    positions_V: Tensor
    values_VE: Tensor
    entries_VE: Tensor


def layers_of(field: Field) -> list[int | None]:
    """The layers of a field; of logits the one that has no number."""
    return list(field.layers) if isinstance(field, HiddenField | AttentionField) else [None]


def decode(field: Field, arrays: Stored, layer: int | None, constants: Stored) -> Vectors:
    """The vectors of one layer of some rows, on the host.

    Args:
        field: how they are stored.
        arrays: of the rows, as a shard holds them.
        layer: teacher layer; None for logits.
        constants: what all rows of the field share.

    Raises:
        MismatchError: the field holds no vectors but tokens.
    """
    if isinstance(field, InputsField):
        raise MismatchError("inputs are tokens and not knowledge of a teacher; give another field")
    if isinstance(field, LogitsField):
        logits = _tensor(arrays["logits"])
        zeros = torch.zeros(len(logits), dtype=torch.int64)
        return Vectors(torch.arange(len(logits)), zeros, zeros, logits, _each(logits))
    assert layer is not None
    prefix = f"{layer_name(layer)}/"
    parts = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    shared = {name.removeprefix(prefix): array for name, array in constants.items() if name.startswith(prefix)}
    counts = np.diff(arrays["position_offsets"])
    if isinstance(field, HiddenField):
        return _hidden(field, parts, counts, shared)
    assert isinstance(field, AttentionField)
    return _attention(field, parts, counts)


def reconstructed(field: Field, vectors: Vectors, layer: int | None, constants: Stored) -> Vectors:
    """Vectors whose coordinates along principal components have become hidden columns again; others as they are."""
    if layer is None or not isinstance(field, HiddenField) or field.columns != "pca":
        return vectors
    mean, basis = (_tensor(constants[f"{layer_name(layer)}/{part}"]) for part in ("mean", "basis"))
    states = vectors.values_VE @ basis + mean
    return vectors._replace(values_VE=states, entries_VE=_each(states))


def _hidden(field: HiddenField, parts: Stored, counts: NDArray[np.int64], shared: Stored) -> Vectors:
    encoding = get_encoding(field.encoding)
    stored = {name: _tensor(parts[name]) for name in ENCODED[field.encoding].of(field.num_columns)}
    values = encoding.decode(stored, field.num_columns)
    match field.columns:
        case "bitmask":
            entries = unpack_columns(_tensor(parts["bitmask"]), field.num_columns, field.width)
        case "indices":
            entries = _tensor(parts["columns"].astype(np.int64))
        case "shared":
            entries = _tensor(shared["columns"].astype(np.int64)).expand(values.shape)
        case "all" | "pca":
            entries = _each(values)
        case unknown:
            assert_never(unknown)
    rows = _tensor(np.repeat(np.arange(len(counts)), counts))
    return Vectors(rows, torch.zeros_like(rows), _tensor(parts["positions"].astype(np.int64)), values, entries)


def _attention(field: AttentionField, parts: Stored, counts: NDArray[np.int64]) -> Vectors:
    encoding, most = get_encoding(field.encoding), max(1, int(counts.max(initial=0)))
    num_vectors = field.num_heads * counts
    rows = np.repeat(np.arange(len(counts)), num_vectors)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(num_vectors) - num_vectors, num_vectors)
    heads, queries = np.divmod(within, counts[rows])
    # One more position, for slots beyond a row's own to point to.
    positions = np.append(parts["positions"].astype(np.int64), -1)
    begin = (np.cumsum(counts) - counts)[rows]
    keys = _slots(begin, counts[rows], most, len(positions) - 1)
    sizes = np.asarray(ENCODED[field.encoding].entries(counts[rows]))
    stored = np.append(parts["values"], np.zeros(1, parts["values"].dtype))
    place = _slots(np.cumsum(sizes) - sizes, sizes, int(ENCODED[field.encoding].entries(most)), len(stored) - 1)
    encoded = {"values": _tensor(stored[place])}
    encoded |= {name: _tensor(parts[name]) for name in ENCODED[field.encoding].beside}
    entries = _tensor(positions[keys])
    values = encoding.decode(encoded, most).masked_fill(entries < 0, 0.0)
    return Vectors(_tensor(rows), _tensor(heads), _tensor(positions[begin + queries]), values, entries)


def _slots(begin: NDArray[np.int64], counts: NDArray[np.int64], num_slots: int, beyond: int) -> NDArray[np.int64]:
    """Places [V, num_slots] of vectors' entries in a flat array; ``beyond`` where a vector is shorter."""
    slots = np.arange(num_slots)
    return np.where(slots < counts[:, None], begin[:, None] + slots, beyond)


def _each(values_VE: Tensor) -> Tensor:
    """Entries 0, 1, 2 ... of every vector."""
    return torch.arange(values_VE.shape[-1]).expand(values_VE.shape)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


@dataclass
class Same:
    """How much two choices have in common: places that each of them chose, and that both did."""

    here: int = 0
    there: int = 0
    both: int = 0

    def add(self, here: Tensor, there: Tensor) -> None:
        """Count the places of two choices, bool tensors of one shape."""
        self.here += int(here.sum())
        self.there += int(there.sum())
        self.both += int((here & there).sum())

    @property
    def share(self) -> float:
        """Chosen by both, of what the one that chose more did; 1 where there was nothing to choose."""
        chosen = max(self.here, self.there)
        return self.both / chosen if chosen else 1.0


@dataclass
class Distance:
    """How far two sets of vectors are apart, gathered piece by piece.

    Attributes:
        num_values: values compared.
        num_nonfinite: of these, pairs of which one at least is NaN or infinite; the other figures leave them out.
        max_abs: largest absolute difference.
        sum_abs: sum of the absolute differences.
        num_vectors: vectors that have a direction on both sides.
        sum_cosine: sum of their cosines.
        num_distributions: vectors compared as scores.
        sum_divergence: sum over these of the Kullback-Leibler divergence, in nats.
    """

    num_values: int = 0
    num_nonfinite: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    num_vectors: int = 0
    sum_cosine: float = 0.0
    num_distributions: int = 0
    sum_divergence: float = 0.0

    def add(self, here_VE: Tensor, there_VE: Tensor, valid_VE: Tensor, are_scores: bool) -> None:
        """Compare vectors with others.

        Args:
            here_VE: float32.
            there_VE: what they should be.
            valid_VE: bool, which values of the two belong together.
            are_scores: whether a softmax turns them into distributions, which are compared too.
        """
        finite_VE = valid_VE & here_VE.isfinite() & there_VE.isfinite()
        here, there = (side.double().masked_fill(~finite_VE, 0.0) for side in (here_VE, there_VE))
        error = (here - there).abs()
        self.num_values += int(valid_VE.sum())
        self.num_nonfinite += int((valid_VE & ~finite_VE).sum())
        self.max_abs = max(self.max_abs, float(error.max()) if error.numel() else 0.0)
        self.sum_abs += float(error.sum())
        lengths = here.norm(dim=-1) * there.norm(dim=-1)
        cosines = ((here * there).sum(-1) / lengths)[lengths > 0]
        self.num_vectors += len(cosines)
        self.sum_cosine += float(cosines.sum())
        if are_scores:
            logs = [side.masked_fill(~finite_VE, -torch.inf).log_softmax(-1) for side in (here, there)]
            terms = (logs[1].exp() * (logs[1] - logs[0])).masked_fill(~finite_VE, 0.0)
            kept = finite_VE.any(-1)
            self.num_distributions += int(kept.sum())
            self.sum_divergence += float(terms.sum(-1)[kept].clamp(min=0.0).sum())

    @property
    def figures(self) -> dict[str, Any]:
        """Everything a report tells, by name."""
        return {
            "num_values": self.num_values,
            "num_nonfinite": self.num_nonfinite,
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "cosine": self.cosine,
            "kl": self.divergence,
        }

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference."""
        return self.sum_abs / max(self.num_values - self.num_nonfinite, 1)

    @property
    def cosine(self) -> float | None:
        """Mean over the vectors of the cosine between the two; None where there are none to compare."""
        return self.sum_cosine / self.num_vectors if self.num_vectors else None

    @property
    def divergence(self) -> float | None:
        """Mean Kullback-Leibler divergence of the softmax here from the softmax there; None of what is no score."""
        return self.sum_divergence / self.num_distributions if self.num_distributions else None
