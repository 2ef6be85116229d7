"""A survey of a cache's folder. Everybody asks here, so that all see the same in it.

A folder is vacant, foreign or a cache's; a cache is complete with its manifest, and until then is one that is being
built, that arrives, that is upgraded from an older version of the format, or that is extracted from another. A complete
cache may grow: what a field or more rows that are on their way mean for it, and what a kill has left that they have no
more use for, is told in :mod:`~hskcache.store.growing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from hskcache.errors import DamageError
from hskcache.store.claims import CLAIMS
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import TEMPORARY_SUFFIX
from hskcache.store.growth import ARRIVING_LOCK, Growth, has_abandoned_locks, reading, stands
from hskcache.store.manifest import Manifest, Request
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.record import Sha256
from hskcache.store.request import BuildDraft
from hskcache.store.standing import lists_more, otherwise, read_page, standing_manifest
from hskcache.strict import Strict

BUILDING = "building.json"
ARRIVING = ".arriving.json"
UPGRADING = ".upgrading.json"
EXTRACTING = ".extracting.json"
ADDING = "adding.json"
"""File in the folder of a field that is being added."""
APPENDING = "appending.json"
SPOOL = "building"
"""Folder of the rows of a corpus, which a build needs until it is done."""
SPOOL_FILES = frozenset(
    f"{stem}{name}"
    for stem in ("", "documents.")
    for name in ("ids.bin", "offsets.bin", "types.bin", "rows.json", "rows.json.tmp")
)


class Upgrade(Strict):
    """Record of the cache that is upgraded into a folder."""

    cache_id: Sha256


class Extraction(Strict):
    """Record of the cache, which may be a view of one, that is extracted into a folder."""

    cache_id: Sha256


@dataclass(frozen=True)
class State:
    """State of a folder: one of the classes below, each of which knows what can be known of it.

    Attributes:
        root: the folder.
    """

    root: Path
    begun_by: ClassVar[str] = ""
    """The command that has not ended here, in words; empty where there is none or it is a build."""

    @property
    def request(self) -> Request | None:
        """Request of the cache that is built here, or was; None where no build says so.

        Raises:
            DamageError: it cannot be read.
        """
        return None

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment of the shards that stand here, as far as a build or a manifest tells it.

        Raises:
            DamageError: it cannot be read.
        """
        return {}

    def is_claimed(self, field: str | None = None) -> bool:
        """True if processes divide a build here, or the last of them died before it could leave.

        Args:
            field: that is added; None: the build of the cache.
        """
        return stands(self.root / (CLAIMS if field is None else f"{CLAIMS}-{field}"))


class Vacant(State):
    """Nothing: no folder, or an empty one."""


class Foreign(State):
    """Something that is no cache's."""


