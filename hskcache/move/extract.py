"""A part of a cache, or all of it, written as a cache of its own: the bytes that a build of it would write.

What is stored is read and packed again; no teacher and no data set is needed. It grows as a build does, shard by shard,
each with its commit record, the manifest last.
"""

from pathlib import Path
from typing import NamedTuple

from hskcache.cache import Cache
from hskcache.disk import writing_to
from hskcache.errors import DamageError
from hskcache.move.arrival import alone_in
from hskcache.move.rewriting import OnProgress, Rewriting
from hskcache.store.growth import written
from hskcache.store.ledger import TOKENIZER
from hskcache.store.manifest import Manifest
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.survey import Extraction, extraction_in
from hskcache.store.tokenizer import digest_of, read_tokenizer
from hskcache.store.version2 import VERSION_2
from hskcache.versions import version_of

_PACKER = "numcodecs"


class Extracted(NamedTuple):
    """A cache that was written of another.

    Attributes:
        manifest: of the new one.
        num_written: shards that were written, constants among them.
        num_kept: those that stood there from before.
    """

    manifest: Manifest
    num_written: int
    num_kept: int


def extract(cache: Cache, out: Path, on_progress: OnProgress | None = None) -> Extracted:
    """Write a cache, which may be a view of one, into a folder; the same again goes on where it was cut off.

    Args:
        cache: the cache.
        out: a folder that is new, empty, or where the same was begun; made if missing.
        on_progress: told of the bytes of each shard of the cache that is done, and of all.

    Raises:
        MismatchError: the folder holds something else; nothing is touched.
        DamageError: a file of the cache is missing or altered; what was whole is kept.
        CacheError: another process is at it, the cache cannot be fetched, or the disk has too little room.
    """
    source, growth = cache.manifest, extraction_in(out)
    rewriting = Rewriting(growth, source)
    with writing_to(out, "the shards that are there"), alone_in(out):
        done = rewriting.standing(lambda standing: _is_same(standing, source))
        if done is not None:
            return Extracted(done, 0, source.num_records)
        growth.begin(written(Extraction(cache_id=source.cache_id)))
        rewriting.require_space(_most_bytes, "see less of the cache, or extract to another disk")
        num_kept = rewriting.write(lambda record: _packed(cache, record), on_progress or (lambda _bytes, _total: None))
        rewriting.put_files(_tokenizer(cache))
        environment = source.environment | {_PACKER: version_of(_PACKER)}
        manifest = rewriting.finish({"environment": environment, "upgraded_from": None})
    return Extracted(manifest, source.num_records - num_kept, num_kept)


def _is_same(standing: Manifest, source: Manifest) -> bool:
    """True if a complete cache is of the same request, fields and rows."""
    return (
        standing.request_digest == source.request_digest
        and standing.fields == source.fields
        and standing.part == source.part
        and {name: one.identity for name, one in standing.added.items()}
        == {name: one.identity for name, one in source.added.items()}
    )


def _packed(cache: Cache, record: Record) -> bytes:
    is_constant = record.shard == CONSTANTS
    arrays = cache.constants(record.field) if is_constant else cache.read(record.field, record.shard)
    return VERSION_2.pack(arrays)


def _most_bytes(record: Record) -> int:
    """Bytes of a shard before compression, about."""
    return sum(info.memory_bytes for info in record.arrays.values())


def _tokenizer(cache: Cache) -> dict[str, bytes]:
    """The tokenizer's files by path from the cache's directory.

    Raises:
        DamageError: they are not those that the rows were made with.
    """
    folder = cache.tokenizer_path
    files = read_tokenizer(folder)
    if digest_of(files) != cache.manifest.request.tokenizer.sha256:
        raise DamageError(
            f"{folder} holds other files than the rows were tokenized with; fetch or build the cache again"
        )
    return {f"{TOKENIZER}/{name}": data for name, data in files.items()}
