"""Word vectors of GloVe's kind, and the nearest neighbours of a word by cosine [TinyBERT 3.2].

Which neighbours are nearest does not depend on what is asked for together. Products in float32, many words at once,
leave a few words in question; these are compared again in float64, each with the asked word alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hskcache.augment.words import can_stand_for_a_word
from hskcache.errors import DataError

LIMIT = 100_000
"""Vectors that the paper's code reads; files are sorted by how frequent words are, and what follows is rare."""

_NORMALISED_ROWS = 1 << 14
_LARGEST = float(np.finfo(np.float32).max)
_PRODUCT_ELEMENTS = 1 << 24
# Far above the error of a product of two float32 unit vectors, far below what tells neighbours apart.
_IN_QUESTION = 1e-5


@dataclass(frozen=True, eq=False)
class WordVectors:
    """V words with unit vectors of D elements.

    ``words``: [V], in the order of the file; each of them once, and fit to stand in a text. ``unit_VD``: float32.
    ``sha256``: digest of the file. ``limit``: vectors of the file that were read, where it holds more; None where all
    were.
    """

    words: list[str]
    unit_VD: NDArray[np.float32]
    source: str
    sha256: str
    limit: int | None = None
    _numbers: dict[str, int] = field(init=False, repr=False)
    _found: dict[tuple[str, int], NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {word: number for number, word in enumerate(self.words)})

    def __contains__(self, word: str) -> bool:
        return word in self._numbers

    def nearest(self, words: Sequence[str], num_neighbours: int) -> list[list[str]]:
        """The nearest neighbours of known words, themselves excluded, in the order of the file.

        Of equally near ones those count that stand first in the file. What was found once is remembered. ``words``: all
        of them ``in`` these vectors. ``num_neighbours``: of each word; there are fewer only where there are no more
        words.
        """
        wanted = min(num_neighbours, len(self.words) - 1)
        missing = list(dict.fromkeys(word for word in words if (word, wanted) not in self._found))
        step = max(1, _PRODUCT_ELEMENTS // len(self.words))
        for start in range(0, len(missing), step):
            queries = [self._numbers[word] for word in missing[start : start + step]]
            cosine_QV = self.unit_VD[queries] @ self.unit_VD.T
            for query, cosine_V in zip(queries, cosine_QV, strict=True):
                self._found[self.words[query], wanted] = self._exact(query, cosine_V, wanted)
        return [[self.words[number] for number in self._found[word, wanted]] for word in words]

    def _exact(self, query: int, cosine_V: NDArray[np.float32], wanted: int) -> NDArray[np.int64]:
        if wanted == 0:
            return np.empty(0, np.int64)
        cosine_V[query] = -np.inf
        least = np.partition(cosine_V, -wanted)[-wanted]
        close = np.flatnonzero(cosine_V >= least - 2 * _IN_QUESTION)
        # Summed row by row, not by a matrix product, whose order of additions follows its shape.
        cosine = (self.unit_VD[close].astype(np.float64) * self.unit_VD[query].astype(np.float64)).sum(axis=1)
        best = np.lexsort((close, -cosine))[:wanted]
        return np.sort(close[best])


def load_vectors(path: Path, limit: int | None = LIMIT) -> WordVectors:
    """Read a text file with a word and its numbers a line, separated by blanks: GloVe, word2vec, fastText.

    A first line of two whole numbers (the size of the table) is passed over. Of a word that stands there twice the
    first counts; words that cannot stand in a text and vectors of zeros, which have no direction, are left out.
    ``limit``: vectors to read, the first ones; None: all. Raises DataError (``FILE line N: ...``) if the file cannot be
    read, is empty, or a line does not hold a word and as many finite numbers as the first.
    """
    sha256, num_lines, num_bytes = _survey(path)
    words: dict[str, int] = {}
    table: NDArray[np.float32] = np.empty((0, 0), np.float32)
    num_read, is_cut = 0, False
    for number, line in _lines(path):
        if not table.size:
            width = line.count(" ")
            if number == 1 and width == 1 and line.replace(" ", "").isdecimal():
                continue
            _check_size(f"{path} line {number}", (num_lines - 1) * width, num_bytes)
            table = np.empty((num_lines if limit is None else min(num_lines, limit), width), np.float32)
        if is_cut := num_read == limit:
            break
        num_read += 1
        word, vector = _parse(f"{path} line {number}", line, table.shape[1])
        if word not in words and can_stand_for_a_word(word) and vector.any():
            table[len(words)] = vector
            words[word] = len(words)
    if not words:
        raise DataError(f"{path} holds no word vectors; give a text file with a word and its numbers on each line")
    return WordVectors(list(words), _normalised(table[: len(words)]), str(path), sha256, limit if is_cut else None)


def _check_size(where: str, num_numbers: int, num_bytes: int) -> None:
    """Refuse a first line that promises more numbers than the file has room for, before memory is taken for them."""
    # A number takes a digit and a blank at least.
    if 2 * num_numbers > num_bytes:
        raise DataError(
            f"{where}: it has more numbers than every line of the file could have; give a text file of word vectors"
        )


def _survey(path: Path) -> tuple[str, int, int]:
    """Digest, number of lines and bytes of a file, so that its table is laid out once at its full size."""
    digest, num_lines, num_bytes = hashlib.sha256(), 1, 0
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                num_lines += piece.count(b"\n")
                num_bytes += len(piece)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give a text file of word vectors") from None
    return digest.hexdigest(), num_lines, num_bytes


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Words hold all kinds of separators of Unicode; only a line feed ends a line.
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            try:
                line = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip(" \r\n")
            except UnicodeDecodeError:
                raise DataError(f"{path} line {number} is not UTF-8; save the file as UTF-8") from None
            if line:
                yield number, line


def _parse(where: str, line: str, width: int) -> tuple[str, NDArray[np.float32]]:
    # From the right: some tables hold words with blanks in them.
    word, *numbers = line.rsplit(" ", width) if width else [line]
    try:
        vector = np.array(numbers, np.float64)
    except ValueError:
        vector = np.empty(0)
    # The bound does not hold for NaN either.
    if not width or not word or len(vector) != width or not (np.abs(vector) <= _LARGEST).all():
        expected = f"a word and {width} finite numbers" if width else "a word and its numbers"
        raise DataError(f"{where}: {expected}, separated by blanks, were expected; correct or remove the line")
    return word, vector.astype(np.float32)


def _normalised(table_VD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors, in place and in pieces: a large table is not held twice."""
    for start in range(0, len(table_VD), _NORMALISED_ROWS):
        piece = table_VD[start : start + _NORMALISED_ROWS].astype(np.float64)
        table_VD[start : start + _NORMALISED_ROWS] = piece / np.sqrt((piece**2).sum(axis=1, keepdims=True))
    return table_VD
