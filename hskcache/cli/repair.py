"""``hskcache repair``: mend what is damaged of a cache, and nothing else."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.build.request import Texts
from hskcache.cli.options import cache_argument, texts
from hskcache.completion import fields, places
from hskcache.counted import counted
from hskcache.errors import CacheError, MismatchError, SpecError
from hskcache.nearest import meant
from hskcache.options import as_json, device, gathered
from hskcache.runtime import require_teacher_extra

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.cache import Cache
    from hskcache.repair.mending import Damage
    from hskcache.store.ledger import Ledger
    from hskcache.store.manifest import Manifest
    from hskcache.store.pages import IndexFile
    from hskcache.store.record import Record
    from hskcache.verify import Problem, Report

_SINCE = "the files that are mended"
Reasons = dict[tuple[str, int], str]


@dataclass(frozen=True)
class _Means:
    """Means of mending that the user has given."""

    other: str | None
    teacher: str | None
    texts: Texts
    field: str | None
    device: str
    remove_extra: bool


@click.command()
@cache_argument
@click.option(
    "--from",
    "other",
    metavar="DIR_OR_URL",
    help="Another copy of the cache; what is taken from it is verified.",
    shell_complete=places,
)
@click.option(
    "--teacher",
    metavar="DIR_OR_ID",
    help="The teacher it was built with, to compute what is damaged again.",
    shell_complete=places,
)
@texts
@click.option(
    "--field",
    metavar="NAME",
    help="Mend this field alone; an added one needs its --teacher and no --data.",
    shell_complete=fields,
)
@click.option("--remove-extra", is_flag=True, help="Remove files that do not belong to the cache.")
@device
@as_json
@gathered(_Means, "means")
def repair(cache: Path, means: _Means, as_json: bool) -> None:
    """Find what is damaged, and mend that alone; exit 1 if something remains.

    The manifest follows from its copy, records and leftovers from the manifest; files come from another copy of the
    cache, or the teacher computes them again. Nothing is put in place that is not what the manifest says, so the cache
    keeps its id.
    """
    if means.teacher is None and means.texts.are_given:
        raise SpecError("--data and --corpus are run through a teacher; give --teacher, too, or leave them out")
    before = _checked(cache, means)
    problems = before.problems
    if not as_json:
        for problem in problems:
            click.echo(f"{problem.file} {problem.what}")
    reasons = _tidy(cache) if before.ok else _mend(cache, means, problems)
    after = before if before.ok else _checked(cache, means)
    _tell(cache, (before, after), reasons, as_json)
    if not after.ok:
        sys.exit(1)


def _checked(cache: Path, means: _Means) -> "Report":
    """Report of ``verify``; a manifest that is missing is damage where there is a copy to mend it from."""
    from hskcache.store.publishing import MANIFEST
    from hskcache.store.survey import Complete, survey
    from hskcache.verify import Problem, Report, num_shard_bytes, verify

    is_lost = cache.is_dir() and not isinstance(survey(cache), Complete)
    if is_lost and means.other is not None and any(cache.glob("*/[0-9]*.zarr.zip")):
        problem = Problem(field=None, shard=None, file=MANIFEST, what="is missing")
        return Report(checked_bytes=0, num_rows=0, skipped={}, problems=[problem])
    with console.advancing("verify", num_shard_bytes(cache), "bytes") as advance:
        return verify(cache, advance)


def _tidy(cache: Path) -> Reasons:
    """Remove what a repair has left that was cut off when all was mended, and locks of the dead."""
    from hskcache.repair.mending import REPAIR, clear, repairing
    from hskcache.store.growth import clear_locks
    from hskcache.store.ledger import Ledger

    clear_locks(cache)
    if (cache / REPAIR).exists():
        with repairing(Ledger(cache)):
            clear(Ledger(cache))
    return {}


def _mend(cache: Path, means: _Means, problems: "list[Problem]") -> Reasons:
    """Mend what can be; returns by field and shard why some of it cannot."""
    from hskcache.disk import writing_to
    from hskcache.repair.mending import bad_pages, clear, damage_of, mend_from_manifest, mend_manifest, repairing
    from hskcache.repair.replica import Replica
    from hskcache.store.ledger import Ledger
    from hskcache.store.standing import is_foreign
    from hskcache.store.survey import Complete

    ledger = Ledger(cache)
    with writing_to(cache, _SINCE), repairing(ledger):
        if _cache_id(cache) is None or (means.other is not None and is_foreign(cache, ledger.intact())):
            if means.other is None:
                return {}
            restored, known = Replica(means.other).restore_manifest(ledger)
            console.say(f"{cache} has a manifest again: id {restored.cache_id[:12]}, {known}")
            problems = _checked(cache, means).problems
        if Complete(cache).is_rivalled:
            return {}
        manifest = ledger.intact()
        mend_manifest(ledger)
        if bad := bad_pages(ledger, manifest):
            if not all(_mend_page(ledger, manifest, file, means.other) for file in bad):
                return {}
            problems = _checked(cache, means).problems
        if means.field is not None and means.field not in manifest.fields:
            near = meant(means.field, manifest.fields)
            raise MismatchError(f"{cache} has no field {means.field}; it has {', '.join(manifest.fields)}{near}")
        damage = damage_of(ledger, manifest, problems).of_field(means.field)
        mend_from_manifest(ledger, damage, means.remove_extra)
        reasons = _mend_files(cache, manifest, damage, means)
        clear(ledger)
        return reasons


def _mend_page(ledger: "Ledger", manifest: "Manifest", file: "IndexFile", other: str | None) -> bool:
    """Take a page of records from the other copy, or write it anew from the shards that it is of."""
    from hskcache.repair.mending import rebuild_page
    from hskcache.repair.replica import Replica

    if other is not None and Replica(other).take_page(ledger, file):
        return True
    return rebuild_page(ledger, manifest, file)


def _mend_files(cache: Path, manifest: "Manifest", damage: "Damage", means: _Means) -> Reasons:
    from hskcache.repair.mending import drop_from_tokenizer, mend_tokenizer
    from hskcache.store.beside import is_file_of
    from hskcache.store.ledger import Ledger

    ledger = Ledger(cache)
    left = [record for record in damage.shards if not is_file_of(ledger.shard_path(record), record)]
    tokenizer_left = damage.has_bad_tokenizer and not (means.remove_extra and drop_from_tokenizer(ledger, manifest))
    reasons: Reasons = {}
    if means.other is not None and (left or tokenizer_left):
        from hskcache.repair.replica import Replica

        replica = Replica(means.other)
        if tokenizer_left:
            files = replica.tokenizer_files(manifest)
            tokenizer_left = not mend_tokenizer(ledger, manifest, files, means.remove_extra)
        with console.advancing("fetch", sum(record.num_bytes for record in left), "bytes") as advance:
            taken, reasons = replica.take(ledger, left, advance)
        left = [record for record in left if record not in taken]
    if means.teacher is not None and (left or tokenizer_left):
        reasons |= _compute(cache, manifest, (left, tokenizer_left), means)
    return reasons


def _compute(cache: Path, manifest: "Manifest", wanted: "tuple[list[Record], bool]", means: _Means) -> Reasons:
    from hskcache.cache import Cache

    assert means.teacher is not None
    require_teacher_extra()
    from hskcache.repair.mending import mend_tokenizer
    from hskcache.repair.recompute import addition_source, recompute, source_of
    from hskcache.store.ledger import Ledger
    from hskcache.store.shelf import Directory

    opened = Cache(manifest, Directory(cache))
    left, tokenizer_left = wanted
    if means.field in manifest.added:
        source = addition_source(_added_teacher(opened, means.field, means), opened, means.field)
    else:
        job = _own_job(opened, means.teacher, means)
        source = source_of(job, opened)
        if tokenizer_left:
            mend_tokenizer(Ledger(cache), manifest, job.tokenizer.files, means.remove_extra)
    with console.advancing("compute", source.num_rows) as advance:
        return recompute(source, opened, left, advance)[1]


def _own_job(cache: "Cache", teacher: str, means: _Means) -> "Job":
    from hskcache.cli.parts import make_part_job
    from hskcache.repair.mending import REPAIR
    from hskcache.store.survey import SPOOL

    if not means.texts.are_given:
        added = ", ".join(cache.manifest.added)
        other = f", or for an added field ({added}) --field" if added else ""
        raise SpecError(f"--teacher computes the rows of --data or --corpus again; give that{other}")
    return make_part_job(cache, teacher, means.device, means.texts, cache.root / REPAIR / SPOOL)


def _added_teacher(cache: "Cache", field: str, means: _Means) -> Any:
    from hskcache.teacher.load import load_for

    if means.texts.are_given:
        raise SpecError(f"the field {field} takes its rows from the cache; leave out --data and --corpus")
    return load_for(str(means.teacher), means.device, cache.manifest.request_for(field))


def _tell(cache: Path, reports: "tuple[Report, Report]", reasons: Reasons, as_json: bool) -> None:
    from hskcache.repair.advice import what_to_do
    from hskcache.store.ledger import Ledger

    before, after = reports
    remaining = {problem.file for problem in after.problems}
    mended = [problem for problem in before.problems if problem.file not in remaining]
    advised = [(problem, what_to_do(Ledger(cache), problem, reasons)) for problem in after.problems]
    if as_json:
        console.print_json(
            {
                "cache": str(cache),
                "cache_id": _cache_id(cache),
                "mended": [problem.model_dump() for problem in mended],
                "remaining": [{**problem.model_dump(), "advice": words} for problem, words in advised],
                "ok": after.ok,
            }
        )
    else:
        for problem, words in advised:
            click.echo(f"{problem.file} remains{f': it {words}' if words else ''}")
    if before.ok:
        console.say(f"{cache}: nothing to repair")
        return
    files = len({problem.file for problem in mended})
    left = counted(len(after.problems), "problem")
    remain = f"{left} {'remains' if len(after.problems) == 1 else 'remain'}"
    outcome = f"whole, id {(_cache_id(cache) or '')[:12]}" if after.ok else remain
    console.say(f"{cache}: {counted(files, 'file')} mended; {outcome}")


def _cache_id(cache: Path) -> str | None:
    from hskcache.store.ledger import Ledger

    try:
        return Ledger(cache).intact().cache_id
    except CacheError:
        return None
