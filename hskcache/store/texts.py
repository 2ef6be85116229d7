"""The texts of rows as arrays of a shard: the bytes of one after the other, and where they begin."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hskcache.errors import DamageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def packed_texts(texts: Sequence[str], pairs: Sequence[str] | None) -> "dict[str, NDArray[Any]]":
    """Arrays of the texts of n rows.

    Returns:
        ``text`` uint8 [bytes], UTF-8, of pairs the first text and then the second; ``text_offsets`` int64 [n + 1];
        of pairs ``text_splits`` int32 [n], the bytes of the first text.
    """
    import numpy as np

    firsts = [text.encode() for text in texts]
    seconds = [b""] * len(firsts) if pairs is None else [text.encode() for text in pairs]
    whole = [first + second for first, second in zip(firsts, seconds, strict=True)]
    arrays: dict[str, NDArray[Any]] = {
        "text": np.frombuffer(b"".join(whole), np.uint8),
        "text_offsets": np.cumsum([0, *map(len, whole)], dtype=np.int64),
    }
    if pairs is not None:
        arrays["text_splits"] = np.array([len(first) for first in firsts], np.int32)
    return arrays


def unpacked_texts(arrays: "Mapping[str, NDArray[Any]]") -> tuple[list[str], list[str] | None]:
    """The texts of rows, and the second ones of pairs, from these arrays.

    Raises:
        DamageError: they are no texts.
    """
    ends = arrays["text_offsets"].tolist()
    data = arrays["text"].tobytes()
    rows = [data[begin:end] for begin, end in pairwise(ends)]
    try:
        if "text_splits" not in arrays:
            return [row.decode() for row in rows], None
        splits = arrays["text_splits"].tolist()
        firsts = [row[:split].decode() for row, split in zip(rows, splits, strict=True)]
        return firsts, [row[split:].decode() for row, split in zip(rows, splits, strict=True)]
    except UnicodeDecodeError:
        raise DamageError("text holds bytes that are no text") from None
