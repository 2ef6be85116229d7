"""The file that HDF5 writes to, which never fails: HDF5 may crash, and the process with it, when it cannot write."""

import io
from pathlib import Path
from typing import Any

from hskcache.disk import sync_file


class Sink(io.RawIOBase):
    """A new file, for h5py to write to as to any of Python's.

    The first error of the disk is kept, and whatever follows is thrown away; :meth:`check` and :meth:`finish` raise it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("xb+", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise unless all was written until now.

        Raises:
            OSError: it was not.
        """
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Bring the file to the disk.

        Raises:
            OSError: it cannot be brought there, or something could not be written before.
        """
        self.check()
        sync_file(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def write(self, data: Any) -> int:
        """Write all of some bytes at the place."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view) and self._error is None:
                done += self._file.write(view[done:])
        except OSError as error:
            self._error = error
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read bytes at the place; what is not there is zeros."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (count := self._file.readinto(view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or grow the file."""
        try:
            return self._file.truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0
