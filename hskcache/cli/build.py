"""``hskcache build``: run the teacher once and write the cache, or add a field to one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from hskcache import console
from hskcache.cli.options import build_spec, job_options, json_option
from hskcache.errors import SpecError
from hskcache.spec import KnowledgeName
from hskcache.text.layout import Layout

if TYPE_CHECKING:
    from hskcache.cli.jobs import Rows
    from hskcache.spec import Spec
    from hskcache.store.manifest import Manifest


@click.command()
@job_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The cache, a directory.")
@click.option(
    "--add-field",
    "kind",
    type=click.Choice(get_args(KnowledgeName)),
    help="Add a field to the complete cache --out: what --teacher knows of the same rows, which the cache holds.",
)
@click.option("--name", metavar="NAME", help="With --add-field: name of the field, such as s30.")
@json_option
def build(
    teacher: str, layout: Layout, out: Path, kind: KnowledgeName | None, name: str | None, as_json: bool, **given: Any
) -> None:
    """Run the teacher once over the rows of --data or --corpus and write a cache.

    With --add-field the rows are those of the complete cache --out, and what is kept of them follows from the flags as
    in any build. An interrupted build goes on with the same command and ends with the same bytes.
    """
    from hskcache.cli.jobs import Rows

    rows = Rows(given["data"], layout, given["corpus"])
    if kind is not None:
        manifest, is_new = _added(teacher, out, (kind, name), rows, given)
    elif name is not None:
        raise SpecError(f"--name {name} belongs to --add-field KIND; give that, or leave it out")
    else:
        rows.check()
        manifest, is_new = _built(teacher, given["device"], build_spec(given), rows, out)
    num_bytes = {field: sum(record.num_bytes for record in records) for field, records in manifest.shards.items()}
    total = manifest.request.num_rows
    if as_json:
        console.print_json(
            {"cache": str(out), "cache_id": manifest.cache_id, "num_rows": total, "num_bytes": num_bytes}
        )
    what = "complete" if is_new else "already complete"
    if name is not None:
        has = "now has" if is_new else "already has"
        what = f"{has} the field {name} ({console.human_bytes(num_bytes[name])})"
    else:
        what = f"is {what}"
    size = console.human_bytes(sum(num_bytes.values()))
    console.say(f"{out} {what}: {total} rows, {size}, id {manifest.cache_id[:12]}")


def _built(teacher: str, device: str, spec: "Spec", rows: "Rows", out: Path) -> "tuple[Manifest, bool]":
    """The manifest of the complete cache, and whether anything was left to do."""
    from hskcache.cli.jobs import make_corpus_build, make_job, packed

    if rows.corpus is None:
        job = make_job(teacher, device, spec, rows)
    else:
        corpus = make_corpus_build(teacher, device, spec, rows.corpus)
        if (manifest := corpus.finished(out)) is not None:
            return manifest, False
        from hskcache.teacher.corpus import spool_of

        job = packed(corpus, spool_of(out))
    # Only now: make_job tells better than an ImportError that torch is missing.
    from hskcache.teacher.build import build as run
    from hskcache.teacher.build import finished

    if (manifest := finished(job, out)) is not None:
        return manifest, False
    with console.progress("rows") as bar:
        task = bar.add_task("build", total=len(job.rows))
        return run(job, out, lambda count: bar.advance(task, count)), True


def _added(
    teacher: str, out: Path, field: "tuple[KnowledgeName, str | None]", rows: "Rows", given: dict[str, Any]
) -> "tuple[Manifest, bool]":
    """The manifest of the cache with the field in it, and whether anything was left to do."""
    from hskcache.cli.jobs import make_addition

    addition = make_addition(teacher, out, field, rows, given)
    from hskcache.teacher.addition import add_field, added

    if (manifest := added(addition)) is not None:
        return manifest, False
    with console.progress("rows") as bar:
        task = bar.add_task(addition.name, total=len(addition.job.rows))
        return add_field(addition, lambda count: bar.advance(task, count)), True
