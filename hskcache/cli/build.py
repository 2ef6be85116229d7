"""``hskcache build``: run the teacher once and write the cache."""

from pathlib import Path
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
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The cache, a directory.")
@json_option
def build(teacher: str, data: str, layout: Layout, out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher once over the rows and write a cache.

    An interrupted build goes on with the same command and ends with the same bytes.
    """
    from hskcache.cli.jobs import Rows, make_job

    job = make_job(teacher, given["device"], build_spec(given), Rows(data, layout))
    # Only now: make_job tells better than an ImportError that torch is missing.
    from hskcache.teacher.build import build as run
    from hskcache.teacher.build import finished

    total = len(job.examples)
    manifest = finished(job, out)
    what = "already complete" if manifest is not None else "complete"
    if manifest is None:
        with console.progress("rows") as bar:
            task = bar.add_task("build", total=total)
            manifest = run(job, out, lambda rows: bar.advance(task, rows))
    num_bytes = {field: sum(record.num_bytes for record in records) for field, records in manifest.shards.items()}
    if as_json:
        console.print_json(
            {"cache": str(out), "cache_id": manifest.cache_id, "num_rows": total, "num_bytes": num_bytes}
        )
    size = console.human_bytes(sum(num_bytes.values()))
    console.say(f"{out} is {what}: {total} rows, {size}, id {manifest.cache_id[:12]}")
