"""Cost of the first batch of caches from a hundred thousand rows to a hundred million.

Every shard of a field has the content of one, so that the files are links to a single one; their records, pages and
places in the order are those of a cache of so many rows.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import click

from benchmarks.harness import options, random_cache, report
from benchmarks.open import grown
from hskcache.cache import open_cache

TARGET_S, TARGET_MB = 2.0, 300.0

_FIRST_BATCH = """
import json, re, sys, time
from pathlib import Path
import hskcache.store.codec
from hskcache.cache import open_cache
from trainer.loading import KnowledgeLoader
from trainer.source.source import cached_source

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

base, seconds, busy = peak(), [time.perf_counter()], [time.process_time()]
def tell():
    seconds.append(time.perf_counter())
    busy.append(time.process_time())

cache = open_cache(sys.argv[1])
tell()
cached_source(cache)
loader = KnowledgeLoader(cache, residency="stream")
loader.seek(0, int(len(loader) * float(sys.argv[2])))
tell()
batch = next(iter(loader))
tell()
difference = lambda times: [last - first for first, last in zip(times, times[1:])]
print(json.dumps([*difference(seconds), seconds[-1] - seconds[0], busy[-1] - busy[0], peak() - base]))
"""


def measured(cache: Path, begin: float) -> list[float]:
    """Seconds to open, plan and reach a batch, of all, of the processor, and bytes, of a process of its own."""
    command = [sys.executable, "-c", _FIRST_BATCH, str(cache), str(begin)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--most-rows", type=click.IntRange(min=100_000), default=100_000_000, show_default=True, help="At most.")
@options.repetitions()
@options.work
@options.as_json
def main(most_rows: int, repetitions: int, work: Path, as_json: bool) -> None:
    """Time opening a cache, planning its epochs and making a batch of 32 rows, the first one and one amid the epoch.

    Each run is a new process that has imported everything before; its memory is told beyond that.
    """
    small = work / "scale" / "small.hsk"
    plan = random_cache.typical(1)
    random_cache.write(small, random_cache.Plan(4096, 4096, plan.spec, plan.knowledge, plan.draw))
    names = [name for name in open_cache(small).fields if name != "attention"]
    counts = [-(-(10**power) // 4096) for power in range(5, 10) if 10**power <= most_rows]
    caches = {count: work / "scale" / f"{count}.hsk" for count in counts}
    for count, cache in caches.items():
        if not (cache / "manifest.json").exists():
            grown(small, cache, count, names, 2, is_whole=True)
    sides = [(count, begin) for count in counts for begin in (0.0, 0.5)]
    found: dict[tuple[int, float], list[list[float]]] = {side: [] for side in sides}
    for _ in range(repetitions):
        for count, begin in sides:
            found[count, begin].append(measured(caches[count], begin))
    lines, facts = [], []
    for (count, begin), runs in found.items():
        opened, planned, batch, whole, busy, num_bytes = (median(column) for column in zip(*runs, strict=True))
        what = {"rows": count * 4096, "begin": begin, "s": whole, "cpu_s": busy, "mb": num_bytes / 1e6}
        facts.append(what | {"open_s": opened, "plan_s": planned, "batch_s": batch})
        times = (f"{value:.3f}" for value in (opened, planned, batch, whole, busy))
        lines.append([f"{count * 4096:,}", f"{begin:.0%}", *times, f"{num_bytes / 1e6:.0f}"])
    header = ("rows", "begun at", "open s", "plan s", "batch s", "all s", "CPU s", "MB beyond imports")
    targets = [
        report.Target("seconds of the processor until the first batch", max(one["cpu_s"] for one in facts), TARGET_S),
        report.Target("MB beyond the imports", max(one["mb"] for one in facts), TARGET_MB),
    ]
    title = f"from opening a cache to a batch, medians of {repetitions}"
    report.conclude({"runs": facts}, [report.table(title, header, lines)], targets, as_json)
