"""``hsktrain push``: a model to a URL."""

from dataclasses import asdict
from pathlib import Path

import click

from hskcache import console, units
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@click.argument("model", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("url", shell_complete=places)
@click.option("--replace", is_flag=True, help="Replace another model that is at the URL.")
@as_json
def push(model: Path, url: str, replace: bool, as_json: bool) -> None:
    """Send a model and its card to a URL: only what is missing there.

    URL is hf://USER/NAME, one commit by the hub's own library, or of any kind that fsspec knows: s3://, gs://,
    sftp://, file:// and others. Credentials are those of its library, such as HF_TOKEN or AWS_ACCESS_KEY_ID. The same
    command goes on where it was cut off.
    """
    from hskcache.move.model import model_files, push_model

    total = sum(path.stat().st_size for path in model_files(model))
    with console.advancing("push", total, "bytes") as advance:
        pushed = push_model(model, url, replace, advance)
    if as_json:
        console.print_json({"model": str(model), **asdict(pushed)})
    console.say(
        f"{pushed.url} holds the model: {counted(pushed.num_sent, 'file')} sent "
        f"({units.human_bytes(pushed.bytes_sent)}), {pushed.num_there} were there"
    )
