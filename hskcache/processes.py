"""Processes that torchrun or accelerate start together with one command: which of them this is.

They find that out from their environment; a process that was started by itself is the first of one.
"""

import os


def count() -> int:
    """How many there are."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, counted from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the one that speaks, and writes where one does for all."""
    return rank() == 0


def local_rank() -> int:
    """Which of those on this machine it is, counted from 0."""
    return _number("LOCAL_RANK", 0) if count() > 1 else 0


def local_count() -> int:
    """How many of them are on this machine; all, where whoever started them does not say."""
    return max(1, min(_number("LOCAL_WORLD_SIZE", count()), count()))


def _number(name: str, otherwise: int) -> int:
    # Others than those who start processes use such names, too, and what they mean is not ours.
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
