"""A cache at a URL, read through a bounded folder of this machine that processes and runs share.

The manifest is read once; from then on its digests decide which bytes are taken, whatever the server's manifest becomes
meanwhile. A shard, or what is wanted of it, is fetched when it is needed, or before that where somebody tells that it
will be, verified, and kept until its room is needed. What is kept outlives the run: a cache that fits is fetched once,
and once it is here it is read even where the server is out of reach.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hskcache.cache import Cache
from hskcache.disk import writing_to
from hskcache.errors import CacheError, DamageError
from hskcache.remote.bounded import BoundedFolder, WantedFile
from hskcache.remote.fetch import fetch_part
from hskcache.remote.home import in_home
from hskcache.remote.kept import bring_tokenizer, kept_manifest
from hskcache.remote.parts import FilePart, parts_of
from hskcache.remote.remote import Remote, open_remote
from hskcache.store.fields import Field
from hskcache.store.ledger import TOKENIZER
from hskcache.store.manifest import Manifest
from hskcache.store.reading import checked, reread_part, reread_shard
from hskcache.store.record import NamedRecord, Record

LOCAL_BYTES = 20_000_000_000
"""Most bytes that a folder holds where nobody says otherwise."""

_FOLDER_VARIABLE = "HSKCACHE_LOCAL"
_PARALLEL = 4
# A file that is not what was fetched is fetched again, once.
_ATTEMPTS = 2
_SINCE = "where it stopped"


def local_folder() -> Path:
    """Folder that fetched shards are kept in where nobody says otherwise.

    Raises:
        SpecError: it would be in a home folder, and there is none.
    """
    given = os.environ.get(_FOLDER_VARIABLE)
    return in_home(given or "~/.cache/hskcache", f"set {_FOLDER_VARIABLE} to a folder for what is fetched")


def open_mirror(url: str, local_dir: Path | None = None, most_bytes: int = LOCAL_BYTES) -> Cache:
    """Open a complete cache at a URL by its manifest; its tokenizer and its shards come when they are asked for.

    Where the server is out of reach, the manifest that it gave last is taken, and a line on stderr says so.
    Whoever forks opens it after the fork, or spawns: in a forked child, what its parent opened raises CacheError.

    Args:
        url: of the cache.
        local_dir: folder of what is fetched, for all caches; None: :func:`local_folder`.
        most_bytes: that it may hold; processes that share the folder should agree on it.

    Raises:
        CacheError: there is no cache at the URL, it cannot be reached, or the folder cannot be written.
        MismatchError: its format is newer than this program.
        DamageError: its manifest is damaged.
    """
    remote = open_remote(url)
    folder = BoundedFolder((local_dir or local_folder()).absolute(), most_bytes)
    with writing_to(folder.root, _SINCE):
        folder.make()
        manifest = kept_manifest(remote, folder.kept)
    return Cache(manifest, Mirror(remote, folder, manifest))


class Mirror:
    """The shelf of a cache at a URL: brings files into a bounded folder when they are read. Threads may share it.

    A copy here that was damaged is fetched again.

    Attributes:
        remote: where they come from.
        folder: where they go.
        manifest: of the cache.
    """

    def __init__(self, remote: Remote, folder: BoundedFolder, manifest: Manifest) -> None:
        self.remote = remote
        self.folder = folder
        self.manifest = manifest
        self._mutex = threading.Lock()
        # Announced and not read yet: by digest, and in order those that nobody has begun to fetch.
        self._soon: dict[str, FilePart] = {}
        self._queue: deque[FilePart] = deque()
        self._num_threads = 0
        self._failure: BaseException | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self.remote.url

    @property
    def tokenizer_path(self) -> Path:
        """Folder of the tokenizer's files, as transformers saves and loads them; fetched if it is not there.

        Raises:
            DamageError: the server has another tokenizer than the rows were made with.
            CacheError: the server does not answer, or the folder cannot be written.
        """
        self.remote.check_process()
        root = self.folder.kept / self.manifest.cache_id
        with writing_to(root, _SINCE):
            bring_tokenizer(self.remote, self.manifest, root)
        return root / TOKENIZER

    def read(self, record: Record, field: Field, names: Collection[str] | None) -> dict[str, NDArray[Any]]:
        """Read a shard, or some arrays of it, fetched first if they are not there: of the file no more than they need.

        Raises:
            DamageError: the server has other bytes than the manifest says, or the disk here is not sound.
            CacheError: as :meth:`holding`.
        """
        parts = self._parts(record, names)
        if names is None or not isinstance(record, NamedRecord) or (len(parts) == 1 and parts[0].is_whole):
            return self._reread(parts[0], lambda path: reread_shard(path, record, field, names))
        arrays: dict[str, NDArray[Any]] = {}
        for part in parts:
            span = part.start, part.stop
            arrays |= self._reread(part, partial(reread_part, span=span, record=record, names=names))
        try:
            return checked(arrays, record, field, names)
        except DamageError as error:
            raise DamageError(f"{self.remote.describe(record.path)} {error}") from None

    def _reread(self, part: FilePart, read: Callable[[Path], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        for _ in range(_ATTEMPTS):
            with self.holding(part) as path:
                try:
                    return read(path)
                except DamageError as error:
                    said = error
                    self.folder.drop(part.sha256)
        raise DamageError(
            f"{path} {said}, though it was just fetched; see whether the disk is sound, or choose another --local-dir"
        )

    def _parts(self, record: Record, names: Collection[str] | None) -> list[FilePart]:
        """The parts of a shard's file that some arrays need, or the whole file where it is here already."""
        return parts_of(record, None if self.folder.holds(record.sha256) else names)

    def require(self, num_bytes: Callable[[], int], what: str) -> None:
        """Raise unless the folder may hold so many bytes of shards at once.

        Raises:
            SpecError: it may not.
        """
        self.folder.require(num_bytes(), what)

    @contextmanager
    def holding(self, part: FilePart) -> Iterator[Path]:
        """A file of a part of a shard's, fetched and verified first if it is not there, which stays until the end.

        Raises:
            OutOfReachError: the server does not answer.
            DamageError: the server has other bytes than the manifest says.
            CacheError: the folder cannot be written, or may not hold as much.
            Exception: whatever else ended a thread that fetched in the background.
        """
        # Before any lock, which a thread that a forked child lacks may hold for ever.
        self.remote.check_process()
        with ExitStack() as stack:
            with self._mutex:
                if self._failure is not None:
                    raise self._failure
                soon = self._soon.keys() - {part.sha256}
            try:
                with writing_to(self.folder.root, _SINCE):
                    file = self.folder.holding(
                        _wanted(part), lambda target: fetch_part(self.remote, part, target), soon
                    )
                    path = stack.enter_context(file)
            finally:
                with self._mutex:
                    self._soon.pop(part.sha256, None)
            self._start()
            yield path

    def ahead(self, records: Sequence[Record], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Fetch what will be read soon of shards, several at a time in the background, as far as there is room.

        Servers and disks that fail are not told of: whoever reads the shard tries again. Whatever else ends a thread is
        raised by the next :meth:`holding`.
        """
        self.remote.check_process()
        parts = [part for record in records for part in self._parts(record, (names or {}).get(record.field))]
        with self._mutex:
            new = {part.sha256: part for part in parts if part.sha256 not in self._soon}
            self._soon |= new
            self._queue.extend(new.values())
        self._start()

    def _start(self) -> None:
        """Start threads for what is queued, if they are too few; they end by themselves, and with the process."""
        with self._mutex:
            for _ in range(min(_PARALLEL, len(self._queue)) - self._num_threads):
                try:
                    threading.Thread(target=self._work, name="hskcache-fetch", daemon=True).start()
                except RuntimeError:
                    # No more threads are to be had; whoever reads a shard fetches it.
                    return
                self._num_threads += 1

    def _work(self) -> None:
        try:
            while (part := self._next()) is not None and self._prepare(part):
                pass
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to who reads)
            with self._mutex:
                self._num_threads -= 1
                self._failure = error

    def _next(self) -> FilePart | None:
        """Next part to fetch; None where nothing is left, and the thread ends."""
        with self._mutex:
            while self._queue:
                part = self._queue.popleft()
                if part.sha256 in self._soon:
                    return part
            self._num_threads -= 1
        return None

    def _prepare(self, part: FilePart) -> bool:
        """True to go on; where there is no room, the thread ends, and the next shard that is read starts another."""
        with self._mutex:
            soon = set(self._soon)
        try:
            if self.folder.prepare(_wanted(part), lambda target: fetch_part(self.remote, part, target), soon):
                return True
        except (CacheError, OSError):
            return True
        with self._mutex:
            self._queue.appendleft(part)
            self._num_threads -= 1
        return False


def _wanted(part: FilePart) -> WantedFile:
    return WantedFile(part.sha256, part.num_bytes)
