"""Folders on disks, here and behind sftp: no file is seen before it is whole, whoever else writes the same.

A file is written under another name, which follows from its content, and renamed. What a kill leaves there is found
and removed by the next attempt; as it may also be a file that somebody writes at that moment, nobody else writes into
it: each process has a second name, and who comes to rename and finds the same content in place is done.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hskcache.share.objects import PIECE_BYTES, Objects
from hskcache.store.files import make_folder, sync_folder

# Of this process, so that its next attempt finds what a lost connection has left.
_OWN = secrets.token_hex(4)


class Files(Objects):
    """A folder on a disk, here or behind sftp, where a file grows in sight of all until it is renamed into place."""

    def pieces(self, url: str, start: int, stop: int) -> Iterator[bytes]:
        """As :meth:`Objects.pieces`."""
        with self.system.open(url, "rb") as file:
            file.seek(start)
            if hasattr(file, "prefetch") and start < (size := min(file.stat().st_size, stop)):
                # sftp: asked for ahead, so that not every 32 kB wait for the way there and back.
                file.prefetch(size, max_concurrent_requests=512)
            while piece := file.read(min(PIECE_BYTES, stop - start)):
                yield piece
                start += len(piece)

    def write(self, url: str, data: bytes) -> None:
        """As :meth:`Objects.write`; what a kill leaves has a name that the next attempt finds again."""
        stem = f"{url}.{hashlib.sha256(data).hexdigest()[:16]}"
        temporary, own = f"{stem}.tmp", f"{stem}{_OWN}.tmp"
        try:
            file = self._create(temporary)
        except FileNotFoundError:
            self._make_folder(url.rpartition("/")[0])
            file = self._create(temporary)
        if file is not None:
            self._fill(file, temporary, data)
            self._put(temporary, url, data)
            return
        # Of a kill, or of somebody who sends the same just now and finds this file in its place then.
        self._fill(self._open(own, "wb"), own, data)
        self._put(own, url, data)
        with suppress(FileNotFoundError):
            self.system.rm(temporary)

    def remove(self, url: str) -> None:
        """As :meth:`Objects.remove`."""
        self.system.rm(url)

    def _create(self, url: str) -> Any:
        """A file that was not there, open for writing; None where it is there."""
        try:
            return self._open(url, "wxb")
        except FileExistsError:
            return None
        except FileNotFoundError:
            raise
        except OSError:
            # sftp has no word for it.
            if not self.system.exists(url):
                raise
            return None

    def _open(self, url: str, mode: str) -> Any:
        return self.system.open(url, mode)

    def _fill(self, file: Any, url: str, data: bytes) -> None:
        try:
            with file:
                self._pour(file, data)
        except OSError:
            with suppress(OSError):
                self.system.rm(url)
            raise

    def _pour(self, file: Any, data: bytes) -> None:
        file.set_pipelined(True)
        file.write(data)

    def _put(self, temporary: str, url: str, data: bytes) -> None:
        try:
            self.system.mv(temporary, url)
        except FileNotFoundError:
            if self.size(url) != len(data):
                raise

    def _make_folder(self, url: str) -> None:
        path = self.system._strip_protocol(url)
        for others in reversed(range(path.count("/") + 1)):
            try:
                self.system.makedirs(path, exist_ok=True)
                return
            except OSError:
                # Somebody else may have been quicker with each folder on the way.
                if not others:
                    raise


class LocalFiles(Files):
    """A folder on a disk of this machine, where what was written outlives a power cut."""

    def write(self, url: str, data: bytes) -> None:
        """As :meth:`Objects.write`."""
        super().write(url, data)
        sync_folder(self._local(url).parent)

    def _open(self, url: str, mode: str) -> Any:
        return self._local(url).open(mode.replace("wx", "x"))

    def _pour(self, file: Any, data: bytes) -> None:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

    def _make_folder(self, url: str) -> None:
        make_folder(self._local(url))

    def _local(self, url: str) -> Path:
        return Path(self.system._strip_protocol(url))
