"""Folder that shards of a cache are computed in until it is known that they are the right ones."""

from collections.abc import Collection
from pathlib import Path

from hskcache.store.files import write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Format
from hskcache.store.record import CONSTANTS, Record


class Workplace(Ledger):
    """A folder in which nothing is missing but some shards, so that a writing makes these and no others.

    Args:
        root: the folder.
        wanted: records of the shards to be made, one at least.
        version: of the format that they are in.
    """

    def __init__(self, root: Path, wanted: Collection[Record], version: Format) -> None:
        super().__init__(root)
        self.format = version
        self._wanted = {(record.field, record.shard): record for record in wanted}

    def committed(self, field: str, shard: int) -> Record | None:
        """A shard's commit record; of those that are not wanted, any record, as if they were whole."""
        if shard == CONSTANTS or (field, shard) in self._wanted:
            return super().committed(field, shard)
        return next(iter(self._wanted.values()))

    def _sha256(self, field: str, shard: int) -> str | None:
        wanted = self._wanted.get((field, shard))
        return None if wanted is None else wanted.sha256

    def lend(self, record: Record, path: Path) -> None:
        """Let the constants of a cache be those that shards are made with here.

        Args:
            record: of the constants.
            path: the file of them.
        """
        write_atomic(self.shard_path(record), path.read_bytes())
        write_atomic(self.record_path(record.field, record.shard), record.model_dump_json().encode() + b"\n")
