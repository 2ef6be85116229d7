"""Logits as they are loaded: those of one teacher, or the weighted mean of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from hskcache.store.kinds.logits import LogitsField
from trainer.loading.block import Block, Cuts
from trainer.loading.kinds.abc import Decoder, LoadedKind, StoredTargets


@dataclass(frozen=True, eq=False)
class LogitsDecoder(Decoder):
    """Average the logits of an ensemble (see :class:`~trainer.loading.choice.Choice`); those of one teacher stay.

    Attributes:
        weights: by field, adding up to 1; at least one.
        array: name of the array that holds them in each.
    """

    weights: Mapping[str, float]
    array: str = "logits"

    def decode(self, block: Block, cuts: Cuts) -> Sequence[Tensor]:
        """Logits [B, C] float32 of each batch, or of its words [P, C]."""
        (name, weight), *others = self.weights.items()
        tensors = block.tensors
        first, offsets = tensors[f"{name}/{self.array}"], block.offsets.get(f"{name}/position")
        if not others:
            return cuts.split(first, offsets)
        # Numbers of the host, as factors, go to the device with the kernel: no copy to wait for.
        total = first * weight
        for name, weight in others:
            total.add_(tensors[f"{name}/{self.array}"], alpha=weight)
        return cuts.split(total, offsets)


class LoadedLogits(LoadedKind[LogitsField]):
    """[B, C] float32 in a batch, or of words [P, C]."""

    is_averaged = True

    def decoder(self, stored: StoredTargets) -> LogitsDecoder:
        """The mean of the fields."""
        return LogitsDecoder(stored.weights, stored.field.array)
