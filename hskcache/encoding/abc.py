"""Contract of every encoding of hidden states."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Encoding(Protocol):
    """Turns kept values into the arrays that are stored, and back.

    Each position, which is the last axis of W values, is encoded alone: its bytes do not depend on its neighbours, so
    positions can be gathered while encoded. Leading dimensions are free and may be empty. Both directions run on the
    device of their input, without waiting for it, and give the same stored bytes for the same values every time.

    Whatever the values, encode and decode do not fail: a NaN or an infinity comes back as a value that is not finite;
    alone in the float encodings, while in the integer ones, which share a scale, the whole position comes back as NaN.
    """

    @property
    def name(self) -> str:
        """The word the user types and the manifest stores."""
        ...

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Encode float16, bfloat16 or float32 values.

        Args:
            values: [..., W], W at least 1.

        Returns:
            The arrays that :data:`~hskcache.encoded.ENCODED` names, with the leading dimensions of ``values``. They may
            share memory with the input.
        """
        ...

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """Decode what :meth:`encode` returned.

        Args:
            parts: the arrays, on one device.
            width: W.

        Returns:
            float32 [..., W].
        """
        ...

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        """Take some of the values as they are stored: nothing is decoded, and a scale that values share stays.

        Args:
            parts: what :meth:`encode` returned.
            columns: int64 [..., W'], each in 0..W-1.

        Returns:
            Arrays of which :meth:`decode` gives the values at the columns, with a width of W'.
        """
        ...

    def bound(self, values: Tensor) -> Tensor:
        """The largest ``|decode(encode(values)) - values|`` promised, float32 [..., W]; infinite where none is."""
        ...


def gathered(parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
    """Entries of ``values`` at some columns, where an entry is a value, and the other arrays as they are."""
    return {**parts, "values": parts["values"].gather(-1, columns)}
