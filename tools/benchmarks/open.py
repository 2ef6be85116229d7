"""Cost of opening a cache of many shards and of reading a row of it, in versions 2 and 1 of the format.

Of every field one shard is there, and the records of the others tell of files that are not.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

import click

from benchmarks.harness import options, random_cache, report
from hskcache.cache import open_cache
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import write_index, write_manifest
from hskcache.store.record import ArrayInfo, Record, file_name
from hskcache.store.version1 import VERSION_1
from hskcache.store.version2 import VERSION_2

_READ = """
import json, re, sys, time
from pathlib import Path
from hskcache.cache import open_cache
import hskcache.store.codec
start = time.perf_counter()
if len(sys.argv) > 1:
    open_cache(sys.argv[1]).row(int(sys.argv[2]))
seconds = time.perf_counter() - start
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([seconds, int(peak[1]) * 1024]))
"""


def records(one: Record, count: int, version: int) -> Iterable[Record]:
    """Records of so many shards that hold what one does, of which the file of the last is that one's."""
    for shard in range(count):
        update = {"shard": shard, "start": shard * one.num_rows, "stop": (shard + 1) * one.num_rows}
        if version == 2:
            yield one.model_copy(update=update | {"file": file_name(shard, one.sha256)})
        else:
            sizes = {"num_bytes": one.num_bytes, "sha256": one.sha256, "arrays": plain(one.arrays)}
            yield Record(**one.facts | update | sizes)


def plain(arrays: Mapping[str, ArrayInfo]) -> dict[str, ArrayInfo]:
    """Shapes and types of arrays, which is all that version 1 tells of them."""
    return {name: ArrayInfo(shape=info.shape, dtype=info.dtype) for name, info in arrays.items()}


def grown(small: Path, out: Path, count: int, names: list[str], version: int, is_whole: bool = False) -> Path:
    """A cache of some fields and so many shards, of which the last of each field alone is there, or links for all."""
    cache = open_cache(small)
    manifest = cache.manifest.subset(names)
    ones = {name: manifest.shards[name][0] for name in manifest.fields}
    data = manifest.request.data.model_copy(update={"num_rows": count * manifest.request.shard_rows})
    request = manifest.request.model_copy(update={"data": data})
    changes = {"request": request, "request_digest": request.digest, "part": None}
    form = VERSION_2 if version == 2 else VERSION_1
    changes |= {"format": form, "tokenizer": manifest.tokenizer if version == 2 else None}
    changes["shards"] = {name: form.records(name, records(one, count, version)) for name, one in ones.items()}
    whole: Manifest = manifest.model_copy(update=changes).signed()
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(small / "tokenizer", out / "tokenizer")
    write_index(out, whole)
    write_manifest(out, whole)
    for name, one in ones.items():
        (out / name).mkdir(exist_ok=True)
        for record in whole.shards[name] if is_whole else whole.shards[name][-1:]:
            (out / record.path).hardlink_to(small / one.path)
    return out


def measured(*words: str) -> tuple[float, int]:
    """Seconds, and the most bytes in memory, of a process that opens a cache and reads a row; of one that does not."""
    done = subprocess.run([sys.executable, "-c", _READ, *words], check=True, capture_output=True, text=True)
    seconds, num_bytes = json.loads(done.stdout)
    return seconds, num_bytes


@click.command()
@click.option("--shards", type=click.IntRange(min=1), default=100_000, show_default=True, help="Of version 2.")
@click.option("--old-shards", type=click.IntRange(min=1), default=25_000, show_default=True, help="Of version 1.")
@options.repetitions()
@options.work
@options.as_json
def main(shards: int, old_shards: int, repetitions: int, work: Path, as_json: bool) -> None:
    """Time opening a cache of three fields, in version 2, and of four, in version 1, and reading its last row.

    Each run is a new process that has imported hskcache before it is timed; its memory is told beyond that of one that
    opens nothing.
    """
    small = work / "open" / "small.hsk"
    plan = random_cache.typical(1)
    rows = min(plan.num_rows, 256)
    random_cache.write(small, random_cache.Plan(rows, rows, plan.spec, plan.knowledge, plan.draw))
    names = [name for name in open_cache(small).fields if name != "attention"]
    sides: dict[str, tuple[Path, int]] = {
        "version 2": (grown(small, work / "open" / "2.hsk", shards, names, 2), shards),
        "version 1": (grown(small, work / "open" / "1.hsk", old_shards, [*names, "attention"], 1), old_shards),
    }
    found: dict[str, list[tuple[float, int]]] = {side: [] for side in sides}
    empty = []
    for _ in range(repetitions):
        empty.append(measured()[1])
        for side, (cache, count) in sides.items():
            found[side].append(measured(str(cache), str(count * rows - 1)))
    base, lines, facts = median(empty), [], {}
    for side, (cache, count) in sides.items():
        seconds, num_bytes = (median(column) for column in zip(*found[side], strict=True))
        manifest = (cache / "manifest.json").stat().st_size
        facts[side] = {"shards": count, "seconds": seconds, "bytes": num_bytes - base, "manifest_bytes": manifest}
        figures = (f"{count:,}", f"{seconds:.3f}", f"{(num_bytes - base) / 1e6:.1f}", f"{seconds / count * 1e6:.2f}")
        lines.append([side, *figures, f"{manifest / 1e6:.2f}"])
    header = ("format", "shards", "s", "MB beyond an empty process", "us a shard", "MB of manifest.json")
    new = facts["version 2"]
    targets = [
        report.Target("seconds until a row is read", new["seconds"], 0.5),
        report.Target("MB beyond an empty process", new["bytes"] / 1e6, 100.0),
    ]
    title = f"opening a cache and reading a row, medians of {repetitions}"
    report.conclude(facts, [report.table(title, header, lines)], targets, as_json)
