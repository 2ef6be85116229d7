"""Time of reading a cache where its files are hashed again, and where it is remembered that they were."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import big_cache, report
from benchmarks.harness.measure import environment
from hskcache import console
from hskcache.cache import Cache, open_cache
from hskcache.store import reading
from trainer.timing import alternate

READ, EPOCH = "reading every shard", "a streamed epoch, decoded"
HASHED, REMEMBERED = "every file hashed", "files hashed before"


def read(cache: Cache) -> None:
    """Read and decompress every array of the cache."""
    for shard in range(len(cache.shards)):
        for field in cache.fields:
            cache.read(field, shard)


def stream(cache: Cache) -> None:
    """Go through an epoch as training does, without the student."""
    from trainer.loading import KnowledgeLoader

    for batch in KnowledgeLoader(cache, batch_size=256, residency="stream"):
        assert batch.hidden


def sides(cache: Cache) -> dict[str, Callable[[], Any]]:
    """Sides to time, each as in a process that has read nothing before and as in one that has read everything."""

    def forgetful(work: Callable[[Cache], None]) -> None:
        reading._digests.cache_clear()
        work(cache)

    found: dict[str, Callable[[], Any]] = {}
    for name, work in ((READ, read), (EPOCH, stream)):
        found[f"{name}, {HASHED}"] = partial(forgetful, work)
        found[f"{name}, {REMEMBERED}"] = partial(work, cache)
    return found


@click.command()
@click.option("--megabytes", type=click.IntRange(min=1), default=200, show_default=True, help="Of the cache, about.")
@click.option("--keep-cache", is_flag=True, help="Leave the cache in --work for another run.")
@report.rounds
@report.work
@report.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time epochs of a loader that streams a random cache, which is in the page cache for both sides.

    The files are hashed in the first epoch of a process and, while they stay as they are, not in later ones.
    """
    sizes = big_cache.Sizes(given["megabytes"] * 1_000_000 // big_cache.Sizes(1).row_bytes)
    root = work / "epoch" / f"{sizes.num_rows}.hsk"
    num_bytes = big_cache.write(root, sizes)
    cache = open_cache(root)
    timed = sides(cache)
    with console.progress("runs") as bar:
        task = bar.add_task("epoch", total=len(timed) * (given["repetitions"] + 1))
        times = alternate(timed, given["repetitions"], on_done=lambda: bar.advance(task))
    if not given["keep_cache"]:
        shutil.rmtree(root)
    rows = []
    for side in timed:
        reference = side.replace(REMEMBERED, HASHED)
        lower, upper = times.spread(side, reference)
        told = f"{times.ratio(side, reference):.3f} ({lower:.3f} to {upper:.3f})"
        rows.append([side, f"{times.median(side):.3f}", f"{num_bytes / times.median(side) / 1e6:,.0f}", told])
    title = f"{console.human_bytes(num_bytes)} of shards, {sizes.num_rows} rows"
    facts = {"settings": given, "num_bytes": num_bytes, "environment": environment(), "times": times.facts()}
    ratio = times.ratio(f"{READ}, {REMEMBERED}", f"{READ}, {HASHED}")
    targets = [report.Target(f"{READ}: remembered / hashed", ratio, 0.8)]
    report.conclude(facts, [report.table(title, ("side", "s", "MB/s", "/ hashed"), rows)], targets, as_json)
