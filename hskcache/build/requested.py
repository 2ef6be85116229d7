"""A build from what it is asked for with to its end: the doors of the command line and of Python."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hskcache import console, processes
from hskcache.build.language import make_language_job, reads_language
from hskcache.build.places import site_at
from hskcache.build.prepare import (
    BegunCache,
    make_addition,
    make_corpus_build,
    make_job,
    packed,
    with_copies,
    with_length,
)
from hskcache.build.request import AdditionRequest, BuildRequest
from hskcache.counted import counted
from hskcache.runtime import own_device, require_teacher_extra
from hskcache.store.manifest import Manifest


class BuildOutcome(NamedTuple):
    """A complete cache, or one of which a part is written.

    Attributes:
        manifest: its manifest; None where other parts are not written yet.
        is_new: whether anything was left to do.
    """

    manifest: Manifest | None
    is_new: bool


def build(request: BuildRequest, out: Path | str) -> BuildOutcome:
    """Run the teacher and write the cache; the same request goes on where a build was cut off.

    Args:
        request: the cache.
        out: its directory, or the URL of a bucket.

    Raises:
        CacheError: something is missing, damaged or does not fit, or the disk is too small.
    """
    require_teacher_extra()
    site = site_at(out, request.part is not None)
    request, is_language = replace(request, device=own_device(request.device)), reads_language(request)
    found = site.request()
    begun = None if found is None else BegunCache(site.name, found)
    request = with_copies(with_length(request, is_language, begun), begun)
    site.require_room()
    if is_language:
        job = make_language_job(request, site.spool_folder)
    elif request.texts.corpus is None:
        job = make_job(request, spool=site.spool_folder)
    else:
        corpus = make_corpus_build(request, begun)
        if (manifest := corpus.finished(site)) is not None:
            return BuildOutcome(manifest, False)
        with site.packing() as spool:
            # Meanwhile another process may have packed the rows, or even finished the cache.
            if (manifest := corpus.written(site)) is not None:
                return BuildOutcome(manifest, False)
            job = packed(corpus, spool)
        otherwise = "" if "pairs" in request.spec.packing.model_fields_set else "; --pairs says otherwise"
        console.say(f"{corpus.path}: {counted(len(job.rows), 'row')}, {job.spec.packing.told}{otherwise}")
    # Only now: make_job tells better than an ImportError that torch is missing.
    from hskcache.build.build import build_part as run
    from hskcache.build.build import finished
    from hskcache.build.scoring import evaluation_rows, scored

    evaluated = evaluation_rows(job, request.eval_data, request.texts.layout, site)
    if is_new := (manifest := finished(job, site)) is None:
        with console.progress("rows") as bar:
            task = bar.add_task("build", total=len(job.rows))
            manifest = run(job, site, lambda count: bar.advance(task, count), request.on_nonfinite, request.part)
    if manifest is not None and processes.is_first() and (evaluated or is_new):
        manifest = scored(job, site, evaluated)
    return BuildOutcome(manifest, is_new)


def add_field(request: AdditionRequest) -> BuildOutcome:
    """Run a teacher over the rows of a complete cache and add a field; the same request goes on where it was cut off.

    Raises:
        CacheError: something is missing, damaged or does not fit, or the disk is too small.
    """
    addition = make_addition(replace(request, device=own_device(request.device)))
    from hskcache.build.addition import add_field as run
    from hskcache.build.addition import added

    if (manifest := added(addition)) is not None:
        return BuildOutcome(manifest, False)
    with console.progress("rows") as bar:
        task = bar.add_task(addition.name, total=len(addition.job.rows))
        return BuildOutcome(run(addition, lambda count: bar.advance(task, count), request.on_nonfinite), True)
