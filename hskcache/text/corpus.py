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
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hskcache import console
from hskcache.errors import DataError
from hskcache.spec import Packing
from hskcache.text.documents import AHEAD, DOCUMENT_END, STEM, DocumentsWriter, Window
from hskcache.text.packing import Packer, Template, template_of
from hskcache.text.spool import Spool, SpooledRows, SpoolWriter, read_spool, remove_spool
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

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text file packed into rows, which stay on the disk.

    Attributes:
        rows: ids and offsets are read-only maps of the spool's files, and so are token types of pairs, where the
            tokenizer's model has them; those of single texts are zeros that take no memory.
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
        """Rows of all copies."""
        return len(self.rows)


def pack_corpus(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    spool: Spool,
    on_progress: Progress | None = None,
) -> Corpus:
    """Pack a text file into rows on the disk; memory holds one batch of its lines, or one block of rows, at a time.

    Rows are those of :class:`~hskcache.text.packing.Packer`, each between the special tokens of a single text or of a
    pair. Special tokens written out in the text are read as such, as in :func:`~hskcache.text.tokenize.tokenize`.

    The file is read twice: first for its digest, then, unless the spool already holds its tokens or its rows, to be
    tokenized. A call that was cut off leaves nothing that a later one would use but what is whole; the later one gives
    the same rows.

    Args:
        path: a UTF-8 file, with or without a byte order mark.
        tokenizer: a fast tokenizer, see load_tokenizer.
        max_length: tokens of a row at most, special tokens included.
        spool: where the rows are written, and how they are packed.
        on_progress: called with the number of bytes of the file done since the last call.

    Raises:
        SpecError: ``max_length`` leaves no room for text beside the special tokens, or there is no token to mask with.
        DataError: the file cannot be read, is not UTF-8 (naming the line), holds no text, or changes meanwhile, or is
            one document where second texts are to be of another.
        TeacherError: the tokenizer gives a single text token types other than 0.
        OSError: the spool cannot be written.
    """
    template = template_of(tokenizer, max_length, spool.packing)
    with _open(path) as file:
        begun = _state(file)
        sha256 = _sha256(file)
        source = {"source_sha256": sha256, "source_bytes": begun[0], "tokenizer_sha256": spool.tokenizer_digest}
        identity = {"packing": _PACKING, **source, "max_length": max_length, **_drawn(spool.packing)}
        spooled = read_spool(spool.folder, identity)
        if spooled is None:
            documents = read_spool(spool.folder, source, STEM)
            if documents is None:
                documents = _tokenize(file, tokenizer, (spool.folder, source), begun, on_progress)
            elif on_progress is not None:
                on_progress(begun[0])
            has_types = spool.packing.pairs != "none" and _has_types(tokenizer)
            spooled = _pack(str(path), documents, template, (spool, identity), has_types)
        elif on_progress is not None:
            on_progress(begun[0])
    remove_spool(spool.folder, STEM)
    rows = _rows(spooled, tokenizer)
    fingerprint = _fingerprint(sha256, max_length, spool.packing)
    return Corpus(rows, str(path), fingerprint, spooled.num_documents, spooled.num_tokens)


def corpus_fingerprint(path: str | Path, max_length: int, packing: Packing | None = None) -> str:
    """The fingerprint that a corpus of this file has, without tokenizing it.

    SHA-256 over the digest of the file's bytes, ``max_length``, the version of the packing and what of it is not the
    default; neither the file's name nor the tokenizer enters.

    Raises:
        DataError: the file cannot be read.
    """
    with _open(path) as file:
        return _fingerprint(_sha256(file), max_length, packing or Packing())


def _fingerprint(sha256: str, max_length: int, packing: Packing) -> str:
    drawn = _drawn(packing)
    told = json.dumps(drawn, sort_keys=True) + "\n" if drawn else ""
    return hashlib.sha256(f"hskcache corpus {_PACKING}\n{sha256}\n{max_length}\n{told}".encode()).hexdigest()


def _drawn(packing: Packing) -> dict[str, Any]:
    """What of a packing is not the default: nothing for rows as they have always been."""
    plain = packing.resolved.model_dump(mode="json", exclude_defaults=True)
    return {"rows": plain} if plain else {}


def _has_types(tokenizer: "PreTrainedTokenizerBase") -> bool:
    return "token_type_ids" in tokenizer.model_input_names


def _rows(spooled: SpooledRows, tokenizer: "PreTrainedTokenizerBase") -> TokenizedRows:
    types = spooled.token_type_ids
    if types is None and _has_types(tokenizer):
        types = np.broadcast_to(np.uint8(0), spooled.input_ids.shape)
    return TokenizedRows(spooled.input_ids, spooled.offsets, types, special_ids(tokenizer))


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


def _tokenize(
    file: BinaryIO,
    tokenizer: "PreTrainedTokenizerBase",
    place: tuple[Path, dict[str, Any]],
    begun: tuple[int, int],
    on_progress: Progress | None,
) -> SpooledRows:
    """The documents of a file as tokens on the disk.

    Args:
        file: the corpus.
        tokenizer: a fast one.
        place: folder and identity of the spool.
        begun: state of the file before anything was read of it.
        on_progress: see pack_corpus().
    """
    folder, identity = place
    with SpoolWriter(folder, STEM) as writer:
        documents, done = DocumentsWriter(tokenizer, writer), 0
        for batch in _batches(_texts(file)):
            documents.add(batch)
            if on_progress is not None:
                on_progress(file.tell() - done)
                done = file.tell()
        if not documents.num_tokens:
            raise DataError(f"{file.name} holds no text; give a file with at least one line of it")
        if _state(file) != begun:
            raise DataError(f"{file.name} changed while it was read; give the command again")
        writer.commit(identity, documents.num_documents, documents.num_tokens)
    spooled = read_spool(folder, identity, STEM)
    assert spooled is not None
    return spooled


def _pack(
    name: str, documents: SpooledRows, template: Template, place: tuple[Spool, dict[str, Any]], has_types: bool
) -> SpooledRows:
    """Rows on the disk of documents that are there."""
    spool, identity = place
    packing = spool.packing
    if documents.num_documents == 1 and packing.pairs == "random":
        raise DataError(
            f"{name} is one document, and --pairs random takes the second text from another one; put blank lines "
            "between documents, or give --pairs next"
        )
    if documents.num_documents == 1 and packing.pairs == "mixed":
        console.say(f"{name} is one document without blank lines, so that no second text is of another one")
    with (spool.folder / f"{STEM}ids.bin").open("rb") as file, SpoolWriter(spool.folder, "", has_types) as writer:
        for rows in Packer(documents.offsets, (Window(file, AHEAD), Window(file)), template, packing).blocks():
            writer.append(rows.ids, rows.lengths, rows.types if has_types else None)
        writer.commit(identity, documents.num_documents, documents.num_tokens)
    spooled = read_spool(spool.folder, identity)
    assert spooled is not None
    return spooled


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
