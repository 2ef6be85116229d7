"""A cache from a URL into a folder: what is missing or damaged is fetched, each file verified before it appears.

The manifest comes first and is written last. It arrives as from a file (see :mod:`hskcache.move.arrival`), but by
several threads, in part perhaps, and a folder that holds a part of the same cache grows. Nothing needs a listing of the
server. A README.md there is a card of what stands there, and stays there.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hskcache import disk
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.locks import locked
from hskcache.move.arrival import Arrival, alone_in
from hskcache.move.parallel import Watch, in_parallel
from hskcache.move.selected import NamedManifest, Selected, Subset, select
from hskcache.remote.fetch import fetch, fetch_tokenizer, partial_path, read_manifest
from hskcache.remote.remote import Remote
from hskcache.remote.systems import HTTP
from hskcache.store.beside import is_file_of
from hskcache.store.files import MAX_DOCUMENT_BYTES, read_file
from hskcache.store.growth import LOCK
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import is_page, write_manifest
from hskcache.store.record import Record, parse
from hskcache.store.survey import Arriving, Building, Complete, State, Vacant, arrival_in, survey


@dataclass(frozen=True)
class Pulled:
    """Outcome of a pull.

    Attributes:
        selected: what the folder holds now.
        num_fetched: shards that were fetched.
        num_there: shards that stood there whole.
        bytes_fetched: of the shards that were fetched.
    """

    selected: Selected
    num_fetched: int
    num_there: int
    bytes_fetched: int


def default_folder(url: str) -> Path:
    """Folder for a cache where nobody names one: the last part of its URL.

    Raises:
        CacheError: the URL has none.
    """
    parts = urlsplit(url)
    name = parts.path.rstrip("/").rpartition("/")[2] or parts.netloc.rpartition("@")[2]
    if parts.scheme in HTTP:
        # Elsewhere, fsspec takes a % for itself.
        name = unquote(name)
    if name in {"", ".", ".."} or "\\" in name or "/" in name or not name.isprintable():
        raise CacheError("the URL has no last part that could name a folder; give the folder after the URL")
    return Path(name)


def pull(remote: Remote, root: Path, subset: Subset, jobs: int = 8, watch: Watch | None = None) -> Pulled:
    """Bring a cache, or some fields and rows of it, into a folder that is new, empty, or has a part of it.

    Args:
        remote: where it is.
        root: the folder; made if missing.
        subset: what to bring.
        jobs: files at a time.
        watch: is told of it.

    Raises:
        MismatchError: the folder holds another cache or something else, or there are no such fields or rows.
        DamageError: the server has other bytes than its manifest says; what was right has come.
        CacheError: there is no cache, the server is out of reach, another process pulls, or the disk is full.
    """
    watch = watch or Watch()
    source = NamedManifest(remote.url, read_manifest(remote, root))
    with disk.writing_to(root, "the shards that are there"), alone_in(root):
        standing, before = _standing(root, source.manifest), _identity(root)
        selected = select(source, None if standing is None else NamedManifest(str(root), standing), subset)
        watch.on_select(selected)
        return _Pull(remote, root, selected, watch).run(jobs, before)


class _Pull:
    def __init__(self, remote: Remote, root: Path, selected: Selected, watch: Watch) -> None:
        self.remote = remote
        self.ledger = Ledger(root)
        self.arrival = Arrival(root, selected.manifest)
        self.selected = selected
        self.watch = watch
        self.tell = watch.counted()

    def run(self, jobs: int, before: str | None) -> Pulled:
        """Fetch what is missing; ``before`` is the id of the cache that the folder holds."""
        root, manifest = self.ledger.root, self.selected.manifest
        self.watch.on_total(manifest.num_bytes)
        left = in_parallel(self._left, self.selected.records, jobs, self.remote.give_up)
        need = sum(max(num_bytes or 0, 0) for num_bytes in left)
        disk.require_space(root, need, f"what {root} lacks needs", "pull fewer --fields or --rows", "folder")
        self.arrival.begin()
        if not self.arrival.has_tokenizer():
            self.arrival.put_tokenizer(fetch_tokenizer(self.remote, manifest))
        missing = (pair for pair, some in zip(self.selected.records, left, strict=True) if some is not None)
        fetched = in_parallel(self._bring, missing, jobs, self.remote.give_up)
        self._finish(before)
        return Pulled(self.selected, len(fetched), len(left) - len(fetched), sum(fetched))

    def _left(self, pair: tuple[Record, Record]) -> int | None:
        """Bytes to fetch of a shard; None where it stands here as it should; then its record does so afterwards."""
        record = pair[1]
        path = self.ledger.shard_path(record)
        if not is_file_of(path, record):
            return record.num_bytes - self._num_partial(record)
        self.tell(record.num_bytes)
        if self.selected.manifest.format.keeps_records and not self.arrival.may_have(record):
            self.arrival.put_record(record)
        return None

    def _num_partial(self, record: Record) -> int:
        try:
            return partial_path(self.ledger.shard_path(record), record.sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def _bring(self, pair: tuple[Record, Record]) -> int:
        """Fetch a shard; returns its bytes."""
        there, here = pair
        self.arrival.disown(here)
        name = there.path
        target = self.ledger.shard_path(here)
        fetch(self.remote, name, target, (here.num_bytes, here.sha256), self.tell)
        self.arrival.put_record(here)
        return here.num_bytes

    def _finish(self, before: str | None) -> None:
        """Write the manifest, which completes the cache, unless another process has changed it meanwhile."""
        root, manifest = self.ledger.root, self.selected.manifest
        with locked(root / LOCK, remove=True):
            if _identity(root) not in {before, manifest.cache_id}:
                raise MismatchError(f"{root} was changed by another process; run the same command again")
            write_manifest(root, manifest)
        self.arrival.clear(manifest)


def _standing(root: Path, source: Manifest) -> Manifest | None:
    """Manifest of what the folder holds, or of what a pull that was cut off has begun; None: nothing, or damaged.

    Raises:
        MismatchError: nothing tells that what stands there is of the cache to pull.
    """
    state, begun = survey(root), arrival_in(root).readable()
    # Nothing has come yet that the pages of its records would tell of, where one of those is missing.
    manifests = [
        manifest
        for manifest in (begun, _intact(state))
        if manifest is not None and all(is_page(root, file) for file in manifest.index)
    ]
    if manifests:
        # A field that was added to the cache after a pull was cut off is not in what that pull has begun.
        return manifests[-1] if manifests[-1].fields.keys() - manifests[0].fields.keys() else manifests[0]
    if isinstance(state, Building):
        raise MismatchError(f"{root} is a build that was cut off; choose another folder, or delete this one")
    is_free = isinstance(state, Vacant) or (isinstance(state, Arriving) and not state.growth.stands)
    if begun is None and not is_free and not _holds_part(root, source):
        raise MismatchError(f"{root} holds files that are not of this cache; choose another folder or empty it")
    return None


def _holds_part(root: Path, source: Manifest) -> bool:
    """True if there are shards in the folder, and all are of the source, of any number there: by record or by name."""
    if not source.format.keeps_records:
        standing = {path.relative_to(root).as_posix() for path in root.glob("*/*.zarr.zip")}
        return bool(standing) and standing <= {record.path for record in source.records}
    digests = {record.sha256 for record in source.records}
    found = set()
    for path in root.glob("*/*.json"):
        with suppress(OSError, DamageError):
            found.add(parse(Record, read_file(path, MAX_DOCUMENT_BYTES), str(path)).sha256)
    return bool(found) and found <= digests


def _intact(state: State) -> Manifest | None:
    """The manifest of a complete cache; None where it is damaged, or there is none."""
    with suppress(DamageError):
        return state.intact() if isinstance(state, Complete) else None
    return None


def _identity(root: Path) -> str | None:
    """The id of the complete cache in a folder; None where its manifest is damaged, or there is none."""
    manifest = _intact(survey(root))
    return None if manifest is None else manifest.cache_id
