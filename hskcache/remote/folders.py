"""Folders on disks, here and behind sftp: no file is seen before it is whole, whoever else writes the same.

Each attempt writes under a name of its own and renames. What a kill leaves is removed by the next who writes the same
file; should somebody be writing it at that moment, who comes to rename finds it in place and is done.
"""

import os
import re
import secrets
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from hskcache.disk import sync_file, sync_folder
from hskcache.remote.objects import PIECE_BYTES, Objects
from hskcache.store.files import make_folder

_TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{24}\.tmp")


class Files(Objects):
    """A folder on a disk, where a file grows in sight of all until it is renamed into place.

    Args:
        system: has what :mod:`os` has for files: ``stat``, ``listdir``, ``mkdir`` and ``remove``.
        root: path of the folder.
    """

    _read_bytes = PIECE_BYTES

    def __init__(self, system: Any, root: str) -> None:
        super().__init__(system, root)
        self._left: dict[str, dict[str, list[str]]] = {}

    def pieces(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """As :meth:`Objects.pieces`."""
        path = self._path(name)
        with self._open(path, "rb") as file:
            file.seek(start)
            end = min(stop, self.system.stat(path).st_size)
            announced = start
            while start < end:
                if start == announced:
                    announced = min(start + PIECE_BYTES, end)
                    self._announce(file, announced)
                piece = file.read(min(self._read_bytes, announced - start))
                if not piece:
                    # To paramiko a lost connection may look like the end of a file.
                    raise ConnectionError("the connection ended")
                yield piece
                start += len(piece)

    def size(self, name: str) -> int:
        """As :meth:`Objects.size`."""
        status = self.system.stat(self._path(name))
        if not S_ISREG(status.st_mode):
            raise FileNotFoundError(name)
        return int(status.st_size)

    def write(self, name: str, data: bytes) -> None:
        """As :meth:`Objects.write`."""
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        left = self._left_in(folder).get(last, [])
        temporary = f"{path}.{secrets.token_hex(12)}.tmp"
        try:
            with self._open(temporary, "wb") as file:
                self._fill(file, data)
        except TimeoutError:
            raise
        except OSError:
            with suppress(OSError):
                self.system.remove(temporary)
            raise
        try:
            self._rename(temporary, path)
        except FileNotFoundError:
            # Taken for left by a kill.
            with suppress(FileNotFoundError):
                if self.size(name) == len(data):
                    return
            raise ConnectionError("somebody else is writing another file there") from None
        while left:
            with suppress(FileNotFoundError, PermissionError):
                self.system.remove(f"{folder}/{left.pop()}")

    def remove(self, name: str) -> None:
        """As :meth:`Objects.remove`."""
        self.system.remove(self._path(name))

    def names(self, folder: str) -> list[str]:
        """As :meth:`Objects.names`; links are files, whatever they lead to, and folders that may not be read empty."""
        files, folders = [], [""]
        root = self._path(folder).rstrip("/")
        while folders:
            below = folders.pop()
            with suppress(FileNotFoundError, PermissionError):
                for name, is_folder in self._entries(f"{root}/{below}"):
                    if is_folder:
                        folders.append(f"{below}{name}/")
                    else:
                        files.append(below + name)
        return files

    def _left_in(self, folder: str) -> dict[str, list[str]]:
        """Files that kills have left in a folder, by the name of the file that was to be; the folder is made."""
        if folder not in self._left:
            try:
                names = self.system.listdir(folder)
            except FileNotFoundError:
                self._make_folder(folder)
                names = []
            left: dict[str, list[str]] = {}
            for name in names:
                if match := _TEMPORARY.fullmatch(name):
                    left.setdefault(match[1], []).append(name)
            self._left[folder] = left
        return self._left[folder]

    @abstractmethod
    def _open(self, path: str, mode: str) -> Any:
        """An open file."""

    def _announce(self, file: Any, stop: int) -> None:
        """Tell that a file will be read from where it stands up to ``stop``."""

    @abstractmethod
    def _fill(self, file: Any, data: bytes) -> None:
        """Write what a file is to hold."""

    @abstractmethod
    def _rename(self, path: str, target: str) -> None:
        """Give a file its name, in place of what may have it."""

    @abstractmethod
    def _entries(self, path: str) -> list[tuple[str, bool]]:
        """The names in a folder, each with whether it is of a folder."""

    @abstractmethod
    def _make_folder(self, path: str) -> None:
        """Make a folder and those above it, where somebody else may be quicker."""


class SftpFiles(Files):
    """A folder behind sftp.

    Args:
        client: the connection, a :class:`paramiko.SSHClient`.
        system: the :class:`paramiko.SFTPClient` over it.
        root: path of the folder.
    """

    # As much as one answer brings: to join several, paramiko copies all that it has with each.
    _read_bytes = 32768

    def __init__(self, client: Any, system: Any, root: str) -> None:
        super().__init__(system, root)
        self._client = client

    def close(self) -> None:
        """As :meth:`Objects.close`."""
        self._client.close()

    def _open(self, path: str, mode: str) -> Any:
        return self.system.open(path, mode)

    def _announce(self, file: Any, stop: int) -> None:
        # A piece at a time: of a larger file, all questions at once would fill the server's memory.
        file.prefetch(stop)

    def _fill(self, file: Any, data: bytes) -> None:
        file.set_pipelined(True)
        file.write(data)

    def _rename(self, path: str, target: str) -> None:
        self.system.posix_rename(path, target)

    def _entries(self, path: str) -> list[tuple[str, bool]]:
        return [(entry.filename, S_ISDIR(entry.st_mode)) for entry in self.system.listdir_attr(path)]

    def _make_folder(self, path: str) -> None:
        if self._is_folder(path):
            return
        self._make_folder(path.rpartition("/")[0])
        try:
            self.system.mkdir(path)
        except TimeoutError:
            raise
        except OSError:
            # Somebody else may have been quicker.
            if not self._is_folder(path):
                raise

    def _is_folder(self, path: str) -> bool:
        try:
            return not path.strip("/") or S_ISDIR(self.system.stat(path).st_mode)
        except FileNotFoundError:
            return False


class LocalFiles(Files):
    """A folder on a disk of this machine, where what was written outlives a power cut.

    Args:
        root: path of the folder.
    """

    def __init__(self, root: str) -> None:
        super().__init__(os, root)

    def write(self, name: str, data: bytes) -> None:
        """As :meth:`Objects.write`."""
        super().write(name, data)
        sync_folder(Path(self._path(name)).parent)

    def _open(self, path: str, mode: str) -> Any:
        return Path(path).open(mode)

    def _fill(self, file: Any, data: bytes) -> None:
        file.write(data)
        file.flush()
        sync_file(file)

    def _rename(self, path: str, target: str) -> None:
        Path(path).rename(target)

    def _entries(self, path: str) -> list[tuple[str, bool]]:
        with os.scandir(path) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]

    def _make_folder(self, path: str) -> None:
        make_folder(Path(path))
