"""``hskcache build``: run the teacher once and write the cache, or add a field to one."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hskcache import console, units
from hskcache.build.keeping import Keeping, build_request, keeping_of
from hskcache.build.request import AdditionRequest, Texts, alone
from hskcache.cli.keeping import job_options
from hskcache.cli.options import BuildPart, CachePlace, on_nonfinite_option
from hskcache.cli.outcome import evaluations, facts, num_bytes, reached, tell_agreement, tell_skipped
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.options import as_json, each_once, profile
from hskcache.store.kinds import knowledge
from hskcache.timeline import recorded

if TYPE_CHECKING:
    from hskcache.build.nonfinite import OnNonfinite
    from hskcache.build.request import WorkerPart
    from hskcache.store.manifest import Manifest


@click.command()
@job_options
@click.option(
    "--out",
    required=True,
    type=CachePlace(path_type=Path),
    metavar="DIR_OR_URL",
    help="The cache: a directory, or the URL of a bucket, such as s3://team/sst2.hsk, where nothing but the shard at "
    "hand is held on this machine.",
)
@click.option(
    "--part",
    type=BuildPart(),
    metavar="I/N",
    help="Write one of N parts of the shards alone, counted from 1, such as 3/64; the last one, or hskcache finish, "
    "completes the cache.",
)
@click.option(
    "--add-field",
    "kind",
    type=click.Choice(knowledge()),
    help="Add a field to the complete cache --out: what --teacher knows of the same rows, which the cache holds.",
)
@click.option("--name", metavar="NAME", help="With --add-field: name of the field, such as s30.")
@click.option(
    "--eval-data",
    multiple=True,
    metavar="FILE",
    callback=each_once,
    help="Labelled rows to score the teacher on once, so that hsktrain fit on the same rows shows its score; they do "
    "not come into the cache. May be repeated.",
    shell_complete=places,
)
@on_nonfinite_option
@profile
@as_json
def build(
    teacher: str,
    texts: Texts,
    keeping: Keeping,
    device: str,
    out: Path | str,
    part: "WorkerPart | None",
    kind: str | None,
    name: str | None,
    eval_data: tuple[str, ...],
    on_nonfinite: "OnNonfinite",
    profile: Path | None,
    as_json: bool,
) -> None:
    """Run the teacher once over the rows of --data or --corpus and write a cache.

    With --add-field the rows are those of the complete cache --out, and what is kept of them follows from the flags as
    in any build. An interrupted build goes on with the same command and ends with the same bytes.

    Several processes divide the shards, whether torchrun or accelerate launch starts them or you do, in terminals or on
    machines that share the folder or the bucket; each takes up what another one has left that died.
    """
    from hskcache.build.requested import add_field
    from hskcache.build.requested import build as run

    if kind is not None:
        if name is None:
            raise SpecError(f"--add-field {kind} needs a name for the field: give --name, such as --name s30")
        if eval_data:
            raise SpecError("--eval-data scores the teacher of a build; leave it out with --add-field")
        if part is not None:
            raise SpecError(f"--part {part} divides a build; leave it out with --add-field")
        if not isinstance(out, Path):
            raise SpecError("--add-field adds to a cache in a folder, and --out is a URL; pull it, add, and push it")
        added = AdditionRequest(teacher, out, kind, name, alone(kind), device, on_nonfinite)
        with recorded(profile), console.going_on_from(lambda: reached(out, name)):
            done = add_field(_addition(added, texts, keeping))
    elif name is not None:
        raise SpecError(f"--name {name} belongs to --add-field KIND; give that, or leave it out")
    else:
        request = build_request(teacher, texts, keeping, device)
        request = replace(request, on_nonfinite=on_nonfinite, eval_data=eval_data, part=part)
        with recorded(profile), console.going_on_from(lambda: reached(out)):
            done = run(request, out)
    if done.manifest is None:
        console.say(
            f"part {part} of {out} is written, and others are not; once all are, the last one completes the cache, or "
            f"hskcache finish {shlex.quote(str(out))}"
        )
        return
    _tell(done.manifest, out, name, done.is_new, as_json)


def _addition(request: AdditionRequest, texts: Texts, keeping: Keeping) -> AdditionRequest:
    """The field with what is to be kept of it, once it is seen that nothing was given that the cache has.

    Raises SpecError if it was, or what is to be kept cannot be.
    """
    if texts != Texts():
        raise SpecError(
            f"--add-field takes its rows from the cache {request.cache}; leave out --data, --corpus, --task, columns, "
            "--copy and --keep-text"
        )
    return keeping_of(request, keeping)


def _tell(manifest: "Manifest", out: Path | str, name: str | None, is_new: bool, as_json: bool) -> None:
    """Tell of the content of a cache; ``name`` is that of a field that was added."""
    if as_json:
        console.print_json(facts(manifest, out))
    tell_skipped(manifest, out, name)
    tell_agreement(manifest, name)
    for line in evaluations(one.model_dump() for one in manifest.evaluations):
        console.say(line)
    sizes = num_bytes(manifest)
    what = "complete" if is_new else "already complete"
    if name is not None:
        has = "now has" if is_new else "already has"
        what = f"{has} the field {name} ({units.human_bytes(sizes[name])})"
    else:
        what = f"is {what}"
    size = units.human_bytes(sum(sizes.values()))
    console.say(f"{out} {what}: {counted(manifest.request.num_rows, 'row')}, {size}, id {manifest.cache_id[:12]}")
