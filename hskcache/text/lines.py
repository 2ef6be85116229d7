"""The texts of a corpus as they stand in its file: lines, long ones in parts, and where documents end.

A corpus is UTF-8 text with one sentence or paragraph a line and a blank line between documents [TinyBERT 3.3]. A file
whose first line of text is a title as WikiText writes them, ``= Title =``, is divided at such titles instead: there,
blank lines stand around headings and paragraphs alike. Only a line feed ends a line, and blanks around a line are no
part of it. A document is tokenized as its lines joined by single spaces would be, so a tokenizer that marks the space
before a word (RoBERTa's) marks it at the beginning of a line too. Line by line this gives the same tokens, because
tokenizers look no further than the space before a word.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from hskcache.errors import DataError
from hskcache.text.documents import DOCUMENT_END

PART_BYTES = 1 << 16
"""A longer line is tokenized in parts, cut where it has blanks; a run of blanks at a cut counts as one space."""

BATCH_CHARACTERS = 1 << 20
BATCH_TEXTS = 1 << 13

_TITLE = re.compile(r"= (?!= ).+(?<! =) =")


def text_batches(file: BinaryIO) -> Iterator[list[str]]:
    """Texts to tokenize, in order, some at a time: the space between lines in front, DOCUMENT_END after documents.

    Raises DataError if the file is not UTF-8; names the line.
    """
    yield from _batches(_texts(file))


def is_title_line(text: str) -> bool:
    """True if a line, without blanks around it, is the title of an article as WikiText writes them."""
    return _TITLE.fullmatch(text) is not None


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS or len(batch) >= BATCH_TEXTS:
            yield batch
            batch, size = [], 0
    yield batch


def _texts(file: BinaryIO) -> Iterator[str]:
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    line, space, is_blank = 1, "", True
    has_titles: bool | None = None
    for part, ends_line in _parts(file):
        try:
            text = part.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file.name} line {line}: byte 0x{part[error.start]:02x} is not UTF-8; save the file as UTF-8"
            ) from None
        if text:
            is_title = is_blank and is_title_line(text)
            has_titles = is_title if has_titles is None else has_titles
            if has_titles and is_title:
                yield DOCUMENT_END
                space = ""
            yield space + text
            space, is_blank = " ", False
        if not ends_line:
            if not part[-1:].isspace():
                space = ""
            continue
        if is_blank and not has_titles:
            yield DOCUMENT_END
            space = ""
        line, is_blank = line + 1, True
    yield DOCUMENT_END


def _parts(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Lines, long ones in parts of at most ``PART_BYTES``, each with whether it ends its line."""
    rest = b""
    while data := file.readline(PART_BYTES - len(rest)):
        part = rest + data
        rest = b""
        if part.endswith(b"\n") or len(part) < PART_BYTES:
            yield part, True
        else:
            cut = _cut(part)
            rest = part[cut:]
            yield part[:cut], False
    if rest:
        yield rest, True


def _cut(part: bytes) -> int:
    """End of a part: before its last word, or before its last character if it is all one word."""
    words = part.rsplit(None, 1)
    if len(words) == 2:
        return part.rindex(words[1])
    cut = len(part) - 1
    while cut > len(part) - 4 and part[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
