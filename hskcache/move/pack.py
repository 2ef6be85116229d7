"""A cache as one tar, for a copy from machine to machine: to a file, or through a pipe with nothing in between.

The tar is one of plain files in a fixed order, without clocks or owners, so that the same cache gives the same bytes:
the manifest, README.md if there is one, the tokenizer, the manifest's copy, the pages of records, then every field's
shards; of version 1 each shard is followed by its record, and there are no pages and no copy. Any tar program unpacks
it to a cache. Reading is stricter than that: nothing but what the manifest, which comes first, leads to expect is
taken, and a shard appears under its name only once its digest is known to fit.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hskcache import disk
from hskcache.disk import sync_file
from hskcache.errors import DamageError
from hskcache.move.arrival import Arrival, Landed, arriving
from hskcache.move.tar import AGAIN, BLOCK_BYTES, Member, TarReader, add_end, add_member
from hskcache.move.whole import OnProgress, Written, is_written, replacing
from hskcache.store.beside import MAX_README_BYTES, README, Beside, checked_manifest, read_beside, spelled
from hskcache.store.files import MAX_DOCUMENT_BYTES, read_file, sha256_hex
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.publishing import COPY, MANIFEST, manifest_files
from hskcache.store.record import Record, parse
from hskcache.store.tokenizer import MAX_TOKENIZER_BYTES, MAX_TOKENIZER_FILES, check_tokenizer_name


def pack(root: Path, target: Path, force: bool = False, on_progress: OnProgress | None = None) -> Written:
    """Write a cache to a tar, every shard verified; a finished tar of the same cache is left alone.

    Args:
        root: the cache's directory.
        target: the file.
        force: replace whatever stands there.
        on_progress: told of the bytes of shards.

    Raises:
        CacheError: there is no complete cache, or the file cannot be written.
        DamageError: a file of the cache is missing or altered.
        MismatchError: something else stands at ``target``.
    """
    beside = read_beside(root)
    if not force and is_written(target, beside.manifest, _manifest_of):
        return Written(beside.manifest, was_there=True)
    disk.require_space(
        target, _num_bytes(beside), f"{target} needs", "pack to another machine: hskcache pack CACHE -", "file"
    )
    with disk.writing_to(target, "the beginning"), replacing(target) as partial, partial.open("xb") as file:
        _write(root, beside, file, on_progress)
        file.flush()
        sync_file(file)
    return Written(beside.manifest, was_there=False)


def pack_to(root: Path, stream: BinaryIO, on_progress: OnProgress | None = None) -> Written:
    """Write a cache to a stream as :func:`pack` does to a file.

    Raises:
        CacheError: there is no complete cache.
        DamageError: a file of the cache is missing or altered; the stream ends within a member.
        OSError: the stream was closed at the other end.
    """
    beside = read_beside(root)
    _write(root, beside, stream, on_progress)
    stream.flush()
    return Written(beside.manifest, was_there=False)


def unpack(stream: BinaryIO, name: str, root: Path, on_progress: OnProgress | None = None) -> Landed:
    """Unpack a tar of a cache, in one pass; shards that already stand in the folder are kept.

    Args:
        stream: the tar.
        name: what to call it in messages.
        root: the folder: new, empty, or where the same tar was begun to be unpacked.
        on_progress: told of the bytes of shards.

    Raises:
        DamageError: the tar is cut short, altered, or holds what :func:`pack` does not write; names the shard. What
            was whole stays in the folder, and the same command with a whole tar goes on.
        MismatchError: the folder holds another cache, or something else.
        CacheError: the folder cannot be written.
    """
    tar = TarReader(stream, name)
    data = tar.whole(tar.expect(MANIFEST), MAX_DOCUMENT_BYTES)
    pages: dict[str, bytes] = {}
    manifest = checked_manifest(data, f"{name}: {MANIFEST}", lambda path, _num_bytes: pages[path])
    beside = _take_beside(tar, manifest, data)
    if COPY in manifest_files(manifest) and tar.whole(tar.expect(COPY), MAX_DOCUMENT_BYTES) != data:
        raise DamageError(f"{name}: {COPY} differs from {MANIFEST}; {AGAIN}")
    for file in manifest.index:
        pages[file.path] = tar.whole(tar.expect(file.path), file.page.index_bytes)
    records = ordered(manifest)
    if records:
        tar.expect(records[0].path)
    total = manifest.num_bytes
    with arriving(root, manifest) as arrival:
        try:
            arrival.put_beside(beside)
        except DamageError as error:
            raise DamageError(f"{name} {error}; fetch or pack it again") from None
        for record in records:
            _take(tar, arrival, record, manifest.format.keeps_records)
            if on_progress is not None:
                on_progress(record.num_bytes, total)
        tar.end()
        return arrival.finish(data, manifest)


def ordered(manifest: Manifest) -> list[Record]:
    """The records in the order of the tar: by field, constants before shards.

    Raises:
        DamageError: a page of records is missing or another.
    """
    return sorted(manifest.records, key=lambda record: (record.field, record.shard))


def _take_beside(tar: TarReader, manifest: Manifest, data: bytes) -> Beside:
    """Take README.md and the tokenizer, which are small, into memory: their digest is known when all are there."""
    tokenizer: dict[str, bytes] = {}
    readme, left = None, MAX_TOKENIZER_BYTES
    if (member := tar.peek()) is not None and member.name == README:
        readme = tar.whole(member, MAX_README_BYTES)
    while (member := tar.peek()) is not None and member.name.startswith(f"{TOKENIZER}/"):
        inside = member.name.removeprefix(f"{TOKENIZER}/")
        check_tokenizer_name(inside, tokenizer)
        if len(tokenizer) == MAX_TOKENIZER_FILES:
            raise DamageError(f"the tar holds more than {MAX_TOKENIZER_FILES} tokenizer files, which no tokenizer has")
        tokenizer[inside] = tar.whole(member, left)
        left -= len(tokenizer[inside])
    return Beside(manifest, data, tokenizer, readme)


def _take(tar: TarReader, arrival: Arrival, record: Record, has_record: bool) -> None:
    """Take a shard and, where shards have such, its record, or pass over them where they stand already."""
    shard_name = record.path
    member = tar.expect(shard_name)
    if member.num_bytes != record.num_bytes:
        raise DamageError(
            f"{tar.name}: {shard_name} has {member.num_bytes} bytes where {record.num_bytes} were written"
        )
    is_here = arrival.keeps(record)
    if is_here:
        for _ in tar.pieces(member):
            pass
    else:
        arrival.put_shard(record, _verified(tar, member, record))
    if not has_record:
        if not is_here:
            arrival.put_record(record)
        return
    record_name = _record_name(record)
    member = tar.expect(record_name)
    data = tar.whole(member, 2 * len(record.model_dump_json()) + BLOCK_BYTES)
    packed = parse(Record, data, f"{tar.name}: {record_name}")
    if packed != record or spelled(packed) != data:
        raise DamageError(f"{tar.name}: {record_name} differs from the manifest's record; {AGAIN}")
    if not is_here:
        arrival.put_record(packed)


def _verified(tar: TarReader, member: Member, record: Record) -> Iterator[bytes]:
    """A shard's content, piece by piece; what was written is thrown away if the digest does not fit."""
    digest = hashlib.sha256()
    for piece in tar.pieces(member):
        digest.update(piece)
        yield piece
    if digest.hexdigest() != record.sha256:
        raise DamageError(f"{tar.name}: {member.name} was altered: its SHA-256 differs; {AGAIN}")


