"""Locks by which processes and threads keep out of each other's way, and what stands for them where there are none.

A lock is on an open file: it ends with the process that holds it, however that ends, and so leaves nothing that the
next one would have to judge. Some file systems know no locks (Lustre without flock, some NFS and FUSE). There the
threads of one process still keep out of each other's way, by a table in memory, and a line on stderr says that only one
process may work on the folder. Where several processes of one run would, each is refused.

By floors; each uses those below it alone:

- ``writer``: the one command that writes a folder;
- ``file``: locks on whole files; ``ranges``: on some bytes of one;
- ``missing``: file systems without locks.
"""

from hskcache.locks.file import LockFile, is_abandoned, is_locked, locked, remove_unheld
from hskcache.locks.missing import are_missing, work_without
from hskcache.locks.ranges import lock_bytes, unlock_bytes
from hskcache.locks.writer import WRITING, sole_writer

__all__ = [
    "WRITING",
    "LockFile",
    "are_missing",
    "is_abandoned",
    "is_locked",
    "lock_bytes",
    "locked",
    "remove_unheld",
    "sole_writer",
    "unlock_bytes",
    "work_without",
]
