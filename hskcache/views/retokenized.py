"""A cache whose rows are read in the tokens of another tokenizer, from the texts that it keeps.

What a teacher said of a whole row is true of its text, however that is cut; what it said of positions is not.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache.errors import MismatchError
from hskcache.runtime import quiet
from hskcache.store.fields import INPUTS, ROW, InputsField, StoredField, kind_of
from hskcache.store.files import sha256_hex
from hskcache.store.kinds.abc import TOKEN
from hskcache.store.manifest import Manifest, Request
from hskcache.store.provenance import CutRows
from hskcache.store.request import TokenizerInfo
from hskcache.store.shelf import Shelf
from hskcache.store.texts import unpacked_texts
from hskcache.text.examples import Examples
from hskcache.text.singles import with_prompt
from hskcache.text.tokenize import load_tokenizer, tokenize, vocabulary_difference
from hskcache.views.abc import Arrays, Narrowed, ShardContext
from hskcache.views.records import ViewFormat, ViewRecords
from hskcache.views.shelf import ViewedCache, ViewShelf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MADE = frozenset({"input_ids", "token_type_ids", "row_offsets"})
"""Arrays that a tokenizer makes."""
_TEXT = ("text", "text_offsets", "text_splits")


@dataclass(frozen=True)
class Retokenized(Narrowed):
    """The inputs of a cache in other tokens.

    Attributes:
        tokenizer: a fast one.
        digest: of it.
        max_length: tokens of a row at most.
        prompt: before each text.
        lock: of the tokenizer, which cuts as it was last told to: threads take turns.
    """

    tokenizer: "PreTrainedTokenizerBase"
    digest: str
    max_length: int
    prompt: str
    lock: Any = field(default_factory=Lock, compare=False)

    @property
    def told(self) -> list[str]:
        """Digest of the tokenizer."""
        return [self.digest, self.prompt]

    def needed(self, wanted: Collection[str]) -> list[str]:
        """The texts, and what stands beside the tokens."""
        stored = kind_of(self.source).arrays(self.source)
        texts = _TEXT if _MADE & set(wanted) else ()
        return [name for name in stored if name in texts or (name in wanted and name not in _MADE)]

    def most(self, axis: str, stored: int, num_rows: int) -> int:
        """Entries at most: as many tokens as a row may have."""
        return num_rows * self.max_length if axis == TOKEN else super().most(axis, stored, num_rows)

    def shard(self, arrays: Arrays, beside: ShardContext) -> Arrays:
        """The arrays of a shard, its texts cut into tokens.

        Raises:
            DamageError: the texts are none.
            DataError: one gives no token.
        """
        if "text" not in arrays:
            return arrays
        texts, pairs = unpacked_texts(arrays)
        read = with_prompt(self.prompt, texts)
        examples = Examples(read, pairs, None, (), "classification", "the texts of the cache", None, "")
        with self.lock:
            rows = tokenize(examples, self.tokenizer, self.max_length)
        assert isinstance(self.field, InputsField)
        made: Arrays = {
            "input_ids": rows.input_ids.astype(self.field.id_dtype),
            "row_offsets": rows.offsets.astype(np.int64),
        }
        if rows.token_type_ids is not None:
            made["token_type_ids"] = rows.token_type_ids
        return {name: array for name, array in arrays.items() if name not in _TEXT} | made


class RetokenizedShelf(ViewShelf):
    """Hands out the shards of a cache in other tokens.

    Args:
        tokenizer: folder or hub id.
        origin: the cache.
        fields: by name.
    """

    def __init__(self, tokenizer: str, origin: ViewedCache, fields: Mapping[str, Narrowed]) -> None:
        super().__init__("", origin, fields, 0)
        self.name = f"{origin.shelf.name} in the tokens of {tokenizer}"
        self._tokenizer = tokenizer

    @property
    def tokenizer_path(self) -> Path:
        """The folder, or the hub id."""
        return Path(self._tokenizer)


def of_rows(field: StoredField) -> bool:
    """True if a field holds something of whole rows alone, which is true in any tokens."""
    kind = kind_of(field)
    return field.kind != INPUTS and all(kind.axis(name) == ROW for name in kind.arrays(field))


def retokenized(manifest: Manifest, shelf: Shelf, name: str) -> tuple[Manifest, Shelf]:
    """The manifest and the shelf of a cache in the tokens of another tokenizer; its own where that is the same.

    There are the fields of whole rows alone.

    Args:
        manifest: of a cache.
        shelf: of the cache.
        name: of the tokenizer, a folder or a hub id.

    Raises:
        MismatchError: the cache keeps no text.
        TeacherError: there is no such tokenizer.
    """
    with quiet():
        tokenizer, own = load_tokenizer(name), load_tokenizer(str(shelf.tokenizer_path))
    if vocabulary_difference(tokenizer.get_vocab(), own.get_vocab()) is None:
        return manifest, shelf
    source = manifest.fields[INPUTS]
    assert isinstance(source, InputsField)
    if source.text is None:
        raise MismatchError(
            f"{shelf.name} keeps the tokens of its teacher and no text for those of {name}; build it with --keep-text, "
            "or use a student with the teacher's tokenizer"
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    digest = sha256_hex(tokenizer.backend_tokenizer.to_str().encode())
    has_types, num_ids = "token_type_ids" in tokenizer.model_input_names, 1 + max(tokenizer.get_vocab().values())
    inputs = source.model_copy(
        update={"id_dtype": "uint16" if num_ids <= 1 << 16 else "int32", "has_token_types": has_types, "text": None}
    )
    request = _request(manifest.request, tokenizer, (digest, num_ids))
    embedding = manifest.request.spec.embedding
    prompt = "" if embedding is None else embedding.prompt or ""
    fields = {name: Narrowed(field, field) for name, field in manifest.fields.items() if of_rows(field)}
    fields = {INPUTS: Retokenized(source, inputs, tokenizer, digest, request.spec.max_length, prompt), **fields}
    origin = ViewedCache(manifest, shelf)
    seen = manifest.model_copy(
        update={
            "format": ViewFormat(manifest, 0),
            "request": request,
            "request_digest": request.digest,
            "fields": {name: one.field for name, one in fields.items()},
            "shards": {name: ViewRecords(manifest.shards[name], one, request, 0) for name, one in fields.items()},
            **{
                part: {name: one for name, one in getattr(manifest, part).items() if name in fields}
                for part in ("constants", "added", "agreement")
            },
        }
    )
    return seen.signed(), RetokenizedShelf(name, origin, fields)


def _request(request: Request, tokenizer: "PreTrainedTokenizerBase", told: tuple[str, int]) -> Request:
    """The request of rows in other tokens; ``told`` is the tokenizer's digest, and one more than its largest id."""
    (digest, num_ids), config = told, request.teacher.config
    pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    has_types = "token_type_ids" in tokenizer.model_input_names
    if has_types and "type_vocab_size" in config:
        # That of the teacher's tokens says nothing of these.
        config = {**config, "type_vocab_size": None}
    whole = [part.provenance and part.provenance.model_copy(update={"cut": CutRows()}) for part in request.parts]
    parts = [part.model_copy(update={"provenance": one}) for part, one in zip(request.parts, whole, strict=True)]
    return request.model_copy(
        update={
            "tokenizer": TokenizerInfo(sha256=digest, vocab_size=num_ids, pad_token_id=pad, has_token_types=has_types),
            "teacher": request.teacher.model_copy(update={"vocab_size": num_ids, "config": config}),
            "data": parts[0],
            "appended": parts[1:],
        }
    )
