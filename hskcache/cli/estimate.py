"""``hskcache estimate``: bytes and time of a build, before it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from hskcache import console, units
from hskcache.build.keeping import Keeping, build_request
from hskcache.build.request import Texts
from hskcache.cli.keeping import job_options
from hskcache.counted import counted
from hskcache.options import as_json


@click.command()
@job_options
@as_json
def estimate(teacher: str, texts: Texts, keeping: Keeping, device: str, as_json: bool) -> None:
    """Say how large a cache will be, how long its build will take and how much memory, from a sample of the rows.

    A corpus is tokenized for it, into a temporary folder (TMPDIR), which needs about as much room as the text.
    """
    from hskcache.build.prepare import prepare_build
    from hskcache.describe import asked

    request = build_request(teacher, texts, keeping, device)
    with TemporaryDirectory(prefix="hskcache-") as folder:
        job = prepare_build(request, Path(folder))
        # Only now: prepare_build tells better than an ImportError that torch is missing.
        from hskcache.build.estimate import estimate as sample
        from hskcache.build.memory import measure_memory

        guess, memory = sample(job), measure_memory(job)
    options = asked(job.spec)
    if as_json:
        told = None if memory is None else memory.model_dump()
        console.print_json({**options, **guess._asdict(), "memory": told})
        return
    click.echo(f"rows      {guess.num_rows:,} in {counted(guess.num_shards, 'shard')} of {job.layout.shard_rows:,}")
    if texts.corpus is not None:
        click.echo(f"packing   {job.spec.packing.told}")
    click.echo(f"tokens    {guess.num_tokens:,}")
    (first, *others) = options.items()
    click.echo("; ".join([f"{first[0]:<9} {first[1]}", *(f"{flag} {value}" for flag, value in others)]))
    for field, num_bytes in guess.num_bytes.items():
        most = units.human_bytes(guess.most_bytes[field])
        click.echo(f"{field:<9} about {units.human_bytes(num_bytes)}, at most {most}")
    total = sum(guess.num_bytes.values())
    full = units.human_bytes(guess.full_hidden_bytes)
    click.echo(f"total     about {units.human_bytes(total)}; all hidden states of all layers in float32: {full}")
    click.echo(f"time      about {guess.seconds:,.0f} s for the teacher on {job.teacher.device}")
    if memory is not None:
        click.echo(f"memory    {memory.told}")