class Building(State):
    """A build that is not finished; what it is asked for is said once the rows of a corpus are packed."""

    @cached_property
    def growth(self) -> Growth[BuildDraft]:
        """The build, which says what was asked for."""
        return build_in(self.root)

    @property
    def request(self) -> Request | None:
        """Request of the build; None before that is said."""
        draft = self.growth.said()
        return draft and draft.request

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment that the build began with."""
        draft = self.growth.said()
        return {} if draft is None else draft.environment


class Arriving(State):
    """A cache of which all has not come yet; which one it is, is said before its first shard."""

    begun_by = "a pull, an unpack or an import"

    @cached_property
    def growth(self) -> Growth[Manifest]:
        """The arrival, which says what manifest the cache will have."""
        return arrival_in(self.root)


class Upgrading(State):
    """A cache that is being made of one of an older version of the format."""

    begun_by = "an upgrade"

    @cached_property
    def growth(self) -> Growth[Upgrade]:
        """The upgrade, which says of which cache."""
        return upgrade_in(self.root)


class Extracting(State):
    """A cache that is being made of another, or of a view of one."""

    begun_by = "an extract"

    @cached_property
    def growth(self) -> Growth[Extraction]:
        """The extraction, which says of which."""
        return extraction_in(self.root)


class Complete(State):
    """A complete cache, which may still grow."""

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, or its copy where that is the one that counts; see :mod:`~hskcache.store.standing`.

        Raises:
            MismatchError: a newer format version.
            DamageError: neither can be read.
        """
        return standing_manifest(self.root)

    def intact(self) -> Manifest:
        """The manifest, once it is known that nobody has changed it by hand.

        Raises:
            MismatchError, DamageError: as :attr:`manifest`, or it was edited.
        """
        if edits := self.manifest.edits():
            raise DamageError(f"{self.root / MANIFEST} was edited: {edits[0]}; {otherwise(self.root)}")
        return self.manifest

    @property
    def request(self) -> Request | None:
        """Request of the cache."""
        return self.manifest.request

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment of the cache."""
        return self.manifest.environment

    @property
    def is_being_built(self) -> bool:
        """True if its build has still to remove what led to it; the same build does so."""
        return build_in(self.root).stands

    @property
    def is_rivalled(self) -> bool:
        """True if the manifest's copy lists more of what stands here, though nothing grows: a person must choose."""
        files = (BUILDING, APPENDING, ARRIVING)
        grows = bool(self.being_added) or any(stands(self.root / name) for name in files)
        return not grows and lists_more(self.root, self.manifest)

    @property
    def being_added(self) -> list[str]:
        """The fields that are being added or whose adding was cut off, sorted; one may be in the manifest by now."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{ADDING}"))

    def has_leftovers(self, folders: list[str]) -> bool:
        """True if a kill has left a file half written in some folders of the cache, "" being its own, or a lock."""
        return has_abandoned_locks(self.root) or any(
            any((self.root / name).glob(f"*{TEMPORARY_SUFFIX}")) for name in folders
        )


def survey(root: Path) -> State:
    """Look what stands in a folder; nothing is read before it is asked for.

    Raises:
        OSError: the folder may not be looked into.
    """
    if (known := _known(root)) is not None:
        return known
    found = list(root.iterdir()) if root.is_dir() else []
    if not found:
        return Vacant(root)
    # A process that has begun something may have been killed before it could say what.
    for state, is_trace in (
        (Building(root), _is_of_build),
        (Arriving(root), _is_of_arrival),
        (Upgrading(root), _is_of_upgrade),
        (Extracting(root), _is_of_extraction),
    ):
        if all(is_trace(path) for path in found):
            return state
    # Between the looks another process may have begun.
    return _known(root) or Foreign(root)


def build_in(root: Path) -> Growth[BuildDraft]:
    """The build that goes on in a folder."""
    otherwise = f"go on with hskcache repair and the teacher, the data and the flags of the build, or delete {root}"
    return Growth(root / BUILDING, reading(BuildDraft), otherwise)


def arrival_in(root: Path) -> Growth[Manifest]:
    """The cache that arrives in a folder, or the fields and rows that one is to have more."""

    def reads(data: bytes, file: str) -> Manifest:
        manifest = parse_manifest(data, file, partial(read_page, root))
        if edits := manifest.edits():
            raise DamageError(f"{file} was edited: {edits[0]}; fetch it again")
        return manifest

    return Growth(root / ARRIVING, reads, lock=root / ARRIVING_LOCK)


def upgrade_in(root: Path) -> Growth[Upgrade]:
    """The upgrade that goes on in a folder."""
    return Growth(root / UPGRADING, reading(Upgrade), lock=root / ARRIVING_LOCK)


def extraction_in(root: Path) -> Growth[Extraction]:
    """The extraction that goes on in a folder."""
    return Growth(root / EXTRACTING, reading(Extraction), lock=root / ARRIVING_LOCK)


def _known(root: Path) -> State | None:
    """State of a folder where a manifest, or the file that says what is growing, tells it; else None."""
    if stands(root / MANIFEST) or stands(root / COPY):
        return Complete(root)
    states = (Building(root), Arriving(root), Upgrading(root), Extracting(root))
    return next((state for state in states if state.growth.stands), None)


def _is_of_build(path: Path) -> bool:
    if path.name == SPOOL and path.is_dir():
        return {inside.name for inside in path.iterdir()} <= SPOOL_FILES
    return path.name == CLAIMS or build_in(path.parent).is_torn(path)


def _is_of_arrival(path: Path) -> bool:
    return path.name == ARRIVING_LOCK or arrival_in(path.parent).is_torn(path)


def _is_of_upgrade(path: Path) -> bool:
    return path.name == ARRIVING_LOCK or upgrade_in(path.parent).is_torn(path)


def _is_of_extraction(path: Path) -> bool:
    return path.name == ARRIVING_LOCK or extraction_in(path.parent).is_torn(path)
