"""The arrays that each encoding stores of vectors of values, said once for whoever writes, reads or describes them.

How values become these arrays and back, ``hskcache.encoding`` says, which needs torch; this needs nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from hskcache.table import Table

LOG_BOUNDS = (-65504.0, -(2.0**-24))
"""Smallest and largest finite float16 below 0, between which the log of a probability is stored."""


class EncodedArray(NamedTuple):
    """One stored array of an encoding.

    Attributes:
        shape: dimensions of a single vector, after the leading ones; () for one number a vector.
        dtype: numpy's name of the stored type.
        logical: what the bits mean, where numpy and Zarr have no such type: ``bfloat16``, ``int4``.
    """

    shape: tuple[int, ...]
    dtype: str
    logical: str


class EncodedForm(NamedTuple):
    """Arrays that an encoding stores of vectors: ``values``, and those of one number a vector beside them.

    Attributes:
        dtype: numpy's name of the type of ``values``.
        logical: what its bits mean.
        decode: in words, how the values are read without hskcache.
        per_entry: values in one entry of ``values``.
        beside: numpy's type of each other array, by name.
    """

    dtype: str
    logical: str
    decode: str
    per_entry: int = 1
    beside: Mapping[str, str] = {}

    def entries(self, width: Any) -> Any:
        """Entries of a vector of ``width`` values; of an array of widths, an array."""
        return -(-width // self.per_entry)

    def of(self, width: int) -> dict[str, EncodedArray]:
        """The stored arrays of vectors of ``width`` values, by name; ``values`` first."""
        values = EncodedArray((self.entries(width),), self.dtype, self.logical)
        return {"values": values} | {name: EncodedArray((), dtype, dtype) for name, dtype in self.beside.items()}

    def num_bytes(self, width: int) -> int:
        """Bytes of a vector of ``width`` values, before compression."""
        import numpy as np

        return sum(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in self.of(width).values())


_AS_THEY_ARE = "values as they are"
_SCALES = {"scales": "float32"}

ENCODED: Table[EncodedForm] = Table(
    "an encoding",
    {
        "float32": EncodedForm("float32", "float32", _AS_THEY_ARE),
        "float16": EncodedForm("float16", "float16", _AS_THEY_ARE),
        "bfloat16": EncodedForm(
            "int16",
            "bfloat16",
            "bits of bfloat16 in int16: (values.view('u2').astype('u4') << 16).view('f4')",
        ),
        "int8": EncodedForm(
            "int8",
            "int8",
            "integers -127 to 127, times the scale of their position or vector",
            beside=_SCALES,
        ),
        "int4": EncodedForm(
            "uint8",
            "int4",
            "integers -7 to 7 in two's complement, two to a byte, the first in the low half, times the scale of their "
            "position or vector; with an odd number of columns the last high half is 0",
            per_entry=2,
            beside=_SCALES,
        ),
    },
)
"""Stored arrays by the name of the encoding."""


def column_bytes(num_columns: int, width: int) -> tuple[Literal["columns", "bitmask"], int]:
    """Storage of W of D columns, and its bytes per position: indices only where they are smaller than the mask."""
    mask_bytes = (width + 7) // 8
    if width < 1 << 16 and 2 * num_columns < mask_bytes:
        return "columns", 2 * num_columns
    return "bitmask", mask_bytes
