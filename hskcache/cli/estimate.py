"""``hskcache estimate``: bytes and time of a build, before it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from hskcache import console
from hskcache.cli.options import job_options, json_option
from hskcache.text.layout import Layout


@click.command()
@job_options
@json_option
def estimate(teacher: str, layout: Layout, as_json: bool, **given: Any) -> None:
    """Say how large a cache will be and how long its build will take, from a sample of the rows.

    A corpus is tokenized for it, into a temporary folder (TMPDIR), which needs about as much room as the text.
    """
    from hskcache.cli.jobs import Rows, make_corpus_build, make_job, packed, spec_for
    from hskcache.describe import asked

    rows = Rows(given["data"], layout, given["corpus"])
    rows.check()
    spec = spec_for(given, teacher, rows)
    with TemporaryDirectory(prefix="hskcache-") as folder:
        if rows.corpus is None:
            job = make_job(teacher, given["device"], spec, rows)
        else:
            job = packed(make_corpus_build(teacher, given["device"], spec, rows.corpus), Path(folder))
        # Only now: make_job tells better than an ImportError that torch is missing.
        from hskcache.build.estimate import estimate as sample

        guess = sample(job)
    kept = asked(job.spec)
    if as_json:
        console.print_json({**kept, **guess._asdict()})
        return
    click.echo(f"rows      {guess.num_rows:,} in {guess.num_shards} shards of {job.layout.shard_rows:,}")
    if rows.corpus is not None:
        click.echo(f"packing   {job.spec.packing.told}")
    click.echo(f"tokens    {guess.num_tokens:,}")
    (first, *others) = kept.items()
    click.echo("; ".join([f"{first[0]:<9} {first[1]}", *(f"{flag} {value}" for flag, value in others)]))
    for field, num_bytes in guess.num_bytes.items():
        most = console.human_bytes(guess.most_bytes[field])
        click.echo(f"{field:<9} about {console.human_bytes(num_bytes)}, at most {most}")
    total = sum(guess.num_bytes.values())
    full = console.human_bytes(guess.full_hidden_bytes)
    click.echo(f"total     about {console.human_bytes(total)}; all hidden states of all layers in float32: {full}")
    click.echo(f"time      about {guess.seconds:,.0f} s for the teacher on {job.teacher.device}")
