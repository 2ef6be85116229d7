"""``hskcache estimate``: bytes and time of a build, before it."""

from typing import Any

import click

from hskcache import console
from hskcache.cli.options import build_spec, data_option, device_option, json_option, spec_options, teacher_option
from hskcache.text.layout import Layout, layout


@click.command()
@teacher_option
@data_option
@layout
@spec_options
@device_option
@json_option
def estimate(teacher: str, data: str, layout: Layout, as_json: bool, **given: Any) -> None:
    """Say how large a cache will be and how long its build will take, from a sample of the rows."""
    from hskcache.cli.jobs import Rows, make_job
    from hskcache.spec import format_keep

    job = make_job(teacher, given["device"], build_spec(given), Rows(data, layout))
    # Only now: make_job tells better than an ImportError that torch is missing.
    from hskcache.teacher.estimate import estimate as sample

    guess = sample(job)
    if as_json:
        console.print_json({"keep": format_keep(job.spec.hidden), **guess._asdict()})
        return
    click.echo(f"rows      {guess.num_rows:,} in {guess.num_shards} shards of {job.layout.shard_rows:,}")
    click.echo(f"tokens    {guess.num_tokens:,}")
    click.echo(f"keep      {format_keep(job.spec.hidden)}")
    for field, num_bytes in guess.num_bytes.items():
        most = console.human_bytes(guess.most_bytes[field])
        click.echo(f"{field:<9} about {console.human_bytes(num_bytes)}, at most {most}")
    total = sum(guess.num_bytes.values())
    full = console.human_bytes(guess.full_hidden_bytes)
    click.echo(f"total     about {console.human_bytes(total)}; all hidden states of all layers in float32: {full}")
    click.echo(f"time      about {guess.seconds:,.0f} s for the teacher on {job.teacher.device}")
