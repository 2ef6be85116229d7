"""Build a cache: one run of the teacher over tokenized rows, committed shard by shard, resumable at any moment."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from hskcache.errors import CacheError, DamageError
from hskcache.store.files import TEMPORARY_SUFFIX, tokenizer_digest, write_atomic
from hskcache.store.ledger import BUILDING, MANIFEST, TOKENIZER, Ledger, read_shard
from hskcache.store.manifest import Manifest
from hskcache.store.record import CONSTANTS
from hskcache.teacher.constants import constants_for, extractor_for
from hskcache.teacher.extract import Arrays, Buffers, Extractor, HostArrays
from hskcache.teacher.job import Job, describe_job, prepare_job
from hskcache.teacher.layout import id_dtype

__all__ = ["Job", "build", "describe_job", "extractor_for", "finished", "prepare_job"]

Progress = Callable[[int], None]


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
    with _writing(out):
        _check_space(job, ledger)
        ledger.begin(job.request)
        for name, data in job.tokenizer.files.items():
            write_atomic(out / TOKENIZER / name, data)
        extractor = extractor_for(job, _constants(job, ledger))
        _write_shards(job, extractor, ledger, on_rows or (lambda _rows: None))
        return ledger.finish(job.request, job.fields.stored(), _environment(job))


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

    Raises:
        DamageError: the manifest cannot be read.
    """
    # A kill right after the manifest leaves these, and finishing again removes them.
    if not (out / MANIFEST).exists() or (out / BUILDING).exists() or any(out.rglob(f"*{TEMPORARY_SUFFIX}")):
        return None
    ledger = Ledger(out)
    manifest = ledger.manifest()
    if not all(ledger.is_committed(record.field, record.shard) for record in manifest.records):
        return None
    whole = (out / TOKENIZER).is_dir() and tokenizer_digest(out / TOKENIZER) == tokenizer_sha256
    return manifest if whole else None


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot write {out}: {error.strerror or error}; mend that and run the same command again, which goes on "
            "from the last whole shard"
        ) from error


def _missing(job: Job, ledger: Ledger) -> Iterator[list[str]]:
    """The fields that each shard still lacks."""
    for shard in range(len(job.layout.shards)):
        yield [field for field in job.fields.stored() if not ledger.is_committed(field, shard)]


def _check_space(job: Job, ledger: Ledger) -> None:
    """Refuse before the teacher runs rather than when the disk is full."""
    folder = ledger.root.absolute()
    while not folder.exists():
        folder = folder.parent
    shards = zip(job.layout.shards, _missing(job, ledger), strict=True)
    need = sum(job.layout.most_bytes(field, *rows) for rows, fields in shards for field in fields)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise CacheError(
            f"the cache may need {need / 1e9:.2f} GB more and {folder} has {free / 1e9:.2f} GB free; free space, "
            "choose another --out, or keep less with --keep or --encoding"
        )


def _constants(job: Job, ledger: Ledger) -> Arrays:
    """What all rows share: that of the build that was cut off, whose shards were made with it, or else made now."""
    if job.layout.hidden is None:
        return {}
    if not ledger.is_committed("hidden", CONSTANTS):
        constants = constants_for(job)
        if constants:
            ledger.commit_constants("hidden", constants)
        return constants
    path = ledger.shard_path("hidden", CONSTANTS)
    try:
        return read_shard(path, ledger.record("hidden", CONSTANTS), job.layout.hidden)
    except DamageError as error:
        raise DamageError(f"{path} {error}; delete {ledger.root} and build again") from None


def _write_shards(job: Job, extractor: Extractor, ledger: Ledger, report: Progress) -> None:
    """Compute shard after shard while one thread compresses and commits the shards before.

    Whatever ends the loop, an interrupt included, shards that were handed over are written.
    """
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hskcache-write") as writer:
        for shard, ((start, stop), missing) in enumerate(zip(job.layout.shards, _missing(job, ledger), strict=True)):
            if not missing:
                report(stop - start)
                continue
            host = None if missing == ["inputs"] else _compute(extractor, start, stop, report)
            pending.append(writer.submit(_commit, job, ledger, (shard, missing), host))
            # One shard is written while the next is computed; more would only hold memory.
            while len(pending) > 1:
                pending.pop(0).result()
        for future in pending:
            future.result()


def _compute(extractor: Extractor, start: int, stop: int, report: Progress) -> HostArrays:
    buffers = Buffers(extractor, np.arange(start, stop))
    for index in extractor.job.layout.batches(start, stop, extractor.job.spec.token_budget):
        buffers.add(index)
        report(len(index))
    return buffers.to_host()


def _commit(job: Job, ledger: Ledger, work: tuple[int, list[str]], host: HostArrays | None) -> None:
    shard, missing = work
    start, stop = job.layout.shards[shard]
    fields = host.wait(job.data.name) if host is not None else {}
    fields["inputs"] = inputs_of(job, start, stop)
    for field in missing:
        ledger.commit(field, shard, (start, stop), fields[field])


def inputs_of(job: Job, start: int, stop: int) -> Arrays:
    """The stored inputs of some rows."""
    rows = job.rows
    first, last = rows.offsets[start], rows.offsets[stop]
    arrays: Arrays = {
        "input_ids": rows.input_ids[first:last].astype(id_dtype(job.teacher.info.vocab_size)),
        "row_offsets": rows.offsets[start : stop + 1] - first,
        "row_ids": np.arange(start, stop, dtype=np.int64),
    }
    if rows.token_type_ids is not None:
        arrays["token_type_ids"] = rows.token_type_ids[first:last]
    if job.labels is not None:
        arrays["labels"] = job.labels[start:stop]
    return arrays


def _environment(job: Job) -> dict[str, str]:
    """What computed the cache; told to readers, not digested."""
    import platform
    from importlib.metadata import version

    packages = ("hskcache", "torch", "transformers", "tokenizers", "numcodecs", "numpy")
    device = job.teacher.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {name: version(name) for name in packages} | {"device": f"{device.type} {hardware}"}
