"""Caches of next tokens written with the store alone: no teacher takes part, and every stored number is chosen here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from language_models import NUM_IDS, language_tokenizer
from numpy.typing import NDArray

from hskcache.cache import Cache, InputsField, open_cache
from hskcache.spec import Spec, Vocabulary
from hskcache.store.kinds.vocabulary import VocabularyField
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Request, TeacherInfo, TokenizerInfo
from hskcache.store.tokenizer import tokenizer_digest

MAX_LENGTH, SHARD_ROWS = 24, 3
Rows = Sequence[Sequence[int]]
Arrays = Mapping[str, NDArray[Any]]


def places_of(rows: Rows, targets: Rows | None = None) -> list[list[int]]:
    """Positions of each row whose next token is a target; ``targets``: 1 of each token that is one, None: all."""
    masks = targets or [[0] + [1] * (len(row) - 1) for row in rows]
    return [[place - 1 for place, one in enumerate(mask) if one] for mask in masks]


def write(
    root: Path,
    rows: Rows,
    field: VocabularyField,
    arrays: Arrays,
    targets: Rows | None = None,
    constants: Arrays | None = None,
) -> Cache:
    """Write a cache, three rows to a shard, and open it.

    Args:
        root: its folder.
        rows: token ids.
        field: what is stored of next tokens.
        arrays: of all positions with a target, one row after the other, but for where they stand.
        targets: see :func:`places_of`.
        constants: that all rows share.
    """
    root.mkdir(parents=True)
    tokenizer = language_tokenizer()
    tokenizer.save_pretrained(root / "tokenizer")
    request = _request(root, rows, field)
    inputs = InputsField(id_dtype="uint16", has_token_types=False, has_labels=False, has_targets=targets is not None)
    ledger, places = Ledger(root), places_of(rows, targets)
    if constants is not None:
        ledger.commit_constants("vocabulary", constants)
    begin = np.cumsum([0, *map(len, places)])
    for shard, (start, stop) in enumerate(request.shards):
        own = {
            "input_ids": np.concatenate([np.array(row, np.uint16) for row in rows[start:stop]]),
            "row_offsets": np.cumsum([0, *map(len, rows[start:stop])], dtype=np.int64),
            "row_ids": np.arange(start, stop, dtype=np.int64),
        }
        if targets is not None:
            own["targets"] = np.concatenate([np.array(row, np.uint8) for row in targets[start:stop]])
        ledger.commit("inputs", shard, (start, stop), own)
        part = {name: array[begin[start] : begin[stop]] for name, array in arrays.items()}
        part["positions"] = np.concatenate([np.array(row, np.uint16) for row in places[start:stop]])
        part["position_offsets"] = np.cumsum([0, *map(len, places[start:stop])], dtype=np.int64)
        ledger.commit("vocabulary", shard, (start, stop), part)
    ledger.finish(request, {"inputs": inputs, "vocabulary": field}, {"hskcache": "0"})
    return open_cache(root)


def drawn_cache(root: Path, rows: Rows, targets: Rows | None = None) -> Cache:
    """Write a cache of six draws a position, from the ids up to 114; the text's own token is as likely as they say."""
    following = [rows[row][place + 1] for row, own in enumerate(places_of(rows, targets)) for place in own]
    gaps = np.random.default_rng(0).integers(0, 20, (len(following), 6))
    # The text's own token has the probability that its draws say, or a small one.
    share = (gaps.cumsum(1) == np.array(following)[:, None]).mean(1)
    arrays = {
        "gaps": gaps.astype(np.uint16),
        "log_z": np.ones(len(following), np.float16),
        "gold": np.log(np.maximum(share, 0.01)).astype(np.float16),
    }
    return write(root, rows, VocabularyField(form="sampled", vocab_size=264, count=6), arrays, targets)


def _request(root: Path, rows: Rows, field: VocabularyField) -> Request:
    section = Vocabulary(form=field.form, count=field.count, encoding=field.encoding or "int8")
    teacher = TeacherInfo(
        name="tiny",
        weights_sha256="0" * 64,
        config={},
        model_type="llama",
        num_layers=4,
        num_heads=4,
        width=field.width or 32,
        vocab_size=field.vocab_size,
    )
    return Request(
        spec=Spec(hidden=None, vocabulary=section, max_length=MAX_LENGTH, shard_rows=SHARD_ROWS),  # type: ignore[call-arg]
        teacher=teacher,
        tokenizer=TokenizerInfo(
            sha256=tokenizer_digest(root / "tokenizer"), vocab_size=NUM_IDS, pad_token_id=0, has_token_types=False
        ),
        data=DataInfo(name="text", fingerprint="0" * 64, num_rows=len(rows), problem="language", label_names=[]),
        shard_rows=SHARD_ROWS,
        layers=[],
    )
