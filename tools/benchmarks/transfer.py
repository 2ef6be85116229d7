"""Time of hskcache push and pull against a plain copy of the same files."""

import os
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, random_cache, report
from benchmarks.harness.fault_suite import import_from_tests
from benchmarks.harness.folders import emptied
from benchmarks.harness.measure import environment, ratio, take_turns, throughput
from hskcache import units

JOBS = 8
PLACES = ("file", "http", "s3", "sftp")
BOUND = 3.0
"""Bound of push and pull against a plain copy by the same way."""


def files_of(cache: Path) -> list[str]:
    """Every file of the cache, as paths within it."""
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def sync(path: Path) -> None:
    """Bring a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy(cache: Path, target: Path) -> None:
    """A plain copy that is on the disk when it is done, as what is pulled is."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(cache, target)
    for path in [target, *target.rglob("*")]:
        sync(path)


def fetch_plain(url: str, names: list[str], target: Path) -> None:
    """A GET of every file, as many at a time, each brought to the disk."""

    def fetch(name: str) -> None:
        with urllib.request.urlopen(f"{url}/{name}") as answer, (target / name).open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())

    shutil.rmtree(target, ignore_errors=True)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(fetch, names))


def push(cache: Path, url: str) -> None:
    """``hskcache push``."""
    from hskcache.move.push import Manner
    from hskcache.move.push import push as send
    from hskcache.move.selected import Subset
    from hskcache.remote.remote import open_remote

    send(cache, open_remote(url), Subset(None, None), Manner(JOBS))


def pull(url: str, target: Path) -> None:
    """``hskcache pull``."""
    from hskcache.move.pull import pull as bring
    from hskcache.move.selected import Subset
    from hskcache.remote.remote import open_remote

    shutil.rmtree(target, ignore_errors=True)
    bring(open_remote(url), target, Subset(None, None), JOBS)


