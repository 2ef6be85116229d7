"""Processes that torchrun or accelerate start together with one command: which of them this is.

They find that out from their environment; a process that was started by itself is the first of one.
"""

import os


def count() -> int:
    """Number of processes."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Number of this process, counted from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def is_first() -> bool:
    """True if this is the process that speaks, and writes where one does for all."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process among those on this machine, counted from 0."""
    return _number("LOCAL_RANK", 0) if count() > 1 else 0


def local_count() -> int:
    """Number of processes on this machine; all, where whoever started them does not say."""
    return max(1, min(_number("LOCAL_WORLD_SIZE", count()), count()))


def _number(name: str, otherwise: int) -> int:
    # Others than those who start processes use such names, too, and what they mean is not ours.
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
