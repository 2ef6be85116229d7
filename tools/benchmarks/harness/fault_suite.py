"""The way to the fault suites of the tests, which run a sample of what the benchmarks run in full."""

import sys
from pathlib import Path

from benchmarks.harness import report

# The suites import each other and the tests' own modules by name.
sys.path[:0] = [str(report.ROOT / "tests" / folder) for folder in ("faults", "hskcache/move", ".")]


def emptied(folder: Path) -> Path:
    """A folder of one's own below ``--work``, without what an earlier run has left there."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
