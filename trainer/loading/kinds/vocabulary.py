"""Vocabulary knowledge as it is loaded: the teacher's likeliest tokens, draws or final states at each position."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.alignment import misalignment, require_targets
from hskcache.decoded.vocabulary import stored_head
from hskcache.encoded import ENCODED
from hskcache.encoding import get_encoding
from hskcache.errors import DamageError
from hskcache.output_head import OutputHead
from hskcache.ragged import Integers
from hskcache.store.kinds.vocabulary import LOW_BITS, VocabularyField
from trainer.batch import DrawnTarget, NextTokenTarget, StatesTarget, TopTarget
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds.abc import AskedRows, Decoder, LoadedKind, StoredTargets
from trainer.loading.records import Arrays


@dataclass(frozen=True, eq=False)
class VocabularyDecoder(Decoder):
    """Decode what is kept of next tokens.

    Attributes:
        name: of the field.
        field: how it is stored.
        constants: ``field/array`` -> what all rows share, on the device of the batches.
    """

    name: str
    field: VocabularyField
    constants: Mapping[str, Tensor]

    def tables(self, offsets: Mapping[str, Integers], cuts: Cuts) -> Arrays:
        """Beginning of the row of each position in its flattened batch."""
        return {self._begin: np.repeat(cuts.begin, np.diff(offsets[f"{self.name}/position"]))}

    def decode(self, block: Block, cuts: Cuts) -> Iterator[NextTokenTarget]:
        """Targets of each batch."""
        offsets = block.offsets[f"{self.name}/position"]
        stored = {name.removeprefix(f"{self.name}/"): one for name, one in block.tensors.items()}
        index_P = stored["positions"].to(torch.int64).add_(block.parts[self._begin])
        shared = index_P, stored["log_z"].float(), stored["gold"].float()
        for parts in zip(*(cuts.split(one, offsets) for one in (*shared, *self._known(stored))), strict=True):
            yield self._target(*parts)

    @property
    def _begin(self) -> str:
        return f"{self.name} begin"

    def _known(self, stored: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Knowledge of all positions that the form has beside what every form has."""
        num_bits = self.field.high_bits
        match self.field.form:
            case "top":
                ids_PK = whole(stored["ids"], stored.get("ids_high"), num_bits)
                return ids_PK, log_probabilities(stored["steps"], stored["ranges"], stored["log_tail"])
            case "sampled":
                return (whole(stored["gaps"], stored.get("gaps_high"), num_bits).cumsum(1),)
            case "head":
                assert self.field.encoding is not None
                assert self.field.width is not None
                encoded = {part: stored[part] for part in ENCODED[self.field.encoding].of(self.field.width)}
                return (get_encoding(self.field.encoding).decode(encoded, self.field.width),)
            case unknown:
                assert_never(unknown)

    def _target(self, index_P: Tensor, log_z_P: Tensor, gold_P: Tensor, *known: Tensor) -> NextTokenTarget:
        match self.field.form:
            case "top":
                return TopTarget(index_P, log_z_P, gold_P, *known)
            case "sampled":
                return DrawnTarget(index_P, log_z_P, gold_P, *known)
            case "head":
                return StatesTarget(index_P, log_z_P, gold_P, known[0], self._head)
            case unknown:
                assert_never(unknown)

    @cached_property
    def _head(self) -> OutputHead:
        prefix = f"{self.name}/"
        own = {name.removeprefix(prefix): one for name, one in self.constants.items() if name.startswith(prefix)}
        return stored_head(self.field, own)


class LoadedVocabulary(LoadedKind[VocabularyField]):
    """:class:`~trainer.batch.NextTokenTarget` in a batch; losses divide by the targets of the rows."""

    axis = "position"

    def decoder(self, stored: StoredTargets) -> VocabularyDecoder:
        """Decoder of one field."""
        return VocabularyDecoder(stored.name, stored.field, stored.constants)

    def check(self, field: VocabularyField, arrays: Arrays, rows: AskedRows, constants: Arrays) -> None:
        """Compare positions with those that have a target, and what is known at some with the tokens there."""
        asked = _tokens(rows.positions, rows.position_offsets, rows.offsets)
        begin = np.repeat(rows.offsets[:-1], np.diff(arrays["position_offsets"]))
        require_targets(arrays["positions"], begin, asked)
        inputs = {"input_ids": rows.input_ids, "row_offsets": rows.offsets}
        if (found := misalignment(field, arrays, inputs, constants)) is not None:
            raise DamageError(found)


def _tokens(positions: NDArray[Any] | None, of_rows: Integers | None, tokens: Integers) -> Integers:
    """Places among all tokens of positions in their rows; none where nothing is asked."""
    if positions is None or of_rows is None:
        return np.zeros(0, np.int64)
    places: Integers = positions.astype(np.int64) + np.repeat(tokens[:-1], np.diff(of_rows))
    return places


def whole(low_PK: Tensor, high_PB: Tensor | None, num_bits: int) -> Tensor:
    """Integers of more than 16 bits, int64 [P, K].

    Args:
        low_PK: their lowest 16 bits, uint16.
        high_PB: the ``num_bits`` above them of one after the other, packed into bytes, the lowest bit first; None where
            there are none.
        num_bits: above the lowest 16.
    """
    whole_PK = low_PK.to(torch.int64)
    if high_PB is None:
        return whole_PK
    bits_P = (high_PB[..., None] >> torch.arange(8, dtype=torch.uint8, device=high_PB.device) & 1).flatten(1)
    bits_PKb = bits_P[:, : low_PK.shape[1] * num_bits].reshape(*low_PK.shape, num_bits)
    for bit, one_PK in enumerate(bits_PKb.unbind(2)):
        whole_PK += one_PK.to(torch.int64) << LOW_BITS + bit
    return whole_PK


def log_probabilities(steps_PK: Tensor, ranges_P: Tensor, log_tail_P: Tensor) -> Tensor:
    """Log p of the likeliest tokens, float32 [P, K]: the kept p and the tail add up to 1.

    Args:
        steps_PK: differences of the codes, uint8 [P, K - 1]; the first code is 0, and 255 is the range below.
        ranges_P: log p of the likeliest less that of the last, float16.
        log_tail_P: log of what all other tokens have, float16.
    """
    codes_PK = torch.nn.functional.pad(steps_PK.float().cumsum(1), (1, 0))
    below_PK = codes_PK * (ranges_P.float() / -255)[:, None]
    # log(1 - e^x), exact where the tail has nearly nothing.
    kept_P1 = torch.log(-torch.expm1(log_tail_P.float()))[:, None]
    return below_PK.log_softmax(1).add_(kept_P1)
