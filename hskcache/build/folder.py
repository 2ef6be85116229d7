"""A folder as the site of a build, which processes on one file system share by its locks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from hskcache.build.batching import BATCHES
from hskcache.disk import require_space, require_writable, spool_folder, writing_to
from hskcache.errors import DamageError
from hskcache.store.agreement import Agreement
from hskcache.store.claims import CLAIMS, Claims, claiming
from hskcache.store.fields import Field
from hskcache.store.files import make_folder, write_atomic
from hskcache.store.growth import stands
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest, Request
from hskcache.store.publishing import is_unswept, manifest_files
from hskcache.store.survey import SPOOL, Complete, survey
from hskcache.store.tokenizer import tokenizer_digest

SINCE = "the last whole shard"
"""Point that a build that was cut off goes on from."""


class FolderSite:
    """A folder where a cache is built; made if missing.

    Attributes:
        root: the folder.
        ledger: its files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = Ledger(root)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def environment(self) -> Mapping[str, str]:
        """As :attr:`Site.environment`."""
        return survey(self.root).environment

    @property
    def spool_folder(self) -> Path:
        """As :attr:`Site.spool_folder`: beside the cache, where that may be written."""
        return spool_folder(self.root)

    def request(self) -> Request | None:
        """As :meth:`Site.request`."""
        return self.ledger.request()

    def require_same(self, request: Request) -> None:
        """As :meth:`Site.require_same`."""
        if self.ledger.request() is not None:
            self.ledger.begin(request)

    def require_room(self) -> None:
        """As :meth:`Site.require_room`."""
        if self.ledger.request() is None:
            require_writable(self.root)

    def require_space(self, num_bytes: int) -> None:
        """As :meth:`Site.require_space`."""
        require_space(self.root, num_bytes, "the cache may need", "keep less with --keep or --encoding")

    def reaching(self) -> AbstractContextManager[None]:
        """As :meth:`Site.reaching`."""
        return writing_to(self.root, SINCE)

    @contextmanager
    def packing(self) -> Iterator[Path]:
        """As :meth:`Site.packing`: within the cache that is being built, as decision 10 tells.

        Raises:
            DamageError: a file stands there.
            CacheError: the cache cannot be written.
        """
        spool = spool_of(self.root)
        with ExitStack() as held:
            with self.reaching():
                held.enter_context(held.enter_context(self.sharing()).alone())
            yield spool

    @contextmanager
    def sharing(self) -> Iterator[Claims]:
        """As :meth:`Site.sharing`.

        Raises:
            CacheError: its file system knows no locks, and several processes were started.
            OSError: it cannot be written.
        """
        make_folder(self.root)
        with claiming(self.root / CLAIMS) as claims:
            yield claims

    def begin(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        tokenizer: Mapping[str, bytes],
    ) -> None:
        """As :meth:`Site.begin`; what others keep to is how rows are batched."""
        self.ledger.begin(request, {name: value for name, value in environment.items() if name == BATCHES})
        folder = self.root / TOKENIZER
        for name, data in tokenizer.items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != data:
                write_atomic(folder / name, data)

    def written(self, tokenizer_sha256: str) -> Manifest | None:
        """As :meth:`Site.written`; the size of every shard is looked at, not its content.

        Fields that were added later are no part of the build.
        """
        out, state = self.root, survey(self.root)
        # A kill right after the manifest leaves something, and finishing again removes it.
        if not isinstance(state, Complete) or state.is_being_built:
            return None
        manifest = state.intact()
        if not all(stands(out / name) for name in manifest_files(manifest)):
            return None
        if not set(manifest.request.fields) <= manifest.fields.keys():
            # A part that was pulled without some of the fields.
            return None
        if is_unswept(out, manifest, manifest.own_fields):
            return None
        if state.has_leftovers(["", TOKENIZER, *manifest.own_fields]):
            return None
        if not all(stands(out / index.path) for index in manifest.index if index.field in manifest.own_fields):
            return None
        records = (record for record in manifest.records if record.field in manifest.own_fields)
        if not all(self.ledger.is_committed(record.field, record.shard) for record in records):
            return None
        whole = (out / TOKENIZER).is_dir() and tokenizer_digest(out / TOKENIZER) == tokenizer_sha256
        return manifest if whole else None

    def is_claimed(self) -> bool:
        """As :meth:`Site.is_claimed`."""
        return survey(self.root).is_claimed()

    def look_again(self) -> None:
        """As :meth:`Site.look_again`: a folder is looked at every time."""

    def finish(
        self,
        request: Request,
        fields: Mapping[str, Field],
        environment: Mapping[str, str],
        agreement: Mapping[str, Agreement],
    ) -> Manifest:
        """As :meth:`Site.finish`; nobody else may do so meanwhile."""
        return self.ledger.finish(request, fields, environment, agreement)

    def intact(self) -> Manifest:
        """As :meth:`Site.intact`."""
        return self.ledger.intact()

    def grow(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """As :meth:`Site.grow`; no other takes its place meanwhile."""
        return self.ledger.grow(change)


def spool_of(out: Path) -> Path:
    """Folder that holds the rows of a corpus while the cache ``out`` is being built."""
    if (out / SPOOL).is_file():
        raise DamageError(f"{out / SPOOL} is a file where a folder is needed; delete it")
    return out / SPOOL
