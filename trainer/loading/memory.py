"""Host memory that a process may still fill: of the machine, and of the container or job that it runs in.

Linux limits the memory of groups of processes (cgroups), each within another; the tightest limit on the way up holds.
A container may see the whole machine's memory and yet be killed at its own limit. Elsewhere the machine alone counts.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hskcache import processes


class _Names(NamedTuple):
    """Names in a version of cgroups: of a group's limits, of what it uses, and of the file pages it can do without."""

    limits: tuple[str, ...]
    usage: str
    pages: str


_VERSION_1 = _Names(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
# Beyond "high" the processes of a group are not killed but slowed down until they stand still.
_VERSION_2 = _Names(("memory.max", "memory.high"), "memory.current", "inactive_file")


def free_share(root: Path = Path("/")) -> int:
    """Bytes of :func:`free_bytes` for this process, where those of one machine that train together share alike."""
    return free_bytes(root) // processes.local_count()


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that processes on this machine, in this container, may fill without swapping or being killed.

    Args:
        root: where ``proc`` and the hierarchies of cgroups are found.
    """
    return max(0, min([_of_machine(root), *_of_groups(root)]))


def _of_machine(root: Path) -> int:
    # Of file pages, which SC_AVPHYS_PAGES leaves out, most are free for the asking; macOS knows neither.
    for line in _lines(root / "proc" / "meminfo"):
        name, _, size = line.partition(":")
        if name == "MemAvailable":
            return int(size.split()[0]) << 10
    if not hasattr(os, "sysconf"):  # Windows
        import psutil

        return int(psutil.virtual_memory().available)
    known = os.sysconf_names
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in known else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """Memory that is left to every group that this process is in, its own and those around it."""
    for line in _lines(root / "proc" / "self" / "cgroup"):
        # 0::/path in version 2, 4:memory:/path in version 1.
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _on_the_way(root, path, "cgroup2", _VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _on_the_way(root, path, "cgroup", _VERSION_1)


def _on_the_way(root: Path, path: str, kind: str, names: _Names) -> Iterator[int]:
    for place, top in _mounts(root, kind):
        # In a container the mount may begin at its own group, of which it may see another name.
        inside = PurePosixPath(path)
        within = inside.relative_to(top) if inside.is_relative_to(top) else PurePosixPath()
        folder = root / place.lstrip("/")
        for group in (folder / within, *(folder / parent for parent in within.parents)):
            yield from _left(group, names)


def _mounts(root: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Mount points of hierarchies of a kind that limit memory, and the group that each begins at."""
    for line in _lines(root / "proc" / "self" / "mountinfo"):
        before, _, after = line.partition(" - ")
        filesystem, _, options = after.split(" ", 2)
        if filesystem == kind and (kind == "cgroup2" or "memory" in options.split(",")):
            _, _, _, top, place, *_ = before.split(" ")
            yield place, top


def _left(group: Path, names: _Names) -> Iterator[int]:
    limits = [int(text) for name in names.limits for text in _lines(group / name) if text.isdecimal()]
    usage = [int(text) for text in _lines(group / names.usage) if text.isdecimal()]
    if not limits or not usage:
        return
    pages = [line.split(" ") for line in _lines(group / "memory.stat")]
    reclaimable = sum(int(size) for name, size in pages if name == names.pages)
    yield min(limits) - max(0, usage[0] - reclaimable)


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel; none where it is missing or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
