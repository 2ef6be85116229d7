"""Another copy of a cache, in a folder or at a URL, from which damaged files are taken."""

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from hskcache.counted import counted
from hskcache.depot.retry import OutOfReachError
from hskcache.disk import require_space
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.remote.fetch import fetch, fetch_tokenizer, read_manifest
from hskcache.remote.place import is_url
from hskcache.remote.remote import Remote, open_remote
from hskcache.repair.mending import put_in_place, waiting_path
from hskcache.store.files import read_document
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.pages import IndexFile
from hskcache.store.publishing import MANIFEST, write_index, write_manifest
from hskcache.store.record import Record


class Replica:
    """Another copy of a cache.

    Attributes:
        remote: where it is.
        manifest: of it; None where it has none that is intact, so that its files are known by their names alone.
    """

    def __init__(self, place: str) -> None:
        """Open a copy.

        Args:
            place: a folder or a URL.

        Raises:
            CacheError: there is no such folder, or the server does not answer.
        """
        if not is_url(place) and not Path(place).is_dir():
            raise CacheError(f"--from {place} does not exist; give the folder or the URL of another copy of the cache")
        self.remote: Remote = open_remote(place if is_url(place) else f"file://{Path(place).resolve()}")
        try:
            self.manifest: Manifest | None = read_manifest(self.remote)
        except OutOfReachError:
            raise
        except (CacheError, FileNotFoundError):
            self.manifest = None

    def take(
        self, ledger: Ledger, records: Collection[Record], on_bytes: Callable[[int], None] | None = None
    ) -> tuple[list[Record], dict[tuple[str, int], str]]:
        """Put good files in the place of bad ones.

        Args:
            ledger: the cache.
            records: of the bad files.
            on_bytes: called with the size of each file when it is done.

        Returns:
            The records of the files that were replaced, and by field and shard why others were not.

        Raises:
            OutOfReachError: the server has gone; the same command goes on.
        """
        names = {record.sha256: record.path for record in self.manifest.records} if self.manifest else {}
        need = sum(record.num_bytes for record in records)
        otherwise = "mend one field at a time with --field"
        require_space(ledger.root, need, "the files to be fetched need", otherwise, "disk")
        taken: list[Record] = []
        reasons: dict[tuple[str, int], str] = {}
        for record in records:
            name = names.get(record.sha256, record.path)
            try:
                fetch(self.remote, name, waiting_path(ledger, record), (record.num_bytes, record.sha256))
            except DamageError:
                reasons[record.field, record.shard] = f"is missing or another at {self.remote.describe(name)}, too"
            else:
                if put_in_place(ledger, record):
                    taken.append(record)
            if on_bytes is not None:
                on_bytes(record.num_bytes)
        return taken, reasons

    def take_page(self, ledger: Ledger, file: IndexFile) -> bool:
        """Put a good page of records in the place of a bad one; whether the copy has it.

        Raises:
            OutOfReachError: the server has gone; the same command goes on.
        """
        try:
            fetch(self.remote, file.path, ledger.root / file.path, (file.page.index_bytes, file.page.sha256))
        except DamageError:
            return False
        return True

    def tokenizer_files(self, manifest: Manifest) -> dict[str, bytes]:
        """The tokenizer's files of the copy, by path within their folder; none where they are not the right ones.

        Raises:
            OutOfReachError: the server has gone; the same command goes on.
        """
        try:
            return fetch_tokenizer(self.remote, manifest)
        except DamageError:
            return {}

    def restore_manifest(self, ledger: Ledger) -> tuple[Manifest, str]:
        """Put the copy's manifest in the place of a damaged one, if the files that stand here are those it lists.

        Records and names of shards tell what stands here, and the damaged manifest itself, where its cache id can still
        be read.

        Returns:
            The manifest, and what is known of its being the right one.

        Raises:
            MismatchError: it is that of another cache.
            DamageError: the copy has none that is intact.
        """
        manifest = self.manifest
        if manifest is None:
            raise DamageError(f"{self.remote.url} has no manifest that is intact; give another copy with --from")
        known = _damaged_text(ledger)
        standing = Counter(record.field for record in manifest.records if _stands(ledger, manifest, record))
        files = Counter(path.parent.name for path in ledger.root.glob("*/*.zarr.zip"))
        agree, differ = standing.total(), files.total() - standing.total()
        same_id = manifest.cache_id.encode() in known
        # Caches of the same rows share fields.
        is_other = any(files[name] and not standing[name] for name in manifest.fields)
        if not same_id and (is_other or agree <= differ):
            raise MismatchError(
                f"{self.remote.url} is another cache: of the shards in {ledger.root}, {agree} are in its manifest and "
                f"{differ} are not; give a copy of this one"
            )
        write_index(ledger.root, manifest)
        write_manifest(ledger.root, manifest)
        if same_id:
            return manifest, "its id is the one that the damaged manifest tells"
        return manifest, f"{counted(agree, 'shard')} agree with it; the id that the cache had cannot be read any more"


def _damaged_text(ledger: Ledger) -> bytes:
    """Content of a damaged manifest; nothing where it is intact and came from another cache, whose id it tells."""
    with suppress(CacheError):
        ledger.intact()
        return b""
    path = ledger.root / MANIFEST
    return path.read_bytes() if path.is_file() and not path.is_symlink() else b""


def _stands(ledger: Ledger, manifest: Manifest, record: Record) -> bool:
    """True if a shard seems to stand here: its commit record, or its file, whose name tells its digest."""
    if not manifest.format.keeps_records:
        return (ledger.root / record.path).is_file()
    try:
        path = ledger.record_path(record.field, record.shard)
        return manifest.format.parse_record(read_document(path), str(path)) == record
    except (OSError, DamageError):
        return False