def _manifest_of(path: Path) -> Manifest:
    """The manifest of a tar, if the tar is as long as that says."""
    try:
        with path.open("rb") as file:
            tar = TarReader(file, str(path))
            data = tar.whole(tar.expect(MANIFEST), MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise DamageError(f"{path}: {error.strerror}") from None
    return checked_manifest(data, str(path))


def _record_name(record: Record) -> str:
    """Member of a shard's record: its path within the cache."""
    return Ledger(Path()).record_path(record.field, record.shard).as_posix()


def _num_bytes(beside: Beside) -> int:
    """Bytes of the tar, about: content, and a header and half a block of padding for each member."""
    content = len(beside.data) + sum(map(len, beside.tokenizer.values())) + len(beside.readme or b"")
    shards = sum(record.num_bytes + len(record.model_dump_json()) for record in beside.manifest.records)
    return content + shards + 2 * BLOCK_BYTES * (2 * beside.manifest.num_records + len(beside.tokenizer) + 2)


def _write(root: Path, beside: Beside, stream: BinaryIO, on_progress: OnProgress | None) -> None:
    total, done = beside.manifest.num_bytes, 0
    first = {MANIFEST: beside.data} | ({} if beside.readme is None else {README: beside.readme})
    first |= {f"{TOKENIZER}/{name}": data for name, data in beside.tokenizer.items()}
    first |= dict.fromkeys(manifest_files(beside.manifest), beside.data)
    for name, data in first.items():
        done += add_member(stream, name, data)
    for file in beside.manifest.index:
        done += add_member(stream, file.path, file.read())
    for record in ordered(beside.manifest):
        done += add_member(stream, record.path, _read_shard(root / record.path, record))
        if beside.manifest.format.keeps_records:
            done += add_member(stream, _record_name(record), _read_record(root, record))
        if on_progress is not None:
            on_progress(record.num_bytes, total)
    add_end(stream, done)


def _read_shard(path: Path, record: Record) -> bytes:
    try:
        data = read_file(path, record.num_bytes)
        if sha256_hex(data) != record.sha256:
            raise DamageError("has another content than was written: its SHA-256 differs")
    except (FileNotFoundError, NotADirectoryError):
        raise DamageError(f"{path} is missing; {_MEND}") from None
    except DamageError as error:
        raise DamageError(f"{path} {error}; {_MEND}") from None
    return data


def _read_record(root: Path, record: Record) -> bytes:
    """Content of a record's file."""
    path = root / _record_name(record)
    try:
        data = read_file(path, MAX_DOCUMENT_BYTES)
        stored = parse(Record, data, str(path))
        if stored != record or data != spelled(stored):
            raise DamageError(f"{path} differs from the manifest's record; {_MEND}")
        return spelled(stored)
    except (FileNotFoundError, NotADirectoryError):
        raise DamageError(f"{path} is missing; {_MEND}") from None


_MEND = "`hskcache verify` tells all that is wrong, `hskcache repair` mends it"
