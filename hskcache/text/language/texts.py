"""Rows of plain texts, and of prompts with their completions."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache.counted import counted
from hskcache.errors import DataError
from hskcache.remarks import remark
from hskcache.text.documents import plain_tokenizer
from hskcache.text.examples import Examples
from hskcache.text.frame import Ids
from hskcache.text.language.files import documents, whole_file
from hskcache.text.language.made import MadeRows
from hskcache.text.language.rows import Ends, LanguageRows, RowsWriter, ends_of
from hskcache.text.lines import BATCH_CHARACTERS, BATCH_TEXTS
from hskcache.text.regular import open_regular, require_same, sha256_of, state_of
from hskcache.timeline import span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[int], None]

_MAKING = 1
"""Goes up whenever the same text would be made into other rows."""


@span("tokenize")
def documents_of_file(
    path: Path,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    one_document: bool = False,
    on_progress: Progress | None = None,
) -> LanguageRows:
    """Rows of a text file, whose documents are found as :func:`~hskcache.text.language.files.documents` does.

    ``max_length``: tokens of a row at most; ``one_document``: reads the whole file as one; ``on_progress``: called with
    the number of bytes of the file done since the last call. Raises DataError if the file cannot be read, is not UTF-8
    (naming the line), holds no text, or changes meanwhile; TeacherError as :func:`ends_of`.
    """
    ends, plain, writer = ends_of(tokenizer), plain_tokenizer(tokenizer), RowsWriter(max_length, have_targets=False)
    done = number = 0
    with open_regular(path) as file:
        begun = state_of(file)
        sha256 = sha256_of(file)
        found = whole_file(file) if one_document else documents(file)
        for batch in _batches(found, lambda document: len(document.text)):
            texts = [document.text for document in batch if document.text.strip()]
            for text, ids in zip(texts, _tokens(plain, texts), strict=True):
                writer.add(number, _framed(ends, ids), text)
                number += 1
            if on_progress is not None:
                on_progress(batch[-1].end - done)
                done = batch[-1].end
        require_same(file, begun)
    if not number:
        raise DataError(f"{path} holds no text; give a file with at least one line of it")
    if not writer.num_documents:
        raise DataError(f"{path} holds documents of one token alone, of which there is nothing to predict")
    _tell_lost(str(path), number - writer.num_documents)
    made = MadeRows("documents", writer.num_documents, writer.num_targets, one_document)
    return LanguageRows(writer.whole(tokenizer), str(path), None, fingerprint_of(made, sha256), made)


@span("tokenize")
def documents_of_rows(
    examples: Examples,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    on_progress: Progress | None = None,
) -> LanguageRows:
    """Rows of texts of a data file, each of them a document.

    ``max_length``: tokens of a row at most; ``on_progress``: called with the number of texts done since the last call.
    Raises DataError if no text has a token to predict; TeacherError as :func:`ends_of`.
    """
    ends, plain, writer = ends_of(tokenizer), plain_tokenizer(tokenizer), RowsWriter(max_length, have_targets=False)
    number = 0
    for texts in _batches(examples.texts, len):
        for text, ids in zip(texts, _tokens(plain, texts), strict=True):
            if not writer.add(number, _framed(ends, ids), text) and examples.reading.policy.bad_rows == "fail":
                raise DataError(f"{examples.where(number)}: {_NOTHING}; {_REMEDY}")
            number += 1
        if on_progress is not None:
            on_progress(len(texts))
    return _of_examples(examples, writer, tokenizer, MadeRows("documents", writer.num_documents, writer.num_targets))


@span("tokenize")
def completions(
    examples: Examples,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    on_progress: Progress | None = None,
) -> LanguageRows:
    """Rows of prompts, each with its completion, which alone is to be predicted, and the end of the text.

    Tokens of the two are made apart and joined. A row that is too long loses the end of its completion.
    ``max_length``, ``on_progress``: as of :func:`documents_of_rows`. Raises DataError if a prompt leaves no room for
    what is to be predicted and may not be left out; TeacherError as :func:`ends_of`.
    """
    assert examples.pairs is not None
    ends, plain, writer = ends_of(tokenizer), plain_tokenizer(tokenizer), RowsWriter(max_length, have_targets=True)
    number = 0
    for pairs in _batches(zip(examples.texts, examples.pairs, strict=True), lambda pair: len(pair[0]) + len(pair[1])):
        prompts, answers = (_tokens(plain, [pair[side] for pair in pairs]) for side in range(2))
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = np.concatenate([ends.before, prompt, answer, ends.after])
            targets = np.arange(len(ids)) >= len(ends.before) + len(prompt)
            if not writer.add_masked(number, ids, targets) and examples.reading.policy.bad_rows == "fail":
                raise DataError(
                    f"{examples.where(number)}: the prompt has {counted(len(prompt), 'token')} and a row at most "
                    f"{max_length}, so nothing of its completion is left; give --max-length {len(ids)}, or "
                    "--bad-rows skip to leave out such rows"
                )
            number += 1
        if on_progress is not None:
            on_progress(len(pairs))
    return _of_examples(examples, writer, tokenizer, MadeRows("completions", writer.num_documents, writer.num_targets))


def fingerprint_of(made: MadeRows, content: str) -> str:
    """Digest of a source, by that of its content, and of how rows are made of it as far as no spec says it."""
    told = [made.form, *(["one document"] if made.one_document else []), *made.roles]
    return hashlib.sha256(f"hskcache language {_MAKING}\n{content}\n{' '.join(told)}\n".encode()).hexdigest()


_NOTHING = "the text is one token, of which there is nothing to predict"
_REMEDY = "correct or remove the row, or give --bad-rows skip to leave out such rows"


def _of_examples(
    examples: Examples, writer: RowsWriter, tokenizer: "PreTrainedTokenizerBase", made: MadeRows
) -> LanguageRows:
    """The rows that were made of examples. Raises DataError if there are none."""
    if not writer.num_documents:
        raise DataError(f"{examples.source}: no row has a token to predict; see --max-length, and that texts are long")
    _tell_lost(examples.source, len(examples) - writer.num_documents)
    rows = writer.whole(tokenizer)
    fingerprint = fingerprint_of(made, examples.fingerprint)
    return LanguageRows(rows, examples.source, examples.split, fingerprint, made, examples.reading)


def _tell_lost(source: str, num_lost: int) -> None:
    if num_lost:
        remark(f"{source}: {counted(num_lost, 'text')} left out that have no token to predict")


def _framed(ends: Ends, ids: Ids) -> Ids:
    return np.concatenate([ends.before, ids, ends.after])


def _tokens(plain: Any, texts: Sequence[str]) -> Iterator[Ids]:
    """Tokens of whole texts, without special ones around them, int32 [T] each."""
    # Without offsets and words, which take much memory of long texts and are not needed.
    for encoding in plain.encode_batch_fast(list(texts), add_special_tokens=False):
        yield np.array(encoding.ids, np.int32)


def _batches(values: Iterable[Any], size: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Values in order, about so many characters together; a long one is alone."""
    batch: list[Any] = []
    total = 0
    for value in values:
        batch.append(value)
        total += size(value)
        if total >= BATCH_CHARACTERS or len(batch) >= BATCH_TEXTS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
