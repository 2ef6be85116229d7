"""Rows a CPU second of the loader, of the same loader in another commit, and of other libraries over the same rows.

Every run is a process of its own, which goes through some epochs of shuffled batches; the sides take turns.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.harness import options, random_cache, report
from benchmarks.harness.folders import ROOT, emptied
from benchmarks.harness.measure import environment, ratio
from benchmarks.startup import checkout
from hskcache import console
from hskcache.cache import Cache, open_cache
from trainer.timing import Times

SCRIPT = Path(__file__).parent / "harness" / "read_side.py"
PEERS = ("litdata==0.2.76", "mosaicml-streaming==0.13.0")
OURS, OTHERS = ("host", "stream"), ("memmap", "memmap-float32", "litdata", "mds", "h5py", "datasets")
PLANS = {"typical": random_cache.hidden_alone, "full": random_cache.full}
FASTER, PEER, UNCHECKED = 8.0, {"typical": 3.0, "full": 2.0}, 0.8


def python_of_peers(folder: Path) -> str:
    """A Python with the libraries that the project does without; torch and whatever else is there it shares."""
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.is_file() or done.read_text(encoding="utf-8") != str(PEERS):
        console.say(f"installing {' and '.join(PEERS)} in {folder}")
        venv.create(folder, clear=True, with_pip=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        # The torch that is there, or torchvision, which both ask for, brings another.
        torch = f"torch=={version('torch').partition('+')[0]}"
        subprocess.run((str(python), "-m", "pip", "install", "--quiet", torch, *PEERS), check=True)
        done.write_text(str(PEERS), encoding="utf-8")
    return str(python)


def rows_of(cache: Cache, shard: int) -> dict[str, Any]:
    """The stored arrays of a shard, row by row; those of several layers as one."""
    found: dict[str, list[Any]] = {}
    count = np.ptp(cache.shards[shard])
    for field in cache.fields:
        for name, array in cache.read(field, shard).items():
            if not name.endswith(("offsets", "row_ids")):
                flat = array.view(np.int16) if array.dtype == np.uint16 else array
                shape = (count, *flat.shape[1:]) if len(flat) == count else (count, -1, *flat.shape[1:])
                found.setdefault(name.rpartition("/")[2], []).append(flat.reshape(shape))
    return {name: same[0] if len(same) == 1 else np.stack(same, 1) for name, same in found.items()}


def write_records(cache: Cache, path: Path) -> int:
    """Write the rows of a cache as one structured array; returns the bytes of a row."""
    first = rows_of(cache, 0)
    # Aligned, or torch takes no view of a column.
    kind = np.dtype([(name, array.dtype, array.shape[1:]) for name, array in first.items()], align=True)
    records = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(cache.num_rows,))
    for shard, (start, stop) in enumerate(cache.shards):
        for name, array in rows_of(cache, shard).items():
            records[name][start:stop] = array
    records.flush()
    return kind.itemsize


def write_cache(path: Path, case: str, num_rows: int, tree: Path) -> None:
    """Write the rows with the hskcache of a checkout: an earlier one reads no cache of a later one."""
    code = (
        "import sys; from pathlib import Path; from benchmarks import read; "
        "read.random_cache.write(Path(sys.argv[1]), read.PLANS[sys.argv[2]](int(sys.argv[3])))"
    )
    paths = os.pathsep.join([str(tree), str(ROOT / "tools")])
    command = (sys.executable, "-P", "-c", code, str(path), case, str(num_rows))
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})


class Readers:
    """Folders that hold the rows in each library's own form, and the command that reads each of them."""

    def __init__(self, work: Path, trees: dict[str, Path], sides: tuple[str, ...]) -> None:
        self.work = work
        self.python = python_of_peers(work.parent / "peers") if {"litdata", "mds"} & set(sides) else ""
        self.trees = trees
        self.names = [f"{side} of {tree}" for tree in trees for side in OURS] + list(sides)

    def call(self, side: str, *words: object) -> str:
        """Output of the script for one side."""
        side, _, tree = side.partition(" of ")
        python = self.python if side in {"litdata", "mds"} else sys.executable
        paths = {"PYTHONPATH": str(self.trees[tree])} if tree else {}
        # -P: what stands beside the script is not what a library means.
        command = [python, "-P", str(SCRIPT), str(words[0]), side, *map(str, words[1:])]
        done = subprocess.run(command, capture_output=True, check=False, text=True, env={**os.environ, **paths})
        if done.returncode:
            raise click.ClickException(f"{side} fails: {done.stderr.strip()[-500:]}")
        return done.stdout

    def folder(self, side: str) -> Path:
        """Where the rows of a side stand."""
        name = side.partition(" of ")[0]
        return self.work / ("cache.hsk" if name in OURS else name.removesuffix("-float32"))

    def write(self, records: Path) -> None:
        """Write what is not there yet."""
        for side in self.names:
            done = self.folder(side).with_suffix(".done")
            if side in OTHERS and not done.is_file():
                console.say(f"writing the rows for {side}")
                self.call(side, "write", records, emptied(self.folder(side)))
                done.touch()

    def read(self, side: str, batch_size: int, epochs: int) -> list[float]:
        """Seconds of CPU of each epoch; the pages of the files are not in memory before the first."""
        for path in self.folder(side).rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
        said = self.call(side, "read", self.folder(side), batch_size, epochs).splitlines()[-1]
        seconds: list[float] = json.loads(said)["seconds"]
        return seconds


