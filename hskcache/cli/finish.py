"""``hskcache finish``: a build in a bucket, once all of its parts are written."""

import click

from hskcache import console, units
from hskcache.cli.outcome import facts, num_bytes, tell_agreement, tell_skipped
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@click.argument("url", shell_complete=places)
@as_json
def finish(url: str, as_json: bool) -> None:
    """Complete a cache in a bucket, all of whose shards are written, and remove what its workers have left there.

    It needs no teacher and no data. The last worker of a build does the same, so this is for one that died right then,
    and for what a worker leaves that wakes up late. If shards are missing, the first is told.
    """
    from hskcache.build.completing import complete

    manifest = complete(url)
    if as_json:
        console.print_json(facts(manifest, url))
    tell_skipped(manifest, url)
    tell_agreement(manifest)
    size = units.human_bytes(sum(num_bytes(manifest).values()))
    rows = counted(manifest.request.num_rows, "row")
    console.say(f"{url} is complete: {rows}, {size}, id {manifest.cache_id[:12]}")
