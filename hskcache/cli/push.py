"""``hskcache push``: a cache to a URL."""

from pathlib import Path

import click

from hskcache import console, units
from hskcache.cli.options import cache_argument
from hskcache.cli.sharing import choice_options, choose, facts, watched
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@cache_argument
@click.argument("url", shell_complete=places)
@choice_options
@click.option("--verify", is_flag=True, help="Read everything back and compare it.")
@click.option("--replace", is_flag=True, help="Replace another cache that is at the URL.")
@as_json
def push(
    cache: Path, url: str, fields: str | None, rows: str | None, jobs: int, verify: bool, replace: bool, as_json: bool
) -> None:
    """Send a cache to a URL: only what is missing there, and every shard verified.

    URL is of any kind that fsspec knows: s3://, gs://, sftp://, hf://datasets/, file:// and others. Credentials are
    those of its library, such as AWS_ACCESS_KEY_ID; an sftp host must be in ~/.ssh/known_hosts. The same command goes
    on where it was cut off.
    """
    from hskcache.move.push import Manner
    from hskcache.move.push import push as send
    from hskcache.remote.remote import open_remote

    subset, remote = choose(fields, rows), open_remote(url)
    with watched("push", subset) as watch:
        pushed = send(cache, remote, subset, Manner(jobs, verify, replace), watch)
    if as_json:
        console.print_json({"cache": str(cache), "url": remote.url, **facts(pushed)})
    said = (
        f"{counted(pushed.num_sent, 'shard file')} sent ({units.human_bytes(pushed.bytes_sent)}), {pushed.num_there} "
        "were there"
    )
    verified = (
        "" if pushed.bytes_verified is None else f", {units.human_bytes(pushed.bytes_verified)} read back as sent"
    )
    console.say(f"{remote.url} holds the cache {pushed.selected.manifest.cache_id[:12]}: {said}{verified}")
