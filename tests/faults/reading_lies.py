"""Everything that one does with a stranger's cache."""

from collections.abc import Callable, Iterator
from pathlib import Path

from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, DamageError
from hskcache.report import ReportRequest, report
from hskcache.store.ledger import Ledger
from hskcache.store.record import CONSTANTS
from hskcache.units import human_bytes
from hskcache.verify import verify


def refusals(root: Path, train: Callable[[Path], object] | None = None) -> int:
    """Do everything with a cache that one does with a stranger's; how often it was refused.

    Whatever else than a refusal comes out of it is a fault, and is raised.

    Args:
        root: the cache.
        train: what else is done with it.
    """
    count = 0
    for use in (_read_everything, _read_arrays, _sums, _verify, _records, _look, *([train] if train else [])):
        try:
            use(root)
        except CacheError:
            count += 1
    return count


def _read_everything(root: Path) -> None:
    cache = open_cache(root)
    refused: list[CacheError] = []
    for read in (
        lambda: [cache.constants(name) for name in cache.fields],
        *((lambda name=name, shard=shard: cache.read(name, shard)) for name, shard in _shards(cache)),
        lambda: cache.row(0),
        lambda: cache.row(cache.num_rows - 1),
        lambda: cache.skipped(list(cache.fields)),
    ):
        try:
            read()
        except CacheError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _read_arrays(root: Path) -> None:
    """Each array for itself, by its part of the file."""
    cache = open_cache(root)
    refused: list[CacheError] = []
    for name, shard in _shards(cache):
        try:
            for array in cache.manifest.shards[name][shard].arrays:
                cache.read(name, shard, [array])
        except CacheError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _sums(root: Path) -> None:
    """All that is told of a cache without reading a shard of it."""
    manifest = open_cache(root).manifest
    human_bytes(manifest.num_bytes)
    for records in manifest.shards.values():
        assert records.shard_bytes().sum() >= 0
        human_bytes(sum(records.array_bytes.values()))
        list(records.skipped())


def _shards(cache: Cache) -> Iterator[tuple[str, int]]:
    return ((name, shard) for name in cache.fields for shard in range(len(cache.shards)))


def _look(root: Path) -> None:
    """The page about the cache, for which everything is counted, decoded and shown."""
    page = root.parent / "page.html"
    report(open_cache(root), ReportRequest(page, num_rows=3))
    page.unlink()


def _verify(root: Path) -> None:
    problems = [problem for deep in (False, True) for problem in verify(root, deep=deep).problems]
    if problems:
        raise DamageError(problems[0].what)


def _records(root: Path) -> None:
    ledger = Ledger(root)
    for field in ("inputs", "hidden", "more"):
        for shard in (CONSTANTS, 0, 1):
            ledger.committed(field, shard)
    request = ledger.request()
    if request is not None:
        ledger.num_committed(request)