def to_folder(cache: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """A folder of this machine, by file://."""
    pushed = folder / "pushed"

    def push_anew() -> None:
        shutil.rmtree(pushed, ignore_errors=True)
        push(cache, f"file://{pushed}")

    return {
        "plain": lambda: copy(cache, folder / "copied"),
        "push": push_anew,
        "pull": lambda: pull(f"file://{cache}", folder / "pulled"),
    }


def from_http(url: str, cache: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """A server of files on loopback."""
    names = files_of(cache)
    return {
        "plain": lambda: fetch_plain(url, names, folder / "copied"),
        "pull": lambda: pull(url, folder / "pulled"),
    }


def with_s3(url: str, cache: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """An S3 server on loopback; plain are fsspec's own put and get of a folder."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)

    def removed(name: str) -> str:
        files.invalidate_cache()
        if files.exists(f"{root}/{name}"):
            files.rm(f"{root}/{name}", recursive=True)
        return name

    def get() -> None:
        shutil.rmtree(folder / "got", ignore_errors=True)
        files.get(f"{root}/given/", f"{folder / 'got'}/", recursive=True)

    push(cache, f"{url}/given")
    return {
        "plain put": lambda: files.put(f"{cache}/", f"{root}/{removed('put')}/", recursive=True),
        "push": lambda: push(cache, f"{url}/{removed('pushed')}"),
        "plain get": get,
        "pull": lambda: pull(f"{url}/given", folder / "pulled"),
    }


def with_sftp(url: str, cache: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """An sftp server on loopback; plain are paramiko's own get and put, each thread with a connection of its own."""
    from hskcache.remote.systems import open_system

    pushed = folder / "served" / "pushed"

    def each(work: Callable[[Any, str], Any]) -> None:
        names = iter(files_of(cache))
        mutex = threading.Lock()

        def go_on() -> None:
            files = open_system("sftp", url)
            while True:
                with mutex:
                    name = next(names, None)
                if name is None:
                    files.close()
                    return
                work(files.system, name)

        with ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(lambda _: go_on(), range(JOBS)))

    def put() -> None:
        copied(folder / "served" / "put")
        each(lambda system, name: system.put(str(cache / name), f"/put/{name}", confirm=False))

    def get() -> None:
        copied(folder / "got")
        each(lambda system, name: system.get(f"/given/{name}", str(folder / "got" / name)))

    def copied(target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        for name in files_of(cache):
            (target / name).parent.mkdir(parents=True, exist_ok=True)

    def push_anew() -> None:
        shutil.rmtree(pushed, ignore_errors=True)
        push(cache, f"{url}/pushed")

    shutil.copytree(cache, folder / "served" / "given")
    sides = {"plain put": put, "push": push_anew, "plain get": get}
    return sides | {"pull": lambda: pull(f"{url}/given", folder / "pulled")}


@contextmanager
def places(cache: Path, folder: Path, wanted: tuple[str, ...]) -> Iterator[dict[str, dict[str, Callable[[], Any]]]]:
    """Sides to time, by the place that a cache goes to or comes from."""
    from servers import http_server, nginx_server, s3_server, sftp_server

    with ExitStack() as stack:
        found: dict[str, dict[str, Callable[[], Any]]] = {}
        if "file" in wanted:
            found["file"] = to_folder(cache, emptied(folder / "file"))
        if "http" in wanted:
            place, state = (emptied(folder / name) for name in ("http", "state"))
            server = stack.enter_context(nginx_server(cache.parent, state))
            server = server or stack.enter_context(http_server(cache.parent, state))
            found["http"] = from_http(f"{server.url.rstrip('/')}/{cache.name}", cache, place)
        if "s3" in wanted:
            server = stack.enter_context(s3_server())
            os.environ |= server.environment
            found["s3"] = with_s3(server.url.rstrip("/"), cache, emptied(folder / "s3"))
        if "sftp" in wanted:
            place = emptied(folder / "sftp")
            (place / "served").mkdir()
            server = stack.enter_context(sftp_server(place / "served"))
            os.environ |= server.environment
            found["sftp"] = with_sftp(server.url, cache, place)
        yield found


def reference(side: str, sides: Any) -> str:
    """Name of the side that a side is compared with."""
    return {"push": "plain put", "pull": "plain get"}.get(side, side) if "plain put" in sides else "plain"


@click.command()
@options.count("--megabytes", 200, "Of the cache, about.")
@click.option(
    "--place",
    "wanted",
    type=click.Choice(PLACES),
    multiple=True,
    default=PLACES,
    help="Where to; may be given again.  [default: all]",
)
@options.repetitions()
@options.work
@options.as_json
def main(work: Path, as_json: bool, wanted: tuple[str, ...], **given: Any) -> None:
    """Time push and pull against a plain copy that verifies nothing, to a folder, and to servers of HTTP, S3 and sftp.

    All of them are on this machine, so servers and disks are as fast as they can be and what is left is our own work:
    digests, resumable parts, commit records. What is pulled, and the copy of a folder, is on the disk when it is done.
    """
    import_from_tests()
    plan = random_cache.typical(given["megabytes"])
    cache = work / "transfer" / f"{plan.num_rows}.hsk"
    num_bytes = random_cache.write(cache, plan)
    with places(cache, work / "transfer", wanted) as timed:
        found = {name: take_turns(name, sides, given["repetitions"]) for name, sides in timed.items()}
    rows, targets = [], []
    for name, times in found.items():
        for side in times.seconds:
            other = reference(side, times.seconds)
            compared = ratio(times, side, other, "{:.2f} ({:.2f} to {:.2f})")
            rows.append([f"{name}: {side}", *throughput(times, side, num_bytes), compared])
            if side in {"push", "pull"}:
                targets.append(report.Target(f"{name}: {side} / {other}", times.ratio(side, other), BOUND))
    title = f"{units.human_bytes(num_bytes)} of shards, {JOBS} files at a time"
    facts = {
        "settings": given,
        "num_bytes": num_bytes,
        "environment": environment(),
        "times": {name: times.facts() for name, times in found.items()},
    }
    report.conclude(facts, [report.table(title, ("side", "s", "MB/s", "/ plain"), rows)], targets, as_json)
