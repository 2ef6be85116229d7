"""Folders on disks, here and behind sftp: no file is seen before it is whole, whoever else writes the same.

Each attempt writes under a name of its own and renames. What a kill leaves is removed by the next who writes the same
file; should somebody be writing it at that moment, who comes to rename finds it in place and is done.
"""

import re
import secrets
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hskcache.disk import sync_file, sync_folder
from hskcache.remote.objects import PIECE_BYTES, Objects
from hskcache.store.files import make_folder

_TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{24}\.tmp")


class Files(Objects):
    """A folder on a disk, where a file grows in sight of all until it is renamed into place."""

    def __init__(self, system: Any) -> None:
        super().__init__(system)
        self._left: dict[str, dict[str, list[str]]] = {}

    def pieces(self, url: str, start: int, stop: int) -> Iterator[bytes]:
        """As :meth:`Objects.pieces`."""
        with self.system.open(url, "rb") as file:
            file.seek(start)
            yield from self._rest(file, start, stop)

    def write(self, url: str, data: bytes) -> None:
        """As :meth:`Objects.write`."""
        folder, _, name = url.rpartition("/")
        left = self._left_in(folder).get(name, [])
        temporary = f"{url}.{secrets.token_hex(12)}.tmp"
        try:
            with self._open_new(temporary) as file:
                self._fill(file, data)
        except TimeoutError:
            raise
        except OSError:
            with suppress(OSError):
                self.remove(temporary)
            raise
        try:
            self.system.mv(temporary, url)
        except FileNotFoundError:
            # Taken for left by a kill.
            if not self.system.exists(url) or self.size(url) != len(data):
                raise ConnectionError("somebody else is writing another file there") from None
        while left:
            with suppress(FileNotFoundError, PermissionError):
                self.remove(f"{folder}/{left.pop()}")

    def remove(self, url: str) -> None:
        """As :meth:`Objects.remove`."""
        # Not rm, which takes a name with [ for a pattern.
        self.system.rm_file(self.system._strip_protocol(url))

    def _left_in(self, folder: str) -> dict[str, list[str]]:
        """What kills have left in a folder, by the name of the file that was to be; the folder is made."""
        if folder not in self._left:
            try:
                paths = self.system.ls(self.system._strip_protocol(folder), detail=False)
            except FileNotFoundError:
                self._make_folder(folder)
                paths = []
            left: dict[str, list[str]] = {}
            for name in (path.rpartition("/")[2] for path in paths):
                if found := _TEMPORARY.fullmatch(name):
                    left.setdefault(found[1], []).append(name)
            self._left[folder] = left
        return self._left[folder]

    def _rest(self, file: Any, start: int, stop: int) -> Iterator[bytes]:
        while piece := file.read(min(PIECE_BYTES, stop - start)):
            yield piece
            start += len(piece)

    @abstractmethod
    def _open_new(self, url: str) -> Any:
        """A file to be written, in a folder that is there."""

    @abstractmethod
    def _fill(self, file: Any, data: bytes) -> None:
        """Write what a file is to hold."""

    @abstractmethod
    def _make_folder(self, url: str) -> None:
        """Make a folder and those above it, where somebody else may be quicker."""


class SftpFiles(Files):
    """A folder behind sftp.

    Args:
        system: a :class:`~hskcache.remote.sftp.KnownHosts`.
    """

    def close(self) -> None:
        """As :meth:`Objects.close`."""
        self.system.client.close()

    def _rest(self, file: Any, start: int, stop: int) -> Iterator[bytes]:
        try:
            if start < (size := min(file.stat().st_size, stop)):
                # Asked for ahead, so that not every 32 kB wait for the way there and back.
                file.prefetch(size, max_concurrent_requests=512)
            yield from super()._rest(file, start, stop)
        finally:
            # The thread that asks would wait for answers that nobody takes any more, and then asks no more.
            file.close()
            getattr(file, "_prefetch_extents", {}).clear()

    def _open_new(self, url: str) -> Any:
        return self.system.open(url, "wb")

    def _fill(self, file: Any, data: bytes) -> None:
        file.set_pipelined(True)
        file.write(data)

    def _make_folder(self, url: str) -> None:
        path = self.system._strip_protocol(url)
        if self._is_folder(path):
            return
        self._make_folder(path.rpartition("/")[0])
        try:
            self.system.ftp.mkdir(path)
        except TimeoutError:
            raise
        except OSError:
            # Somebody else may have been quicker.
            if not self._is_folder(path):
                raise

    def _is_folder(self, path: str) -> bool:
        try:
            return not path.strip("/") or bool(self.system.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False


class LocalFiles(Files):
    """A folder on a disk of this machine, where what was written outlives a power cut."""

    def write(self, url: str, data: bytes) -> None:
        """As :meth:`Objects.write`."""
        super().write(url, data)
        sync_folder(self._local(url).parent)

    def _open_new(self, url: str) -> Any:
        return self._local(url).open("wb")

    def _fill(self, file: Any, data: bytes) -> None:
        file.write(data)
        file.flush()
        sync_file(file)

    def _make_folder(self, url: str) -> None:
        make_folder(self._local(url))

    def _local(self, url: str) -> Path:
        return Path(self.system._strip_protocol(url))
