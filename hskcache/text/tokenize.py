"""Rows of text as one flat run of token ids with offsets: every length is known before a teacher is loaded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hskcache import console
from hskcache.cut import NOTHING, Cut, Reach
from hskcache.encoder import num_positions
from hskcache.errors import DataError, TeacherError
from hskcache.hub import divided, looked_up
from hskcache.text.first_pieces import FirstPieces, FoundPieces, split_words, tell_words
from hskcache.text.frame import room_for
from hskcache.text.rows import Examples
from hskcache.text.strings import Flat
from hskcache.timeline import span
from hskcache.untyped import untyped_bert

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_ROWS = 1000


@dataclass(frozen=True, eq=False)
class TokenizedRows:
    """N rows of tokens without padding; row i is ``input_ids[offsets[i]:offsets[i + 1]]``.

    Attributes:
        input_ids: int32 [sum L].
        offsets: int64 [N + 1], from 0 to sum L.
        token_type_ids: uint8 [sum L], or None for a tokenizer whose model has no such input.
        special_ids: ids of the tokens that mark structure ([CLS], [SEP], padding); the unknown token, which stands
            for a word, is not one of them.
        cut: what was cut off rows that were longer than they may be.
        words: where the words of rows of words stand; None where rows are texts.
        targets: bool [sum L], the tokens that a language model is to predict from those before them, never the first
            of a row; None: all but the first of each row.
        documents: int64 [N], number of the document that each row is a part of; None where rows are no parts of any.
        num_bytes: of whole texts that all tokens of the rows are of, in UTF-8; None where that is not known.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    token_type_ids: NDArray[np.uint8] | None
    special_ids: frozenset[int]
    cut: Cut = NOTHING
    words: FirstPieces | None = None
    targets: NDArray[np.bool_] | None = None
    documents: NDArray[np.int64] | None = None
    num_bytes: int | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, special tokens included: int64 [N]."""
        return np.diff(self.offsets)

    @property
    def num_targets(self) -> NDArray[np.int64]:
        """Tokens of each row that are to be predicted, int64 [N]."""
        if self.targets is None:
            return np.maximum(self.lengths - 1, 0)
        return np.add.reduceat(self.targets, self.offsets[:-1], dtype=np.int64)


@span("tokenize")
def tokenize(
    examples: Examples,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    on_progress: Callable[[int], None] | None = None,
) -> TokenizedRows:
    """Token ids of every row, the longer text of a pair cut first, nothing padded.

    ``max_length``: tokens of a row at most, special tokens included; ``on_progress``: called with the number of rows
    done since the last call. Raises SpecError if ``max_length`` leaves no room for text beside the special tokens,
    DataError if a row gives no token at all.
    """
    # Below this length fast tokenizers do not fail: they cut a text to nothing, or do not cut at all.
    is_pair = examples.pairs is not None
    room_for(1 + is_pair, tokenizer.num_special_tokens_to_add(pair=is_pair), max_length)
    with_types = "token_type_ids" in tokenizer.model_input_names
    ids, types, offsets = Flat(np.int32), Flat(np.uint8), Flat(np.int64)
    offsets.append(np.zeros(1, np.int64))
    num_rows, num_ids, cut = 0, 0, NOTHING
    words = None if examples.words is None else FoundPieces()
    for batch, texts, pairs in _batches(examples, tokenizer, max_length):
        rows: list[list[int]] = batch["input_ids"]
        if not all(rows):
            where = examples.where(num_rows + [bool(row) for row in rows].index(False))
            raise DataError(f"{where}: the text gives no token; correct or remove the row")
        ids.append(np.fromiter(chain.from_iterable(rows), np.int32))
        if with_types:
            types.append(np.fromiter(chain.from_iterable(batch["token_type_ids"]), np.uint8))
        ends = num_ids + np.cumsum(list(map(len, rows)), dtype=np.int64)
        offsets.append(ends)
        num_rows, num_ids = num_rows + len(rows), int(ends[-1])
        if words is not None:
            words.add(batch, texts)
        cut += _cut_in(batch, texts, pairs, tokenizer, max_length, words)
        if on_progress is not None:
            on_progress(len(rows))
    token_types = types.whole() if with_types else None
    found = None if words is None else words.whole()
    if found is not None:
        tell_words(found, examples.source, cut.longest)
    return TokenizedRows(ids.whole(), offsets.whole(), token_types, special_ids(tokenizer), cut, found)


def _batches(
    examples: Examples, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> Iterator[tuple[Any, list[Any], list[str] | None]]:
    """Batches of tokens, each with the texts, or the words, and the second texts of its rows."""
    how = {} if examples.words is None else split_words(tokenizer)
    for start in range(0, len(examples), BATCH_ROWS):
        stop = start + BATCH_ROWS
        texts: list[Any] = list((examples.words or examples.texts)[start:stop])
        pairs = None if examples.pairs is None else list(examples.pairs[start:stop])
        batch = tokenizer(
            texts,
            pairs,
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_token_type_ids="token_type_ids" in tokenizer.model_input_names,
            return_attention_mask=False,
            **how,
        )
        yield batch, texts, pairs


def tokenized(examples: Examples, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> TokenizedRows:
    """The same with a progress bar on stderr."""
    with console.advancing("tokenize", len(examples)) as advance:
        return tokenize(examples, tokenizer, max_length, advance)


def _cut_in(
    batch: Any,
    texts: list[Any],
    pairs: list[str] | None,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    words: FoundPieces | None,
) -> Cut:
    """Count what a fast tokenizer cut off some rows; only rows that are as long as they may be are looked at."""
    full = [row for row, ids in enumerate(batch["input_ids"]) if len(ids) >= max_length]
    if not full:
        return NOTHING
    # These few rows again, whole: what was cut off stands beside a row in some versions of the library alone, and of
    # pairs in all combinations of their pieces, of which long texts have very many.
    rust = tokenizer.backend_tokenizer
    rust.no_truncation()
    rust.no_padding()
    rows = [texts[row] if pairs is None else (texts[row], pairs[row]) for row in full]
    # The fast way tells no words.
    encode = rust.encode_batch_fast if words is None else partial(rust.encode_batch, is_pretokenized=True)
    encodings = encode(rows)
    whole = [len(encoded) for encoded in encodings]
    for row, encoded in zip(full, encodings, strict=True):
        if words is not None:
            words.lose(batch.word_ids(row), encoded.word_ids)
    lengths_left = (len(batch["input_ids"][row]) for row in full)
    cut = [(length, length - left) for length, left in zip(whole, lengths_left, strict=True) if length > left]
    lengths = [length for length, _ in cut]
    return Cut(len(cut), sum(lost for _, lost in cut), sum(lengths), max(lengths, default=0))


def reach_of(model: "PreTrainedModel", name: str, max_length: int, keep: str = "--max-length") -> Reach:
    """Limit on the length of rows of a model that is called ``name``.

    A model without a table of positions reads on, but was trained up to a length that its configuration tells.
    """
    trained = getattr(model.config, "max_position_embeddings", None)
    return Reach(max_length, num_positions(model) or trained, name, keep)


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Ids of the tokens that mark structure rather than stand for text.

    The unknown token is left out unless, as in GPT-2, it is also the token that ends a text.
    """
    unknown = tokenizer.unk_token
    structure = [token for token in tokenizer.all_special_tokens if token != unknown]
    marks = [getattr(tokenizer, f"{name}_token") for name in ("cls", "sep", "bos", "eos", "pad")]
    if unknown is not None and unknown in marks:
        structure.append(unknown)
    return frozenset(int(number) for number in tokenizer.convert_tokens_to_ids(structure))


