"""Something that grows in a cache's folder: a build, a cache that arrives or is upgraded, a field, more rows.

Whatever it is, it goes one way. One file says what is growing and why, and is written first. Shards are committed one
by one. A manifest that lists them ends it, put in place at once; what led there is swept, and that file is removed
last. So a kill at any moment leaves a folder that says what is unfinished in it, and the same command goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hskcache.errors import DamageError
from hskcache.locks import is_abandoned, is_locked, remove_unheld
from hskcache.store.files import TEMPORARY_SUFFIX, read_document, remove_matching, write_atomic
from hskcache.store.record import parse
from hskcache.strict import Strict

LOCK = ".lock"
"""Held by whoever replaces the manifest of a complete cache; those of growths begin so. Readers and hubs leave them."""
ARRIVING_LOCK = ".arriving.lock"
"""Held by whoever brings a cache into a folder, or upgrades or extracts one into it."""

Said = TypeVar("Said")
Model = TypeVar("Model", bound=Strict)


@dataclass(frozen=True)
class Growth(Generic[Said]):
    """Something that grows, by the one file that says what it is.

    Attributes:
        path: the file.
        reads: takes what it says out of its content and its name, which is for messages; raises a DamageError.
        otherwise: what to do where it cannot be read, to be read after what is wrong with it.
        lock: file whose lock is held while a process is at it; None where that cannot be asked.
    """

    path: Path
    reads: Callable[[bytes, str], Said]
    otherwise: str | None = None
    lock: Path | None = None

    @property
    def stands(self) -> bool:
        """True if the file is there: what it tells of was begun and is not ended."""
        return stands(self.path)

    @property
    def is_running(self) -> bool:
        """True if a process is at it now."""
        return self.lock is not None and is_locked(self.lock)

    def said(self) -> Said | None:
        """Read what is growing; None where nothing was begun, or it is ended.

        Raises:
            DamageError: the file cannot be read; says what to do.
        """
        try:
            return self.reads(read_document(self.path), str(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamageError as error:
            if self.otherwise is None:
                raise
            raise DamageError(f"{error}; {self.otherwise}") from None

    def readable(self) -> Said | None:
        """Read what is growing, if that can be read."""
        try:
            return self.said()
        except DamageError:
            return None

    def begin(self, content: bytes) -> None:
        """Say what is growing."""
        write_atomic(self.path, content)

    def end(self) -> None:
        """Say nothing any more, once a manifest lists what has grown, or nobody is to go on with it."""
        remove_matching(self.path.parent, f"{self.path.name}.*{TEMPORARY_SUFFIX}")
        self.path.unlink(missing_ok=True)

    def is_torn(self, path: Path) -> bool:
        """True if a file is this one, half written: a kill came before anything was begun."""
        return path.name.startswith(f"{self.path.name}.") and path.name.endswith(TEMPORARY_SUFFIX)


def reading(model: type[Model]) -> Callable[[bytes, str], Model]:
    """Make the reader of a model's files that :class:`Growth` takes."""
    return lambda data, file: parse(model, data, file)


def written(model: Strict) -> bytes:
    """Content of a file that says what is growing."""
    return model.model_dump_json(indent=1).encode() + b"\n"


def stands(path: Path) -> bool:
    """True if something has this name, be it a link that leads nowhere.

    Raises:
        OSError: the folder may not be looked into.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def clear_locks(root: Path) -> None:
    """Remove the lock files in a cache's folder that nobody holds: a kill has left them."""
    remove_unheld(_locks_in(root))


def has_abandoned_locks(root: Path) -> bool:
    """True if a kill has left lock files in a cache's folder."""
    return any(map(is_abandoned, _locks_in(root)))


def _locks_in(root: Path) -> list[Path]:
    return [*root.glob(f"{LOCK}*"), root / ARRIVING_LOCK]
