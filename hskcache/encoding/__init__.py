"""Encodings of kept values: one a file, named by the word the user types.

What each of them stores, ``hskcache.encoded`` says.
"""

from hskcache.encoding.abc import Encoding
from hskcache.encoding.bfloat16 import BFloat16
from hskcache.encoding.float16 import Float16
from hskcache.encoding.float32 import Float32
from hskcache.encoding.int4 import Int4
from hskcache.encoding.int8 import Int8
from hskcache.table import Table

__all__ = ["ENCODINGS", "Encoding", "get_encoding"]

ENCODINGS: Table[Encoding] = Table(
    "an encoding",
    {
        "float32": Float32(),
        "float16": Float16(),
        "bfloat16": BFloat16(),
        "int8": Int8(),
        "int4": Int4(),
    },
)


def get_encoding(name: str) -> Encoding:
    """The encoding of a name.

    Raises:
        SpecError: there is none of that name.
    """
    return ENCODINGS[name]