def vocabulary_difference(
    theirs: Mapping[str, int], ours: Mapping[str, int]
) -> tuple[str, int | None, int | None] | None:
    """The first token, in the order of spelling, that two vocabularies give other ids: token, id there, id here.

    Returns None where the two are the same; an id is None where a vocabulary lacks the token.
    """
    if theirs == ours:
        return None
    token = min(token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token))
    return token, theirs.get(token), ours.get(token)


def load_tokenizer(name: str | Path, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """Load the fast tokenizer of a model from a folder or the hub; no code of the model's is run.

    ``name``: a folder with a saved tokenizer, or a hub repository. ``revision``: branch, tag or commit of the
    repository; None is its main branch. Raises TeacherError if it cannot be loaded, is not a fast tokenizer, or has no
    vocabulary.
    """
    if str(name).startswith(("/", ".", "~")) and not Path(name).is_dir():
        # Asked for such a path, transformers would look for it on the hub.
        raise TeacherError(f"no tokenizer at {name}: there is no such folder; give a model's folder or a hub name")
    with looked_up(str(name)):
        try:
            tokenizer = _loaded(str(name), revision)
        except Exception as error:  # noqa: BLE001  (the Rust library raises plain Exception for a malformed tokenizer.json)
            raise TeacherError(f"cannot load a tokenizer from {name}: {shorten(str(error), 200)}") from None
    if not tokenizer.is_fast:
        raise TeacherError(f"the tokenizer of {name} is not a fast one; convert it to a tokenizer.json first")
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # A folder with a configuration alone gives an empty tokenizer, not an error.
        raise TeacherError(
            f"{name} has no vocabulary; save the tokenizer there (tokenizer.json) or give another folder"
        )
    return tokenizer


def _loaded(name: str, revision: str | None) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    repository, within = divided(name)
    settings = {**within, "revision": revision, "use_fast": True, "trust_remote_code": False}
    try:
        return AutoTokenizer.from_pretrained(repository, **settings)
    except ValueError:
        # A vocabulary alone says nothing of its tokenizer; the configuration beside it may.
        if (config := untyped_bert(name)) is None:
            raise
        return AutoTokenizer.from_pretrained(repository, config=config, **settings)
