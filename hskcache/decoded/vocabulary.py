"""Next tokens as vectors: one a position, an entry a token; or, of states, an entry a column."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.decoded.abc import DecodedKind, Dense, LayerRows, Stored, Vectors, each, tensor_of
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.output_head import OutputHead
from hskcache.store.kinds.vocabulary import VocabularyField, log_probabilities, unpacked


class DecodedVocabulary(DecodedKind[VocabularyField]):
    """Log probabilities of the likeliest tokens and of their rest; shares of drawn tokens; or states."""

    def vectors(self, field: VocabularyField, part: LayerRows) -> Vectors:
        """A vector a position.

        The rest is an entry of its own behind all tokens, another one for every number of kept tokens: rests of fewer
        tokens are not the same.
        """
        arrays = part.arrays
        counts = np.diff(arrays["position_offsets"])
        rows = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        positions = tensor_of(arrays["positions"].astype(np.int64))
        if field.form == "head":
            values = tensor_of(states_of(field, arrays))
            return Vectors(rows, torch.zeros_like(rows), positions, values, each(values))
        assert field.count is not None
        ids = unpacked(field, arrays)
        if field.form == "top":
            logp = np.concatenate([log_probabilities(arrays), arrays["log_tail"][:, None]], 1)
            entries = np.pad(ids, ((0, 0), (0, 1)), constant_values=field.vocab_size + field.count)
            return Vectors(rows, torch.zeros_like(rows), positions, tensor_of(logp).float(), tensor_of(entries))
        # Of equal neighbours the first has the share of all.
        is_first = np.diff(ids, axis=-1, prepend=-1) > 0
        shares = (ids[:, :, None] == ids[:, None, :]).sum(-1) / field.count * is_first
        return Vectors(
            rows,
            torch.zeros_like(rows),
            positions,
            tensor_of(shares).float(),
            tensor_of(np.where(is_first, ids, -1)),
        )

    def dense(self, field: VocabularyField, part: LayerRows) -> Dense:
        """Values of each position in the order stored: K log p and that of the rest, n shares, or D columns."""
        values = self.vectors(field, part).values_VE
        counts = np.diff(part.arrays["position_offsets"])
        return Dense(values.numpy().reshape(-1), np.stack([counts, np.full_like(counts, values.shape[1])], 1))

    def are_scores(self, field: VocabularyField, width: int) -> bool:
        """True of log probabilities, which are scores that are their own log of a softmax."""
        return field.form == "top"

    def are_comparable(self, here: VocabularyField, there: VocabularyField) -> bool:
        """True of one form: log p, shares of draws and states are three things."""
        return here.form == there.form

    def num_values(self, field: VocabularyField, arrays: Stored) -> NDArray[np.int64]:
        """As many a position as there are tokens, or columns."""
        counts: NDArray[np.int64] = np.diff(arrays["position_offsets"])
        return counts * (field.width or field.vocab_size + (field.count or 0) + 1)


def states_of(field: VocabularyField, arrays: Stored) -> NDArray[np.float32]:
    """Final states, float32 [P, D]; of the form ``head``."""
    assert field.encoding is not None
    assert field.width is not None
    stored = {name: tensor_of(arrays[name]) for name in ENCODED[field.encoding].of(field.width)}
    states: NDArray[np.float32] = get_encoding(field.encoding).decode(stored, field.width).numpy()
    return states


def head_weights(
    field: VocabularyField, constants: Stored, ids_P: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights [P, D] and biases [P] of the head for some tokens, float32."""
    assert field.head_dtype is not None
    encoding = get_encoding(field.head_dtype)

    def taken(name: str, width: int) -> NDArray[np.float32]:
        values = tensor_of(constants[name][ids_P].reshape(len(ids_P), width))
        found: NDArray[np.float32] = encoding.decode({"values": values}, width).numpy()
        return found

    assert field.width is not None
    bias_P = taken("bias", 1)[:, 0] if field.has_bias else np.zeros(len(ids_P), np.float32)
    return taken("weight", field.width), bias_P


def stored_head(field: VocabularyField, constants: Mapping[str, Tensor]) -> OutputHead:
    """Head of the teacher in its stored type; ``constants``: ``weight`` [V, D] and ``bias`` [V], where there is one."""
    parts = dict(constants)
    if field.head_dtype == "bfloat16":
        parts = {name: bits.view(torch.bfloat16) for name, bits in parts.items()}
    return OutputHead(parts["weight"], parts.get("bias"), field.scale, field.softcap)
