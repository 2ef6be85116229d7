"""Peak memory and speed of counting a cache and of its page, for a cache and for one several times larger."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import command_line
from benchmarks.harness.random_cache import POSITIONS, write
from benchmarks.memory import plan
from hskcache import console, units


class Counting(NamedTuple):
    """Cost of one run of a command: largest resident memory in bytes, and seconds."""

    num_bytes: int
    seconds: float


def counting(words: list[str], printed: Path) -> Counting:
    """Run a command in a process of its own; what it prints goes to a file."""
    start = perf_counter()
    with printed.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL)
        # wait4 tells this child's own peak; RUSAGE_CHILDREN would tell the largest of all so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(words)} failed")
    # Kilobytes on Linux, bytes on macOS.
    return Counting(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), perf_counter() - start)


@click.command()
@options.count("--megabytes", 100, "Of states in the smaller cache.")
@options.count("--factor", 8, "How much larger the other is.", at_least=2)
@options.count("--shard-rows", 128, "Rows of a shard.")
@options.count("--width", 768, "Of the stored states.")
@options.work
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Measure the peak memory and speed of hskcache stats and report, over a cache and over a larger one.

    Memory must not follow the size of the cache, and a page must stay below a megabyte.
    """
    folder = work / "stats"
    rows = max(1, given["megabytes"] * 1_000_000 // (POSITIONS * given["width"] * 4))
    named = {"small": rows, "large": rows * given["factor"]}
    found: dict[str, dict[str, Counting]] = {}
    sizes: dict[str, int] = {}
    pages: dict[str, int] = {}
    with console.progress("runs") as bar:
        task = bar.add_task("count", total=4)
        for name, count in named.items():
            cache, page = folder / f"{name}.hsk", folder / f"{name}.html"
            sizes[name] = write(cache, plan(count, given["shard_rows"], given["width"]))
            for command, words in {"stats": ["--json"], "report": ["--out", str(page)]}.items():
                line = command_line("hskcache", command, cache, *words)
                found.setdefault(command, {})[name] = counting(line, folder / "printed")
                bar.advance(task)
            pages[name] = page.stat().st_size
            shutil.rmtree(cache)
    ratios = {command: peaks["large"].num_bytes / peaks["small"].num_bytes for command, peaks in found.items()}
    lines = []
    for command, peaks in found.items():
        memory = [units.human_bytes(peaks[name].num_bytes) for name in named]
        speed = sizes["large"] / peaks["large"].seconds
        lines.append([command, *memory, f"{ratios[command]:.3f}", f"{speed / 1e6:,.0f}"])
    header = ("command", *(f"{name}, {units.human_bytes(sizes[name])}" for name in named), "ratio", "large, MB/s")
    facts = {
        "settings": given,
        "cache_bytes": sizes,
        "cache_rows": named,
        "page_bytes": pages,
        "runs": {command: {name: one._asdict() for name, one in peaks.items()} for command, peaks in found.items()},
    }
    title = f"peak resident memory by size of the cache, shards of {given['shard_rows']} rows"
    targets = [
        *(report.Target(f"{command}: memory, large / small", ratio, 1.15) for command, ratio in ratios.items()),
        report.Target("largest page, MB", max(pages.values()) / 1e6, 1.0),
    ]
    report.conclude(facts, [report.table(title, header, lines)], targets, as_json)
