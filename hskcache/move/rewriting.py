"""A cache written anew from another, shard by shard as a build does, so that the same command goes on after a kill.

A file that says what it is written from stands in the folder until the manifest does, which comes last.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hskcache import disk
from hskcache.errors import MismatchError
from hskcache.store.commits import records_of
from hskcache.store.files import remove_matching, write_atomic
from hskcache.store.growth import Growth, stands
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import TEMPORARY, manifest_files, sweep
from hskcache.store.record import CONSTANTS, Record
from hskcache.store.survey import Arriving, Complete, Extracting, Extraction, Upgrade, Upgrading, Vacant, survey
from hskcache.store.tokenizer import tokenizer_files
from hskcache.store.version2 import VERSION_2

OnProgress = Callable[[int, int], object]
"""Told of the bytes of each shard that is done, and of all."""


class Rewriting:
    """A cache that is written into a folder by one process.

    Attributes:
        root: the folder.
        ledger: its files.

    Args:
        growth: what goes on in the folder, until the cache is complete.
        source: manifest of what it is written from.
    """

    def __init__(self, growth: Growth[Upgrade] | Growth[Extraction], source: Manifest) -> None:
        self.root = growth.path.parent
        self.ledger = Ledger(self.root)
        self._growth = growth
        self._source = source

    def standing(self, is_of_source: Callable[[Manifest], bool]) -> Manifest | None:
        """The manifest of the new cache if it stands here and nothing is left to do.

        Args:
            is_of_source: tells whether a complete cache is what the source becomes.

        Raises:
            MismatchError: something else stands in the folder.
        """
        said, state = self._growth.said(), survey(self.root)
        begun = said is not None and said.cache_id == self._source.cache_id
        match state:
            case Complete() if is_of_source(manifest := state.intact()):
                whole = not begun and all(stands(self.root / name) for name in manifest_files(manifest))
                return manifest if whole else None
            case Vacant():
                return None
            case Upgrading(growth=growth) | Extracting(growth=growth) | Arriving(growth=growth) if (
                begun or not growth.stands
            ):
                return None
        raise MismatchError(
            f"{self.root} holds something else than what {self._source.cache_id[:12]} becomes; choose another folder "
            "or empty it"
        )

    def require_space(self, size: Callable[[Record], int], otherwise: str) -> None:
        """Raise unless the disk has room for the shards that are not here.

        Args:
            size: bytes of a shard, at most.
            otherwise: what to do where it has none.

        Raises:
            CacheError: it has too little.
        """
        need = sum(size(record) for record in self._source.records if not self._is_here(record))
        disk.require_space(self.root, need, f"the shards of {self.root} need", otherwise, "folder")

    def write(self, packed: Callable[[Record], bytes], on_progress: OnProgress) -> int:
        """Write every shard that is not here yet, each with its commit record.

        Args:
            packed: gives the shard of a record of the source.
            on_progress: told of the bytes that the source has of each.

        Returns:
            How many were here.
        """
        total, num_kept = self._source.num_bytes, 0
        for record in self._source.records:
            if self._is_here(record):
                num_kept += 1
            else:
                self.ledger.commit_packed(packed(record), record.facts)
            on_progress(record.num_bytes, total)
        return num_kept

    def put_files(self, files: Mapping[str, bytes]) -> None:
        """Write what stands beside the shards, by path from the folder."""
        for name, data in files.items():
            write_atomic(self.root / name, data)

    def finish(self, changes: Mapping[str, Any]) -> Manifest:
        """Write the manifest, which completes the cache, and remove what led to it.

        Args:
            changes: to that of the source, apart from what the files here say.
        """
        source, tokenizer = self._source, self.root / TOKENIZER
        # What a kill has left half written is none of the tokenizer's files.
        for path in tokenizer.rglob(TEMPORARY):
            path.unlink()
        records = {name: records_of(self.ledger, name, source.request) for name in source.fields}
        here = {
            "format": VERSION_2,
            "shards": {name: VERSION_2.records(name, shards) for name, shards in records.items()},
            "constants": {name: self.ledger.committed(name, CONSTANTS) for name in source.constants},
            "tokenizer": tokenizer_files(tokenizer),
        }
        manifest = self.ledger.complete(source.model_copy(update={**here, **changes}))
        sweep(self.root, manifest, manifest.fields)
        remove_matching(self.root, TEMPORARY)
        self._growth.end()
        return manifest

    def _is_here(self, record: Record) -> bool:
        return self.ledger.is_committed(record.field, record.shard)
