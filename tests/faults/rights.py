"""A small disk of one's own, and rights taken away: what Linux lets a process do to itself."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

from forked import start
from steps import ended

_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: with them, root writes where nobody may.
_OVERRIDES = 0b110
_CAPABILITY_VERSION = 0x20080522
_FORBIDDEN = 77


class ForbiddenError(Exception):
    """This machine gives no process a disk of its own."""


def on_small_disk(folder: Path, num_bytes: int, work: Callable[[], object]) -> None:
    """Do something in a child to which a folder is a disk of so many bytes, which goes with it.

    Raises:
        ForbiddenError: this machine does not let it.
        AssertionError: the work fails; the child has printed why.
    """

    def mounted() -> None:
        try:
            _mount(folder, num_bytes)
        except OSError:
            os._exit(_FORBIDDEN)
        work()

    code = ended(start(mounted))
    if code == _FORBIDDEN:
        raise ForbiddenError("no user and mount namespaces here, so no small disk")
    assert code == 0, f"ends with exit code {code}"


def fill(folder: Path) -> Path:
    """Write a file that leaves no room on a disk."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    return filler


def give_up_override() -> None:
    """Be bound by the permissions of files as any user is, root too; for the rest of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    _done(libc.capget(header, sets))
    for place in range(3):
        sets[place] &= ~_OVERRIDES
    _done(libc.capset(header, sets))


def forbid_writing(root: Path) -> None:
    """Take the right to write away from every folder below one."""
    for folder in [*(path for path in root.rglob("*") if path.is_dir()), root]:
        folder.chmod(0o555)


def allow_writing(root: Path) -> None:
    """Give it back."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def _mount(folder: Path, num_bytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _done(libc.unshare(_NEW_USER | _NEW_MOUNTS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    options = f"size={num_bytes}".encode()
    _done(libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, options))


def _done(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "not allowed")
