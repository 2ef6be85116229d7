"""How kept values are stored: one encoding per file, named by the word the user types."""

import math

import numpy as np

from hskcache.encoding.abc import Encoding, Part
from hskcache.encoding.bfloat16 import BFloat16
from hskcache.encoding.float16 import Float16
from hskcache.encoding.float32 import Float32
from hskcache.encoding.int4 import Int4
from hskcache.encoding.int8 import Int8
from hskcache.errors import SpecError

__all__ = ["ENCODINGS", "Encoding", "Part", "get_encoding", "num_bytes"]

ENCODINGS: dict[str, Encoding] = {
    "float32": Float32(),
    "float16": Float16(),
    "bfloat16": BFloat16(),
    "int8": Int8(),
    "int4": Int4(),
}


def get_encoding(name: str) -> Encoding:
    """The encoding of a name.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in ENCODINGS:
        raise SpecError(f"{name!r} is not an encoding; use one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def num_bytes(encoding: Encoding, width: int) -> int:
    """Bytes of one position of ``width`` values, before compression."""
    return sum(math.prod(part.shape) * np.dtype(part.dtype).itemsize for part in encoding.parts(width).values())
