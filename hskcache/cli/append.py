"""``hskcache append``: more rows for a finished cache."""

import shutil
from pathlib import Path
from typing import Literal

import click

from hskcache import console
from hskcache.build.request import Texts
from hskcache.cli.options import cache_argument, on_nonfinite_option, teacher_option, texts
from hskcache.cli.outcome import facts, tell_agreement, tell_skipped
from hskcache.counted import counted
from hskcache.options import as_json, device
from hskcache.runtime import require_teacher_extra

_SPOOL = ".appending"


@click.command()
@cache_argument
@teacher_option
@texts
@click.option("--again", is_flag=True, help="Append rows that the cache has already, so that it has them twice.")
@on_nonfinite_option
@device
@as_json
def append(
    cache: Path,
    teacher: str,
    texts: Texts,
    again: bool,
    on_nonfinite: Literal["fail", "skip"],
    device: str,
    as_json: bool,
) -> None:
    """Run the teacher over more rows and append them to a finished cache, as shards of their own.

    Teacher, tokenizer and classes must be those of the cache, and what is kept is what it keeps. Nothing that is there
    changes, and readers see the old cache until the new rows are complete. An interrupted run goes on with the same
    command.
    """
    from hskcache.cache import open_cache
    from hskcache.cli.parts import make_part_job
    from hskcache.store.appending import check_may_grow, require_nobody
    from hskcache.store.ledger import Ledger

    opened = open_cache(cache)
    check_may_grow(cache, opened.manifest)
    # Whoever appends already is told of before the rows are tokenized, which may take hours.
    require_nobody(Ledger(cache))
    require_teacher_extra()
    from hskcache.build.append import append as run
    from hskcache.build.append import check_append

    job = make_part_job(opened, teacher, device, texts, cache / _SPOOL)
    check_append(job, opened, again)
    with console.advancing("append", len(job.rows)) as advance:
        manifest = run(job, opened, advance, again, on_nonfinite)
    shutil.rmtree(cache / _SPOOL, ignore_errors=True)
    total = manifest.request.num_rows
    first_row = total - len(job.rows)
    if as_json:
        console.print_json({**facts(manifest, cache, first_row), "num_appended": len(job.rows)})
    tell_skipped(manifest, cache, first_row=first_row)
    tell_agreement(manifest)
    console.say(f"{cache}: {counted(len(job.rows), 'row')} appended, {total} in all, id {manifest.cache_id[:12]}")
