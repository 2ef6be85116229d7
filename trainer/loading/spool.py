"""Decompressed shards in a file without a name, which the next epochs read in place of the cache.

While memory is free the file is in memory, and the system takes it back when others ask for it.
"""

import os
import shutil
import tempfile

import numpy as np
import torch

from hskcache import processes
from trainer.loading.block import Block
from trainer.loading.records import parts_of

# Share of the free space of the temporary folder that the processes of a machine may fill together.
DISK_SHARE = 0.1


class RecordSpool:
    """Keeps blocks of the host in a file, until one finds no room or the disk is full.

    Attributes:
        is_full: whether that has happened.
    """

    def __init__(self, num_bytes: int) -> None:
        """Make the file, which is gone with the object: ``num_bytes`` at most, and on the disk what blocks fill."""
        self.is_full = False
        self._file = tempfile.TemporaryFile(prefix="hskcache-")  # noqa: SIM115, it lives as long as the blocks
        self._end, self._num_bytes = 0, num_bytes
        os.truncate(self._file.fileno(), max(1, num_bytes))
        self._bytes = np.memmap(self._file, np.uint8, "r+")

    def keep(self, block: Block) -> Block | None:
        """The block as one whose memory is the file's; None where there is no room."""
        data, start = block.buffer.numpy().data, self._end
        self.is_full = self.is_full or start + len(data) > self._num_bytes
        if self.is_full:
            return None
        try:
            # Not through the mapping: where the disk is full that would end the process.
            while self._end - start < len(data):
                self._end += os.pwrite(self._file.fileno(), data[self._end - start :], self._end)
        except OSError:
            self.is_full = True
            return None
        buffer = torch.from_numpy(self._bytes[start : self._end])
        shapes = {name: (tuple(part.shape), part.dtype) for name, part in block.parts.items()}
        return Block(block.rows, block.offsets, block.layout, parts_of(buffer, shapes), buffer)


def spool_of(num_bytes: int) -> RecordSpool | None:
    """A spool with room for so many bytes, or as many as a share of the disk allows; None where none can be had."""
    try:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        room = min(num_bytes, int(DISK_SHARE * free) // processes.local_count())
        return RecordSpool(room) if room else None
    except OSError:
        return None
