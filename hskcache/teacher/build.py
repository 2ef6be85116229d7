"""Build a cache: one run of the teacher over tokenized rows, committed shard by shard, resumable at any moment."""

from pathlib import Path

from hskcache.disk import writing_to
from hskcache.runtime import environment
from hskcache.store.files import TEMPORARY_SUFFIX, tokenizer_digest, write_atomic
from hskcache.store.ledger import BUILDING, MANIFEST, TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.teacher.constants import extractor_for
from hskcache.teacher.job import Job, describe_job, prepare_job
from hskcache.teacher.writing import SINCE, Progress, Writing

__all__ = ["Job", "build", "describe_job", "extractor_for", "finished", "is_complete", "prepare_job"]


def build(job: Job, out: Path, on_rows: Progress | None = None) -> Manifest:
    """Write the cache, or finish one that was cut off; a complete one is left as it is.

    Args:
        job: what to build.
        out: the cache's directory; made if missing.
        on_rows: called with the number of rows of each piece of work that is done, resumed rows included.

    Raises:
        MismatchError: ``out`` holds something else.
        TeacherError: the teacher gives values that are not finite, or its device has too little memory.
        CacheError: the disk is too small or cannot be written.
    """
    done = finished(job, out)
    if done is not None:
        return done
    ledger = Ledger(out)
    fields = job.fields.stored()
    writing = Writing(job, ledger, {name: name for name in fields})
    with writing_to(out, SINCE):
        writing.check_space()
        ledger.begin(job.request)
        for name, data in job.tokenizer.files.items():
            write_atomic(out / TOKENIZER / name, data)
        writing.write(on_rows)
        return ledger.finish(job.request, fields, environment(job.teacher.device))


def finished(job: Job, out: Path) -> Manifest | None:
    """The manifest of the cache that a build would write, if it stands here with all its files, else None.

    The size of every shard is looked at, not its content; ``hskcache verify`` does that.

    Raises:
        DamageError: the manifest cannot be read.
    """
    if not (out / MANIFEST).exists() or Ledger(out).manifest().request_digest != job.request.digest:
        return None
    return is_complete(out, job.tokenizer.sha256)


def is_complete(out: Path, tokenizer_sha256: str) -> Manifest | None:
    """The manifest of the cache in ``out`` if all its files stand there and nothing of its build is left, else None.

    Fields that were added later are no part of the build.

    Raises:
        DamageError: the manifest cannot be read, or was edited.
    """
    # A kill right after the manifest leaves this, and finishing again removes it.
    if not (out / MANIFEST).exists() or (out / BUILDING).exists():
        return None
    ledger = Ledger(out)
    manifest = ledger.intact()
    folders = [out, out / TOKENIZER, *(out / name for name in manifest.own_fields)]
    if any(any(folder.glob(f"*{TEMPORARY_SUFFIX}")) for folder in folders):
        return None
    records = (record for record in manifest.records if record.field in manifest.own_fields)
    if not all(ledger.is_committed(record.field, record.shard) for record in records):
        return None
    whole = (out / TOKENIZER).is_dir() and tokenizer_digest(out / TOKENIZER) == tokenizer_sha256
    return manifest if whole else None
