"""Time of reading a cache where its files are hashed again, and where it is remembered that they were."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, random_cache, report
from benchmarks.harness.measure import TO, environment, ratio, take_turns, throughput
from hskcache import units
from hskcache.cache import Cache, open_cache
from hskcache.store import reading

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
@options.count("--megabytes", 200, "Of the cache, about.")
@click.option("--keep-cache", is_flag=True, help="Leave the cache in --work for another run.")
@options.repetitions()
@options.work
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time epochs of a loader that streams a random cache, which is in the page cache for both sides.

    The files are hashed in the first epoch of a process and, while they stay as they are, not in later ones.
    """
    plan = random_cache.typical(given["megabytes"])
    root = work / "epoch" / f"{plan.num_rows}.hsk"
    num_bytes = random_cache.write(root, plan)
    timed = sides(open_cache(root))
    times = take_turns("epoch", timed, given["repetitions"])
    if not given["keep_cache"]:
        shutil.rmtree(root)
    rows = []
    for side in timed:
        compared = ratio(times, side, side.replace(REMEMBERED, HASHED), TO)
        rows.append([side, *throughput(times, side, num_bytes), compared])
    title = f"{units.human_bytes(num_bytes)} of shards, {plan.num_rows} rows"
    facts = {"settings": given, "num_bytes": num_bytes, "environment": environment(), "times": times.facts()}
    saved = times.ratio(f"{READ}, {REMEMBERED}", f"{READ}, {HASHED}")
    targets = [report.Target(f"{READ}: remembered / hashed", saved, 0.8)]
    report.conclude(facts, [report.table(title, ("side", "s", "MB/s", "/ hashed"), rows)], targets, as_json)
