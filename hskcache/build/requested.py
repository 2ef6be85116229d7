"""A build from what it is asked for with to its end: the doors of the command line and of Python."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hskcache import console, processes
from hskcache.build.language import make_language_job, reads_language
from hskcache.build.prepare import (
    check_room,
    make_addition,
    make_corpus_build,
    make_job,
    packed,
    with_copies,
    with_length,
)
from hskcache.build.request import AdditionRequest, BuildRequest
from hskcache.counted import counted
from hskcache.disk import spool_folder
from hskcache.runtime import own_device
from hskcache.store.manifest import Manifest


class BuildOutcome(NamedTuple):
    """A complete cache.

    Attributes:
        manifest: its manifest.
        is_new: whether anything was left to do.
    """

    manifest: Manifest
    is_new: bool


def build(request: BuildRequest, out: Path) -> BuildOutcome:
    """Run the teacher and write the cache; the same request goes on where a build was cut off.

    Args:
        request: the cache.
        out: its directory.

    Raises:
        CacheError: something is missing, damaged or does not fit, or the disk is too small.
    """
    request, is_language = replace(request, device=own_device(request.device)), reads_language(request)
    request = with_copies(with_length(request, is_language, out), out)
    check_room(out)
    if is_language:
        job = make_language_job(request, spool_folder(out))
    elif request.texts.corpus is None:
        job = make_job(request, spool=spool_folder(out))
    else:
        corpus = make_corpus_build(request, out)
        if (manifest := corpus.finished(out)) is not None:
            return BuildOutcome(manifest, False)
        from hskcache.build.corpus import packing

        with packing(out) as spool:
            # Meanwhile another process may have packed the rows, or even finished the cache.
            if (manifest := corpus.written(out)) is not None:
                return BuildOutcome(manifest, False)
            job = packed(corpus, spool)
        otherwise = "" if "pairs" in request.spec.packing.model_fields_set else "; --pairs says otherwise"
        console.say(f"{corpus.path}: {counted(len(job.rows), 'row')}, {job.spec.packing.told}{otherwise}")
    # Only now: make_job tells better than an ImportError that torch is missing.
    from hskcache.build.build import build as run
    from hskcache.build.build import finished
    from hskcache.build.scoring import evaluation_rows, scored

    evaluated = evaluation_rows(job, request.eval_data, request.texts.layout, out)
    if is_new := (manifest := finished(job, out)) is None:
        with console.progress("rows") as bar:
            task = bar.add_task("build", total=len(job.rows))
            manifest = run(job, out, lambda count: bar.advance(task, count), request.on_nonfinite)
    if processes.is_first() and (evaluated or is_new):
        manifest = scored(job, out, evaluated)
    assert manifest is not None
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
