"""Build a cache: one run of the teacher over tokenized rows, committed shard by shard, resumable at any moment.

Several processes may build one cache together: each calls :func:`build` with the same job. They need no connection,
only the folder; however many there are, and whichever of them die, the bytes are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hskcache.build.agreement import agreement_of
from hskcache.build.batching import NEWEST, told, way_of
from hskcache.build.constants import extractor_for
from hskcache.build.job import Job, describe_job, prepare_job
from hskcache.build.nonfinite import OnNonfinite
from hskcache.build.rounds import Progress
from hskcache.build.writing import SINCE, Writing, require_rows
from hskcache.disk import writing_to
from hskcache.store.claims import CLAIMS, Claims, claiming
from hskcache.store.files import make_folder, write_atomic
from hskcache.store.growth import stands
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import is_unswept, manifest_files
from hskcache.store.survey import Complete, survey
from hskcache.store.tokenizer import tokenizer_digest

__all__ = ["Job", "build", "building", "describe_job", "extractor_for", "finished", "is_complete", "prepare_job"]


def build(job: Job, out: Path, on_rows: Progress | None = None, on_nonfinite: OnNonfinite = "fail") -> Manifest:
    """Write the cache, or finish one that was cut off, or help others that are at it; a complete one is left as it is.

    Args:
        job: what to build.
        out: the cache's directory; made if missing.
        on_rows: called with the number of rows of each piece of work that is done, by whichever process, resumed rows
            included.
        on_nonfinite: whether a row with values that are not finite ends the build or is left out.

    Raises:
        MismatchError: ``out`` holds something else.
        TeacherError: the teacher gives values that are not finite, or its device has too little memory.
        CacheError: the disk is too small or cannot be written.
    """
    done = finished(job, out)
    if done is not None:
        return done
    ledger = Ledger(out)
    fields = job.fields
    writing = Writing(job, ledger, {name: name for name in fields}, on_nonfinite=on_nonfinite)
    with writing_to(out, SINCE):
        if ledger.request() is not None:
            ledger.begin(job.request)
        writing.check_space()
        with building(out) as claims:
            with claims.alone():
                if (done := _written(job, out)) is not None:
                    return done
                _begin(ledger, job)
                # A build that was begun by an older version, and shards that were lost, are batched as they were.
                writing = replace(writing, way=way_of(survey(out).environment, str(out)))
            writing.write(on_rows, claims)
            # Until nobody writes any more: what is left half written then was left by a process that died.
            with claims.alone(idle=True):
                require_rows([writing])
                if (done := _written(job, out)) is not None:
                    return done
                return ledger.finish(job.request, fields, writing.environment, agreement_of(job, ledger))


@contextmanager
def building(out: Path) -> Iterator[Claims]:
    """Take part in the build of a cache.

    Args:
        out: the cache's directory; made if missing.

    Raises:
        CacheError: its file system knows no locks, and several processes were started.
        OSError: it cannot be written.
    """
    make_folder(out)
    with claiming(out / CLAIMS) as claims:
        yield claims


def finished(job: Job, out: Path) -> Manifest | None:
    """The manifest of the cache that a build would write, if it stands here with all its files, else None.

    The size of every shard is looked at, not its content; ``hskcache verify`` does that.

    Raises:
        DamageError: the manifest cannot be read.
    """
    # A process that is at it, or died after the manifest, has left this; the last one to leave removes it.
    return None if survey(out).is_claimed() else _written(job, out)


def is_complete(out: Path, tokenizer_sha256: str) -> Manifest | None:
    """The manifest of the cache in ``out`` if all its files stand there and nothing of its build is left, else None.

    Fields that were added later are no part of the build. Whether other processes are still at it is not asked.

    Raises:
        DamageError: the manifest cannot be read, or was edited.
    """
    state = survey(out)
    # A kill right after the manifest leaves something, and finishing again removes it.
    if not isinstance(state, Complete) or state.is_being_built:
        return None
    ledger, manifest = Ledger(out), state.intact()
    if not all(stands(out / name) for name in manifest_files(manifest)):
        return None
    if not set(manifest.request.fields) <= manifest.fields.keys():
        # A part that was pulled without some of the fields.
        return None
    if is_unswept(out, manifest, manifest.own_fields):
        return None
    if state.has_leftovers(["", TOKENIZER, *manifest.own_fields]):
        return None
    if not all(stands(out / index.path) for index in manifest.index if index.field in manifest.own_fields):
        return None
    records = (record for record in manifest.records if record.field in manifest.own_fields)
    if not all(ledger.is_committed(record.field, record.shard) for record in records):
        return None
    whole = (out / TOKENIZER).is_dir() and tokenizer_digest(out / TOKENIZER) == tokenizer_sha256
    return manifest if whole else None


def _written(job: Job, out: Path) -> Manifest | None:
    """The manifest that stands in ``out`` if it is that of the job and nothing is left to do."""
    state = survey(out)
    if not isinstance(state, Complete) or state.manifest.request_digest != job.request.digest:
        return None
    return is_complete(out, job.tokenizer.sha256)


def _begin(ledger: Ledger, job: Job) -> None:
    ledger.begin(job.request, told(NEWEST))
    folder = ledger.root / TOKENIZER
    for name, data in job.tokenizer.files.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            write_atomic(folder / name, data)
