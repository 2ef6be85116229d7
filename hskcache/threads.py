"""Threads of torch: how they wait for each other at the end of what they share, see decision 30."""

import os
import sys
from collections.abc import Mapping, MutableMapping

CHOSEN_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that say how threads of OpenMP wait."""
BOUNDED: Mapping[str, str] = {"GOMP_SPINCOUNT": "400", "KMP_BLOCKTIME": "0"}
"""Looks of GNU's runtime, some 10 microseconds, and milliseconds of Intel's and LLVM's, before a thread sleeps."""


def bound_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the threads of this process and of those that it starts sleep soon where they have to wait for each other.

    Nothing is changed where the user has chosen, or where torch is loaded, which has read its environment by then.

    Args:
        environment: of this process, or of one to start.
    """
    is_late = environment is os.environ and "torch" in sys.modules
    if not is_late and not any(name in environment for name in CHOSEN_BY):
        environment.update(BOUNDED)