def measured(sides: Readers, repetitions: int, batch_size: int, epochs: int) -> dict[str, Times]:
    """Seconds of every side, of the first epoch and of the median of the others, by ``cold`` and ``warm``."""
    found: dict[str, dict[str, list[float]]] = {when: {side: [] for side in sides.names} for when in ("cold", "warm")}
    with console.progress("runs") as bar:
        task = bar.add_task("read", total=repetitions * len(sides.names))
        for repetition in range(repetitions):
            first = repetition % len(sides.names)
            for side in sides.names[first:] + sides.names[:first]:
                cold, *warm = sides.read(side, batch_size, epochs)
                found["cold"][side].append(cold)
                found["warm"][side].append(median(warm))
                bar.advance(task)
    return {when: Times(seconds) for when, seconds in found.items()}


def targets_of(case: str, when: str, times: Times) -> Iterator[report.Target]:
    """What the loader of this checkout promises."""
    present = times.seconds
    peers = [side for side in ("litdata", "mds", "h5py", "datasets") if side in present]
    for side in OURS:
        ours = f"{side} of here"

        def faster(reference: str, ours: str = ours) -> float:
            return times.ratio(reference, ours)

        if case == "typical" and f"{side} of against" in present and when == "warm":
            yield report.Target(f"{side}, {when}: here / against", faster(f"{side} of against"), FASTER, at_least=True)
        if peers:
            best = min(peers, key=times.median)
            yield report.Target(f"{side}, {when}: here / {best}", faster(best), PEER[case], at_least=True)
        if case == "full" and "memmap-float32" in present:
            name = f"{side}, {when}: here / memmap-float32"
            yield report.Target(name, faster("memmap-float32"), UNCHECKED, at_least=True)


@click.command()
@click.option("--case", type=click.Choice(list(PLANS)), default="typical", show_default=True, help="What is kept.")
@options.count("--rows", 16384, "Of the cache.")
@options.count("--epochs", 4, "Of a run; the first is the cold one.", at_least=2)
@options.batch_size
@click.option("--against", metavar="COMMIT_OR_DIR", help="Another loader to compare with.  [default: none]")
@click.option("--side", "sides", type=click.Choice(OTHERS), multiple=True, help="Libraries.  [default: all]")
@options.repetitions(5)
@options.work
@options.as_json
def main(case: str, against: str | None, sides: tuple[str, ...], work: Path, as_json: bool, **given: Any) -> None:
    """Time epochs of shuffled batches in CPU seconds of a process, this checkout's changes included.

    The others hand out what is stored and check nothing; hskcache verifies it, decodes it and finds the columns.
    """
    folder = work / "read" / f"{case}-{given['rows']}{'-against' if against else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    plan = PLANS[case](given["rows"])
    records = folder / "records.npy"
    with ExitStack() as stack:
        trees = {"here": ROOT}
        if against:
            trees["against"] = stack.enter_context(checkout(against))
        write_cache(folder / "cache.hsk", case, given["rows"], [*trees.values()][-1])
        row_bytes = write_records(open_cache(folder / "cache.hsk"), records)
        all_sides = Readers(folder, trees, sides or OTHERS)
        all_sides.write(records)
        found = measured(all_sides, given["repetitions"], given["batch_size"], given["epochs"])
    rows = []
    for side in all_sides.names:
        cells: list[str] = [side]
        for times in found.values():
            speed = plan.num_rows / times.median(side)
            cells += [f"{speed:,.0f}", f"{speed * row_bytes / 1e6:,.0f}", ratio(times, side, "host of here")]
        rows.append(cells)
    header = ("side", "cold rows/s", "MB/s", "s / host of here", "warm rows/s", "MB/s", "s / host of here")
    title = f"{case}: {plan.num_rows} rows of {row_bytes} bytes, a CPU second, medians of {given['repetitions']}"
    facts = {"case": case, "settings": given, "row_bytes": row_bytes, "environment": environment()}
    facts |= {when: times.facts() for when, times in found.items()}
    targets = [target for when, times in found.items() for target in targets_of(case, when, times)]
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
