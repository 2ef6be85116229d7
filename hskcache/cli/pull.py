"""``hskcache pull``: a cache from a URL."""

from pathlib import Path

import click

from hskcache import console, units
from hskcache.cli.sharing import choice_options, choose, facts, watched
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@click.argument("url", shell_complete=places)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@choice_options
@as_json
def pull(url: str, folder: Path | None, fields: str | None, rows: str | None, jobs: int, as_json: bool) -> None:
    """Fetch a cache from a URL, or some of it: only what is missing here or damaged, and every file verified.

    URL is of any kind that fsspec knows: http(s)://, s3://, gs://, sftp://, hf://datasets/, file:// and others. DIR is
    the last part of the URL unless it is given. An sftp host must be in ~/.ssh/known_hosts. The same command goes on
    where it was cut off; with more fields or rows it makes the cache in DIR grow.
    """
    from hskcache.move.pull import default_folder
    from hskcache.move.pull import pull as fetch
    from hskcache.remote.remote import open_remote

    subset, remote = choose(fields, rows), open_remote(url)
    root = folder or default_folder(remote.url)
    with watched("pull", subset) as watch:
        pulled = fetch(remote, root, subset, jobs, watch)
    if as_json:
        console.print_json({"cache": str(root), "url": remote.url, **facts(pulled)})
    said = f"{counted(pulled.num_fetched, 'shard file')} fetched ({units.human_bytes(pulled.bytes_fetched)})"
    identity = pulled.selected.manifest.cache_id[:12]
    console.say(f"{root} holds the cache {identity}: {said}, {pulled.num_there} were there")
