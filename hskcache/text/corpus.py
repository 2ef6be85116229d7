"""Plain text of any size as packed rows of tokens: general distillation has no labels and no rows of its own."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hskcache.errors import DataError
from hskcache.remarks import remark
from hskcache.spec import Packing
from hskcache.text.documents import AHEAD, STEM, DocumentsWriter, TokenWindow
from hskcache.text.lines import text_batches
from hskcache.text.packing import Packer, RowTemplate, template_of
from hskcache.text.regular import open_regular, require_same, sha256_of, state_of
from hskcache.text.spool import Spool, SpooledRows, SpoolWriter, read_spool, remove_spool
from hskcache.text.tokenize import TokenizedRows, special_ids
from hskcache.timeline import span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PACKING = 1
"""Goes up whenever the same text would be packed into other rows."""

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text file packed into rows, which stay on the disk.

    Attributes:
        rows: ids and offsets are read-only maps of the spool's files, and so are token types of pairs, where the
            tokenizer's model has them; those of single texts are zeros that take no memory.
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


@span("tokenize")
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
    the same rows. ``path``: a UTF-8 file, with or without a byte order mark; ``max_length``: tokens of a row at most,
    special tokens included; ``on_progress``: called with the number of bytes of the file done since the last call.
    Raises SpecError if ``max_length`` leaves no room for text beside the special tokens, or there is no token to mask
    with; DataError if the file cannot be read, is not UTF-8 (naming the line), holds no text, or changes meanwhile, or
    is one document where second texts are to be of another; TeacherError if the tokenizer gives a single text token
    types other than 0; OSError if the spool cannot be written.
    """
    template = template_of(tokenizer, max_length, spool.packing)
    with open_regular(path) as file:
        begun = state_of(file)
        sha256 = sha256_of(file)
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
    default; neither the file's name nor the tokenizer enters. Raises DataError if the file cannot be read.
    """
    with open_regular(path) as file:
        return _fingerprint(sha256_of(file), max_length, packing or Packing())


def _fingerprint(sha256: str, max_length: int, packing: Packing) -> str:
    drawn = _drawn(packing)
    told = json.dumps(drawn, sort_keys=True) + "\n" if drawn else ""
    return hashlib.sha256(f"hskcache corpus {_PACKING}\n{sha256}\n{max_length}\n{told}".encode()).hexdigest()


def _drawn(packing: Packing) -> dict[str, Any]:
    """Settings of a packing that are not the default: none for rows as they have always been."""
    plain = packing.resolved.model_dump(mode="json", exclude_defaults=True)
    return {"rows": plain} if plain else {}


def _has_types(tokenizer: "PreTrainedTokenizerBase") -> bool:
    return "token_type_ids" in tokenizer.model_input_names


def _rows(spooled: SpooledRows, tokenizer: "PreTrainedTokenizerBase") -> TokenizedRows:
    types = spooled.token_type_ids
    if types is None and _has_types(tokenizer):
        types = np.broadcast_to(np.uint8(0), spooled.input_ids.shape)
    return TokenizedRows(spooled.input_ids, spooled.offsets, types, special_ids(tokenizer))


def _tokenize(
    file: BinaryIO,
    tokenizer: "PreTrainedTokenizerBase",
    place: tuple[Path, dict[str, Any]],
    begun: tuple[int, int],
    on_progress: Progress | None,
) -> SpooledRows:
    """The documents of a file as tokens on the disk.

    ``place``: folder and identity of the spool; ``begun``: state of the file before anything was read of it.
    """
    folder, identity = place
    with SpoolWriter(folder, STEM) as writer:
        documents, done = DocumentsWriter(tokenizer, writer), 0
        for batch in text_batches(file):
            documents.add(batch)
            if on_progress is not None:
                on_progress(file.tell() - done)
                done = file.tell()
        if not documents.num_tokens:
            raise DataError(f"{file.name} holds no text; give a file with at least one line of it")
        require_same(file, begun)
        writer.commit(identity, documents.num_documents, documents.num_tokens)
    spooled = read_spool(folder, identity, STEM)
    assert spooled is not None
    return spooled


def _pack(
    name: str, documents: SpooledRows, template: RowTemplate, place: tuple[Spool, dict[str, Any]], has_types: bool
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
        remark(f"{name} is one document without blank lines, so that no second text is of another one")
    with (spool.folder / f"{STEM}ids.bin").open("rb") as file, SpoolWriter(spool.folder, "", has_types) as writer:
        for rows in Packer(
            documents.offsets, (TokenWindow(file, AHEAD), TokenWindow(file)), template, packing
        ).blocks():
            writer.append(rows.ids, rows.lengths, rows.types if has_types else None)
        writer.commit(identity, documents.num_documents, documents.num_tokens)
    spooled = read_spool(spool.folder, identity)
    assert spooled is not None
    return spooled
