"""A cache of an older version of the format, written anew in the one of today: the same rows, values and order.

Nothing is computed and nothing decompressed: the chunks of every shard stay what they are, with other documents about
them. The new cache grows as a build does, shard by shard, each with its commit record, the manifest last; see
:mod:`~hskcache.move.rewriting`.
"""

from pathlib import Path
from typing import NamedTuple

from hskcache.disk import writing_to
from hskcache.errors import DamageError, MismatchError
from hskcache.move.arrival import alone_in
from hskcache.move.rewriting import OnProgress, Rewriting
from hskcache.store.beside import README, Beside, read_beside
from hskcache.store.files import read_file, sha256_hex
from hskcache.store.growth import written
from hskcache.store.ledger import TOKENIZER
from hskcache.store.manifest import Manifest
from hskcache.store.meaning import meanings
from hskcache.store.record import Record
from hskcache.store.shard import retold
from hskcache.store.survey import Upgrade, upgrade_in
from hskcache.store.version2 import VERSION_2


class Upgraded(NamedTuple):
    """A cache that was upgraded.

    Attributes:
        manifest: of the new one.
        old: of the old one.
        num_written: shards that were written, constants among them.
        num_kept: those that stood there from before.
    """

    manifest: Manifest
    old: Manifest
    num_written: int
    num_kept: int


def upgrade(old: Path, new: Path, on_progress: OnProgress | None = None) -> Upgraded:
    """Write a cache of an older version of the format anew in today's; the old one is not touched.

    Args:
        old: the cache.
        new: a folder that is new, empty, or where the same upgrade was begun; made if missing.
        on_progress: told of the bytes of each shard that is done, and of all.

    Raises:
        MismatchError: the cache is of today's version, or the folder holds something else; nothing is touched.
        DamageError: a file of the cache is missing or altered; what was whole is kept.
        CacheError: there is no complete cache, another process is at it, or the disk has too little room.
    """
    beside = read_beside(old)
    if beside.manifest.format == VERSION_2:
        raise MismatchError(f"{old} is of format version {VERSION_2.version} already; there is nothing to upgrade")
    manifest, growth = beside.manifest, upgrade_in(new)
    rewriting = Rewriting(growth, manifest)
    with writing_to(new, "the shards that are there"), alone_in(new):
        done = rewriting.standing(lambda standing: standing.upgraded_from == manifest.cache_id)
        if done is not None:
            return Upgraded(done, manifest, 0, manifest.num_records)
        growth.begin(written(Upgrade(cache_id=manifest.cache_id)))
        rewriting.require_space(lambda record: record.num_bytes, "upgrade to another disk")
        num_kept = rewriting.write(
            lambda record: retold(_read(old, record), meanings), on_progress or (lambda _bytes, _total: None)
        )
        rewriting.put_files(_files(beside))
        upgraded = rewriting.finish({"upgraded_from": manifest.cache_id})
    return Upgraded(upgraded, manifest, manifest.num_records - num_kept, num_kept)


def _read(old: Path, record: Record) -> bytes:
    """The file of a shard.

    Raises:
        DamageError: it is missing or altered.
    """
    path = old / record.path
    try:
        data = read_file(path, record.num_bytes)
        if sha256_hex(data) != record.sha256:
            raise DamageError("has another content than was written: its SHA-256 differs")
    except FileNotFoundError:
        raise DamageError(f"{path} is missing; {_MEND}") from None
    except DamageError as error:
        raise DamageError(f"{path} {error}; {_MEND}") from None
    return data


def _files(beside: Beside) -> dict[str, bytes]:
    """Content of the files beside the shards, by path."""
    files = {f"{TOKENIZER}/{name}": data for name, data in beside.tokenizer.items()}
    return files if beside.readme is None else files | {README: beside.readme}


_MEND = "`hskcache verify` tells all that is wrong, `hskcache repair` mends it"
