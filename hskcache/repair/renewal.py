"""A cache whose manifest is lost: the build that made it goes on with every shard that is whole.

Only the manifest says which teacher and which rows a shard is of. So what can still be read of it is compared with the
build that was given, and where nothing can, one shard is computed again and compared: shards of different teachers must
never stand under one manifest.
"""

import json
import re
import shutil
from pathlib import Path

from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.build.writing import Progress, Writing
from hskcache.errors import DamageError, MismatchError
from hskcache.repair.mending import REPAIR
from hskcache.repair.workplace import Workplace
from hskcache.store.beside import is_file_of
from hskcache.store.files import make_folder, read_file, write_atomic
from hskcache.store.ledger import BUILDING, MANIFEST, Ledger
from hskcache.store.manifest import Manifest, Request
from hskcache.store.reading import MAX_DOCUMENT_BYTES
from hskcache.store.record import CONSTANTS, Record

_DIGEST = re.compile(rb'"request_digest": ?"([0-9a-f]{64})"')
_REQUEST = re.compile(rb'"request": ?(?={)')
_ID = re.compile(rb'"cache_id": ?"([0-9a-f]{64})"')


def renew(job: Job, root: Path, on_rows: Progress | None = None) -> tuple[Manifest, str]:
    """Write the manifest of a cache anew: keep every shard whose record fits its bytes, and compute the others.

    Args:
        job: the build that made the cache.
        root: the cache, with a manifest that is damaged or missing.
        on_rows: called with the number of rows of each piece of work that is done, kept rows included.

    Returns:
        The manifest, and what is known of its id being the one that the cache had, to be read after it.

    Raises:
        MismatchError: the cache was made by another build, as far as can be told.
        TeacherError, CacheError: as :func:`hskcache.build.build.build`.
    """
    ledger = Ledger(root)
    text = _text(root / MANIFEST) or _text(root / REPAIR / MANIFEST)
    kept = _kept(ledger, job)
    if not _is_known(text, job.request, root):
        _check_sample(job, ledger, kept)
    places = {(record.field, record.shard) for record in kept}
    for name in job.fields.stored():
        for shard in range(CONSTANTS, len(job.layout.shards)):
            if (name, shard) not in places:
                ledger.record_path(name, shard).unlink(missing_ok=True)
    # From here on it is a build that was cut off, which the build command would go on with, too.
    write_atomic(root / BUILDING, job.request.model_dump_json(indent=1).encode() + b"\n")
    if (root / MANIFEST).exists():
        make_folder(root / REPAIR)
        (root / MANIFEST).replace(root / REPAIR / MANIFEST)
    manifest = build(job, root, on_rows, on_nonfinite="skip" if any(one.skipped for one in kept) else "fail")
    told = _ID.search(text)
    if told is None:
        return manifest, "the id that the cache had cannot be read any more, so it could not be compared"
    same = told[1].decode() == manifest.cache_id
    return manifest, "as it was" if same else f"where the damaged manifest says {told[1].decode()[:12]}"


def _text(path: Path) -> bytes:
    try:
        return read_file(path, MAX_DOCUMENT_BYTES)
    except (OSError, DamageError):
        return b""


def _kept(ledger: Ledger, job: Job) -> list[Record]:
    """The records of the shards that are whole; those of hidden states count only with the constants they are of."""
    found = []
    for name in job.fields.stored():
        for shard in range(CONSTANTS, len(job.layout.shards)):
            record = ledger.committed(name, shard)
            if record is not None and is_file_of(ledger.shard_path(record), record):
                found.append(record)
    hidden = job.layout.hidden
    needs = hidden is not None and hidden.columns in {"shared", "pca"}
    if needs and not any((record.field, record.shard) == ("hidden", CONSTANTS) for record in found):
        found = [record for record in found if record.field != "hidden"]
    return found


def _is_known(text: bytes, request: Request, root: Path) -> bool:
    """Whether what is left of a manifest tells that it was of this request.

    Raises:
        MismatchError: it was of another.
    """
    digest, found = _DIGEST.search(text), _request(text)
    if (digest is not None and digest[1].decode() == request.digest) or (found and found.digest == request.digest):
        return True
    if digest is None and found is None:
        return False
    path, here, there = (found.difference(request) if found else None) or ("the request", "another", "this")
    raise MismatchError(
        f"{root} was built with {path} = {here!s:.80}, as far as its damaged manifest can be read, and what was given "
        f"has {there!s:.80}; give the teacher, the data and the flags of its build, or another copy with --from"
    )


def _request(text: bytes) -> Request | None:
    """The request of a manifest of which the rest may be cut off or altered."""
    place = _REQUEST.search(text)
    try:
        found = json.JSONDecoder().raw_decode(text[place.end() :].decode())[0] if place else None
        return Request.model_validate_json(json.dumps(found))
    except (ValueError, RecursionError):
        return None


def _check_sample(job: Job, ledger: Ledger, kept: list[Record]) -> None:
    """Compute the first shard that is to be kept, and compare.

    Raises:
        MismatchError: it comes out different.
    """
    shards = {record.shard for record in kept if record.shard != CONSTANTS}
    if not shards:
        return
    expected = [record for record in kept if record.shard == min(shards)]
    workplace = Workplace(ledger.root / REPAIR / "sample", expected)
    for record in kept:
        if record.shard == CONSTANTS:
            workplace.lend(record, ledger.shard_path(record))
    for record in expected:
        workplace.record_path(record.field, record.shard).unlink(missing_ok=True)
    Writing(job, workplace, {name: name for name in job.fields.stored()}, on_nonfinite="skip").write()
    found = [workplace.committed(record.field, record.shard) for record in expected]
    shutil.rmtree(workplace.root)
    for record, one in zip(expected, found, strict=True):
        if one != record:
            raise MismatchError(
                f"{ledger.shard_path(record)} is whole but not what this build makes of its rows, "
                "and the manifest that would tell more is lost; give the teacher, the data and the flags of its build, "
                "or another copy with --from"
            )
