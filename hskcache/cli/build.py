"""``hskcache build``: run the teacher once and write the cache, or add a field to one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, runtime
from hskcache.cli.options import job_options, json_option
from hskcache.cli.outcome import facts, num_bytes, reached, tell_agreement, tell_skipped
from hskcache.errors import SpecError
from hskcache.store.kinds import knowledge
from hskcache.text.layout import Layout

if TYPE_CHECKING:
    from hskcache.build.nonfinite import OnNonfinite
    from hskcache.cli.jobs import Rows
    from hskcache.store.manifest import Manifest


@click.command()
@job_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The cache, a directory.")
@click.option(
    "--add-field",
    "kind",
    type=click.Choice(knowledge()),
    help="Add a field to the complete cache --out: what --teacher knows of the same rows, which the cache holds.",
)
@click.option("--name", metavar="NAME", help="With --add-field: name of the field, such as s30.")
@click.option(
    "--on-nonfinite",
    type=click.Choice(("fail", "skip")),
    default="fail",
    show_default=True,
    help="What becomes of a row with NaN or infinity: it ends the build, or is left out, listed, and never trained on.",
)
@json_option
def build(
    teacher: str, layout: Layout, out: Path, kind: str | None, name: str | None, as_json: bool, **given: Any
) -> None:
    """Run the teacher once over the rows of --data or --corpus and write a cache.

    With --add-field the rows are those of the complete cache --out, and what is kept of them follows from the flags as
    in any build. An interrupted build goes on with the same command and ends with the same bytes.

    Several processes divide the shards, whether torchrun or accelerate launch starts them or you do, in terminals or on
    machines that share the folder; each takes up what another one has left that died.
    """
    from hskcache.cli.jobs import Rows

    rows = Rows(given["data"], layout, given["corpus"])
    given["device"] = runtime.own_device(given["device"])
    if kind is not None:
        with console.going_on_from(lambda: reached(out, name)):
            manifest, is_new = _added(teacher, out, (kind, name), rows, given)
    elif name is not None:
        raise SpecError(f"--name {name} belongs to --add-field KIND; give that, or leave it out")
    else:
        rows.check()
        with console.going_on_from(lambda: reached(out)):
            manifest, is_new = _built(teacher, out, rows, given)
    _tell(manifest, out, name, is_new, as_json)


def _tell(manifest: "Manifest", out: Path, name: str | None, is_new: bool, as_json: bool) -> None:
    """Tell of the content of a cache; ``name`` is that of a field that was added."""
    if as_json:
        console.print_json(facts(manifest, out))
    tell_skipped(manifest, out, name)
    tell_agreement(manifest, name)
    sizes = num_bytes(manifest)
    what = "complete" if is_new else "already complete"
    if name is not None:
        has = "now has" if is_new else "already has"
        what = f"{has} the field {name} ({console.human_bytes(sizes[name])})"
    else:
        what = f"is {what}"
    size = console.human_bytes(sum(sizes.values()))
    console.say(f"{out} {what}: {manifest.request.num_rows} rows, {size}, id {manifest.cache_id[:12]}")


def _built(teacher: str, out: Path, rows: "Rows", given: dict[str, Any]) -> "tuple[Manifest, bool]":
    """The manifest of the complete cache, and whether anything was left to do."""
    from hskcache.cli.jobs import check_room, make_corpus_build, make_job, packed, spec_for

    device, spec = given["device"], spec_for(given, teacher, rows, out)
    check_room(out)
    if rows.corpus is None:
        job = make_job(teacher, device, spec, rows)
    else:
        corpus = make_corpus_build(teacher, device, spec, rows.corpus, out)
        if (manifest := corpus.finished(out)) is not None:
            return manifest, False
        from hskcache.build.corpus import packing

        with packing(out) as spool:
            # Meanwhile another process may have packed the rows, or even finished the cache.
            if (manifest := corpus.written(out)) is not None:
                return manifest, False
            job = packed(corpus, spool)
        otherwise = "" if "pairs" in spec.packing.model_fields_set else "; --pairs says otherwise"
        console.say(f"{rows.corpus}: {len(job.rows):,} rows, {job.spec.packing.told}{otherwise}")
    # Only now: make_job tells better than an ImportError that torch is missing.
    from hskcache.build.build import build as run
    from hskcache.build.build import finished

    if (manifest := finished(job, out)) is not None:
        return manifest, False
    policy: OnNonfinite = given["on_nonfinite"]
    with console.progress("rows") as bar:
        task = bar.add_task("build", total=len(job.rows))
        return run(job, out, lambda count: bar.advance(task, count), policy), True


def _added(
    teacher: str, out: Path, field: "tuple[str, str | None]", rows: "Rows", given: dict[str, Any]
) -> "tuple[Manifest, bool]":
    """The manifest of the cache with the field in it, and whether anything was left to do."""
    from hskcache.cli.jobs import make_addition

    addition = make_addition(teacher, out, field, rows, given)
    from hskcache.build.addition import add_field, added

    if (manifest := added(addition)) is not None:
        return manifest, False
    with console.progress("rows") as bar:
        task = bar.add_task(addition.name, total=len(addition.job.rows))
        return add_field(addition, lambda count: bar.advance(task, count), given["on_nonfinite"]), True
