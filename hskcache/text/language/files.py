"""Documents of a text file, whole, one at a time."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from hskcache.errors import DataError
from hskcache.text.lines import is_title_line


class FileDocument(NamedTuple):
    """A document of a file: its text, and where the file was read up to, in bytes."""

    text: str
    end: int


def whole_file(file: BinaryIO) -> Iterator[FileDocument]:
    """All of a file as one document, without a byte order mark. Raises DataError if it is not UTF-8."""
    data = file.read()
    yield FileDocument(_decoded(data, file.name, 1).removeprefix("\ufeff"), len(data))


def documents(file: BinaryIO) -> Iterator[FileDocument]:
    """Documents as they are found in other corpora, but with the lines that they have.

    They end at blank lines; of a file whose first line of text is a title as WikiText writes them, ``= Title =``, at
    the next title, and blank lines within them are kept. Raises DataError if the file is not UTF-8; names the line.
    """
    lines: list[str] = []
    blank: list[str] = []
    has_titles: bool | None = None
    end = 0
    for number, data in enumerate(file, start=1):
        line = _decoded(data.removeprefix(codecs.BOM_UTF8) if number == 1 else data, file.name, number)
        if text := line.strip():
            is_title = is_title_line(text)
            has_titles = is_title if has_titles is None else has_titles
            if lines and has_titles and is_title:
                yield FileDocument(_joined(lines), end)
                lines = []
            lines += blank if lines else []
            lines.append(line)
            blank = []
        elif has_titles:
            blank.append(line)
        elif lines:
            yield FileDocument(_joined(lines), end)
            lines = []
        end += len(data)
    if lines:
        yield FileDocument(_joined(lines), end)


def _joined(lines: list[str]) -> str:
    return "".join(lines).removesuffix("\n").removesuffix("\r")


def _decoded(data: bytes, name: str, line: int) -> str:
    """Text of bytes that begin with a line of a file."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise DataError(
            f"{name} line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
