"""Caches made of others: the same rows in other shards, with other arrays, or stored in another way."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from stored import shard_file

from hskcache.cache import Cache, Field, open_cache
from hskcache.compare.difference import Difference, Values
from hskcache.move.upgrade import upgrade
from hskcache.rows import read_rows
from hskcache.store.files import make_folder, write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.publishing import write_index, write_manifest

_FOLDER = TemporaryDirectory(prefix="golden-")
GOLDEN = Path(__file__).resolve().parents[2] / "golden"

ANOTHER = "another.json"
"""A file more of the tokenizer, where a cache is to have another one."""

Change = Callable[[str, int, dict[str, Any]], dict[str, Any] | None]


@cache
def golden(name: str = "tiny") -> Cache:
    """``tiny`` has hidden states of an int8 bitmask, ``corpus`` attention, ``added`` an added field.

    Their shards are as they are written today, so that shards of the same arrays are the same.
    """
    root = Path(_FOLDER.name) / name
    upgrade(GOLDEN / f"{name}.hsk", root)
    return open_cache(root)


def rewritten(
    source: Cache,
    out: Path,
    change: Change = lambda _field, _shard, _arrays: None,
    fields: Mapping[str, tuple[Field, dict[str, Any]]] | None = None,
    **request: Any,
) -> Cache:
    """A cache of the same rows.

    Args:
        source: whose rows they are.
        out: the new one.
        change: of the arrays of each shard.
        fields: stored in another way than there, with what their rows share.
        request: keys of the request that are others, such as ``shard_rows``.
    """
    asked = source.manifest.request.model_copy(update=request)
    own = {name: (field, source.constants(name)) for name, field in source.manifest.own_fields.items()}
    ledger, stored = Ledger(out), {**own, **(fields or {})}
    ledger.begin(asked)
    for path in source.tokenizer_path.iterdir():
        write_atomic(out / "tokenizer" / path.name, path.read_bytes())
    if asked.tokenizer != source.manifest.request.tokenizer:
        write_atomic(out / "tokenizer" / ANOTHER, b"{}")
    for name, (_, constants) in stored.items():
        if constants:
            ledger.commit_constants(name, constants)
        for shard, rows in enumerate(asked.shards):
            arrays = read_rows(source, name, np.arange(*rows))
            ledger.commit(name, shard, rows, change(name, shard, arrays) or arrays)
    ledger.finish(asked, {name: field for name, (field, _) in stored.items()}, {})
    return open_cache(out)


def part(source: Cache, out: Path, fields: list[str], shards: range) -> Cache:
    """Some shards of a cache as one of their own."""
    manifest = source.manifest.subset(fields, shards)
    for record in manifest.records:
        begin = shards.start if record.shard >= 0 else 0
        path = shard_file(source.root, record.field, record.shard + begin)
        write_atomic(out / record.path, path.read_bytes())
        if manifest.format.keeps_records:
            own = Ledger(out).record_path(record.field, record.shard)
            write_atomic(own, record.model_dump_json().encode())
    make_folder(out / "tokenizer")
    for path in source.tokenizer_path.iterdir():
        write_atomic(out / "tokenizer" / path.name, path.read_bytes())
    write_index(out, manifest)
    write_manifest(out, manifest)
    return open_cache(out)


def changing(field: str, shard: int, change: Any) -> Any:
    """A change of one shard of one field alone."""

    def do(name: str, number: int, arrays: dict[str, Any]) -> Any:
        return change(arrays) if (name, number) == (field, shard) else None

    return do


def values_of(found: Difference, field: str, layer: int | None = None) -> Values:
    assert found.values is not None
    (one,) = (one for one in found.values if (one.field, one.layer) == (field, layer))
    return one
