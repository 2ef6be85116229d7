"""A command keeps the memory that it frees, unless the user chose otherwise or another library allocates."""

import os
import subprocess
import sys

import pytest

from hskcache.allocator import CHOSEN_BY, keep_freed_memory

# Ten arrays of 48 MB, each freed before the next: glibc by itself maps every one anew, 12,288 pages of 4 kB.
FAULTS = """
import resource, sys
import numpy as np
from hskcache.cli import main
main(sys.argv[1:], standalone_mode=False)
np.ones(6 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(6 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
IS_GLIBC = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names


def faults(*command: str, **chosen: str) -> int:
    """Pages that a process asks the system for, after a command and a first array."""
    plain = {name: value for name, value in os.environ.items() if name not in {*CHOSEN_BY, "GLIBC_TUNABLES"}}
    # Of large pages a process asks for few whatever it does.
    plain["NUMPY_MADVISE_HUGEPAGE"] = "0"
    script = [sys.executable, "-c", FAULTS, *command]
    done = subprocess.run(script, env=plain | chosen, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not IS_GLIBC, reason="only glibc gives freed memory back at once")
def test_what_a_command_frees_stays_with_it() -> None:
    assert 10 * faults("help") < faults("help", GLIBC_TUNABLES="glibc.malloc.tcache_count=7")


@pytest.mark.parametrize(
    "environment",
    [
        *({name: "1"} for name in CHOSEN_BY),
        {"GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.trim_threshold=131072"},
        {"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_a_choice_stays_alone(environment: dict[str, str]) -> None:
    assert not keep_freed_memory(environment)
