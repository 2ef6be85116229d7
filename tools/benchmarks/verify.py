"""Time of hskcache verify against sha256sum of the same files."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, random_cache, report
from benchmarks.harness.measure import TO, environment, ratio, take_turns, throughput
from hskcache import units
from hskcache.errors import CacheError
from hskcache.verify import verify

VERIFY, DEEP = "hskcache verify", "hskcache verify --deep"
COMMAND, HASHLIB = "sha256sum", "hashlib.file_digest"


def files_of(cache: Path) -> list[Path]:
    """Every file of the cache."""
    return sorted(path for path in cache.rglob("*") if path.is_file())


def check(cache: Path, deep: bool = False) -> None:
    """Verify, and see that the cache is whole, for a damaged one might be done sooner."""
    if not verify(cache, deep=deep).ok:
        raise CacheError(f"{cache} is damaged; delete it")


def hash_all(files: list[Path]) -> None:
    """The digest of every file, one after the other, as sha256sum takes it."""
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def sides(cache: Path) -> dict[str, Callable[[], Any]]:
    """Sides to time: ours, coreutils' where it is installed, Python's."""
    files = files_of(cache)
    found: dict[str, Callable[[], Any]] = {
        VERIFY: lambda: check(cache),
        DEEP: lambda: check(cache, deep=True),
        HASHLIB: lambda: hash_all(files),
    }
    if (program := shutil.which("sha256sum")) is not None:
        command = [program, *map(str, files)]
        found[COMMAND] = lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return found


@click.command()
@options.count("--megabytes", 400, "Of the cache, about.")
@click.option("--keep-cache", is_flag=True, help="Leave the cache in --work for another run.")
@options.repetitions()
@options.work
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time hskcache verify and SHA-256 alone over the files of one cache, which are in the page cache for all sides.

    The target is against the quicker of sha256sum and Python's hashlib.

    The cache holds hidden states in int8 with bitmasks, attention in int8, logits and inputs, all of them random.
    """
    plan = random_cache.typical(given["megabytes"])
    cache = work / "verify" / f"{plan.num_rows}.hsk"
    num_bytes = random_cache.write(cache, plan)
    timed = sides(cache)
    times = take_turns("verify", timed, given["repetitions"])
    if not given["keep_cache"]:
        shutil.rmtree(cache)
    # Some builds of sha256sum use the processor's instructions for it and others do not; Python's always do.
    reference = min((side for side in timed if side not in {VERIFY, DEEP}), key=times.median)
    rows = [[side, *throughput(times, side, num_bytes), ratio(times, side, reference, TO)] for side in timed]
    title = f"{units.human_bytes(num_bytes)} of shards, {plan.num_rows} rows"
    facts = {"settings": given, "num_bytes": num_bytes, "environment": environment(), "times": times.facts()}
    targets = [report.Target(f"{VERIFY} / {reference}", times.ratio(VERIFY, reference), 1.3)]
    report.conclude(facts, [report.table(title, ("side", "s", "MB/s", f"/ {reference}"), rows)], targets, as_json)
