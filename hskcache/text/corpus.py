"""Plain text of any size as packed rows of tokens: general distillation has no labels and no rows of its own.

A corpus is UTF-8 text with one sentence or paragraph a line and a blank line between documents [TinyBERT 3.3]. A file
whose first line of text is a title as WikiText writes them, ``= Title =``, is divided at such titles instead: there,
blank lines stand around headings and paragraphs alike. Only a line feed ends a line, and blanks around a line are no
part of it. A document is tokenized as its lines joined by single spaces would be, so a tokenizer that marks the space
before a word (RoBERTa's) marks it at the beginning of a line too. Line by line this gives the same tokens, because
tokenizers look no further than the space before a word.
"""

import codecs
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from hskcache.errors import DataError
from hskcache.text.packing import DOCUMENT_END, Packer
from hskcache.text.spool import Spool, SpooledRows, SpoolWriter, read_spool
from hskcache.text.tokenize import TokenizedRows, special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PART_BYTES = 1 << 16
"""A longer line is tokenized in parts, cut where it has blanks; a run of blanks at a cut counts as one space."""

BATCH_CHARACTERS = 1 << 20
BATCH_TEXTS = 1 << 13

_TITLE = re.compile(r"= (?!= ).+(?<! =) =")

_PACKING = 1
"""Goes up whenever the same text would be packed into other rows."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text file packed into rows, which stay on the disk.

    Attributes:
        rows: ids and offsets are read-only maps of the spool's files; token types, where the tokenizer's model has
            them, are zeros that take no memory.
        source: the file, as the user named it.
        fingerprint: SHA-256 of the content and the packing, see corpus_fingerprint().
        num_documents: documents of at least one token.
        num_tokens: tokens of the text, special tokens not counted.
    """

    rows: TokenizedRows
    source: str
    fingerprint: str
    num_documents: int
    num_tokens: int

    @property
    def num_rows(self) -> int:
        """Rows, each of one document."""
        return len(self.rows)


def pack_corpus(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    spool: Spool,
    on_progress: Callable[[int], None] | None = None,
) -> Corpus:
    """Pack a text file into rows on the disk; memory holds one batch of its lines at a time.

    Rows are those of :class:`~hskcache.text.packing.Packer`, each between the special tokens of a single text. Special
    tokens written out in the text are read as such, as in :func:`~hskcache.text.tokenize.tokenize`.

    The file is read twice: first for its digest, then, unless the spool already holds its rows, to be tokenized. A
    call that was cut off leaves nothing that a later one would use; the later one gives the same rows.

    Args:
        path: a UTF-8 file, with or without a byte order mark.
        tokenizer: a fast tokenizer, see load_tokenizer.
        max_length: tokens of a row at most, special tokens included.
        spool: where the rows are written.
        on_progress: called with the number of bytes of the file done since the last call.

    Raises:
        SpecError: ``max_length`` leaves no room for text beside the special tokens.
        DataError: the file cannot be read, is not UTF-8 (naming the line), holds no text, or changes meanwhile.
        TeacherError: the tokenizer gives a single text token types other than 0.
        OSError: the spool cannot be written.
    """
    packer = Packer(tokenizer, max_length)
    with _open(path) as file:
        begun = _state(file)
        sha256 = _sha256(file)
        identity = {
            "packing": _PACKING,
            "source_sha256": sha256,
            "source_bytes": begun[0],
            "tokenizer_sha256": spool.tokenizer_digest,
            "max_length": max_length,
        }
        spooled = read_spool(spool.folder, identity)
        if spooled is None:
            with SpoolWriter(spool.folder) as writer:
                _pack(file, packer, writer, on_progress)
                if not packer.num_tokens:
                    raise DataError(f"{path} holds no text; give a file with at least one line of it")
                if _state(file) != begun:
                    raise DataError(f"{path} changed while it was read; give the command again")
                writer.commit(identity, packer.num_documents, packer.num_tokens)
            spooled = read_spool(spool.folder, identity)
            assert spooled is not None
        elif on_progress is not None:
            on_progress(begun[0])
    rows = _rows(spooled, tokenizer)
    return Corpus(rows, str(path), _fingerprint(sha256, max_length), spooled.num_documents, spooled.num_tokens)


def corpus_fingerprint(path: str | Path, max_length: int) -> str:
    """The fingerprint that a corpus of this file has, without tokenizing it.

    SHA-256 over the digest of the file's bytes, ``max_length`` and the version of the packing; neither the file's name
    nor the tokenizer enters.

    Raises:
        DataError: the file cannot be read.
    """
    with _open(path) as file:
        return _fingerprint(_sha256(file), max_length)


def _fingerprint(sha256: str, max_length: int) -> str:
    return hashlib.sha256(f"hskcache corpus {_PACKING}\n{sha256}\n{max_length}\n".encode()).hexdigest()


def _rows(spooled: SpooledRows, tokenizer: "PreTrainedTokenizerBase") -> TokenizedRows:
    ids = spooled.input_ids
    has_types = "token_type_ids" in tokenizer.model_input_names
    types = np.broadcast_to(np.uint8(0), ids.shape) if has_types else None
    return TokenizedRows(ids, spooled.offsets, types, special_ids(tokenizer))


def check_corpus(path: str | Path) -> None:
    """Refuse a corpus that cannot be read, before a model is loaded.

    Raises:
        DataError: it is not there, or no regular file.
    """
    _open(path).close()


def _open(path: str | Path) -> BinaryIO:
    try:
        # A pipe could not be read twice, and to open one waits for whoever writes to it.
        if stat.S_ISREG(Path(path).stat().st_mode):
            return Path(path).open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the path of a text file") from None
    what = "a folder" if Path(path).is_dir() else "not a regular file"
    raise DataError(f"{path} is {what}; give the path of a text file")


def _state(file: BinaryIO) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest


def _pack(file: BinaryIO, packer: Packer, writer: SpoolWriter, on_progress: Callable[[int], None] | None) -> None:
    done = 0
    for batch in _batches(_texts(file)):
        writer.append(*packer.add(batch))
        if on_progress is not None:
            on_progress(file.tell() - done)
            done = file.tell()


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
    """What to tokenize, in order, the space between lines in front; DOCUMENT_END after each document."""
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
            is_title = is_blank and _TITLE.fullmatch(text) is not None
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
    """Where to end a part: before its last word, or before its last character if it is all one word."""
    words = part.rsplit(None, 1)
    if len(words) == 2:
        return part.rindex(words[1])
    cut = len(part) - 1
    while cut > len(part) - 4 and part[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
