"""Lies that a stranger could tell with a cache: every digest is made to fit, for a stranger signs what he writes."""

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError, DamageError
from hskcache.store.archive import read_archive, write_archive
from hskcache.store.files import sha256_hex
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import without_checksum
from hskcache.store.publishing import MANIFEST
from hskcache.store.record import CONSTANTS, Record, describe
from hskcache.store.shard import DTYPES, pack_shard
from hskcache.store.survey import BUILDING
from hskcache.store.version1 import parse_version1
from hskcache.verify import verify

_NASTY: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 255, 65536, 2**31, 2**63 - 1, 2**63, 10**30, -(10**30), 10**400, 0.5, 1e308),
    *(float("nan"), float("inf"), "", ".", "..", "../x", "/etc/passwd", "inputs/../../x", "a/b", "\x00", "a" * 10_000),
    *("\U0001d518\u202e", "inputs", "constants", "0" * 64, "float32", "int8", "object", "O", "V8", "__class__"),
    *([], {}, [[]], [0] * 10_000, [0, 1, 2], {"": None}, {"shape": [1 << 40], "dtype": "int8"}),
)
_ABSURD = (0, 1, 15, 16, 17, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


class Lie(NamedTuple):
    """What a stranger changed in a cache.

    Attributes:
        kind: of the lie.
        what: it is, in words.
        files: the new content by path within the cache; None where a file is gone.
    """

    kind: str
    what: str
    files: Mapping[str, bytes | None]

    def tell(self, root: Path) -> None:
        """Write it into a cache."""
        for name, data in self.files.items():
            if data is None:
                (root / name).unlink()
            else:
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_bytes(data)

    def take_back(self, root: Path, whole: Path) -> None:
        """Undo that."""
        for name in self.files:
            (root / name).unlink(missing_ok=True)
            if (whole / name).exists():
                (root / name).write_bytes((whole / name).read_bytes())


@dataclass(frozen=True, eq=False)
class Truth:
    """The cache that lies are told about.

    Attributes:
        root: its folder, which is not touched.
    """

    root: Path

    @cached_property
    def cache(self) -> Cache:
        """It, open."""
        return open_cache(self.root)

    @cached_property
    def text(self) -> str:
        """Its manifest, without the checksum."""
        return without_checksum(self.cache.manifest.to_json())[0].decode()

    @property
    def manifest(self) -> Any:
        """Its manifest as JSON, a copy of one's own."""
        return json.loads(self.text)

    @cached_property
    def records(self) -> list[Record]:
        """Of every shard and of constants."""
        return list(self.cache.manifest.records)

    def path(self, record: Record, suffix: str = ".zarr.zip") -> str:
        """A shard's file, or its record's, within the cache."""
        own = Ledger(Path()).record_path(record.field, record.shard)
        return record.path if suffix != ".json" else own.as_posix()

    def shard(self, record: Record) -> bytes:
        """A shard's file."""
        return (self.root / self.path(record)).read_bytes()

    def arrays(self, record: Record) -> dict[str, Any]:
        """What a shard holds."""
        if record.shard == CONSTANTS:
            return self.cache.constants(record.field)
        return self.cache.read(record.field, record.shard)

    def with_shard(self, record: Record, data: bytes, arrays: Mapping[str, Any] | None = None) -> dict[str, bytes]:
        """The files of a cache in which a shard is another, which its record and the manifest vouch for."""
        changes = {"num_bytes": len(data), "sha256": sha256_hex(data)}
        told = record.model_copy(update=changes | ({"arrays": describe(arrays)} if arrays is not None else {}))
        manifest = self.manifest
        place = manifest["constants"] if record.shard == CONSTANTS else manifest["shards"][record.field]
        place[record.field if record.shard == CONSTANTS else record.shard] = told.model_dump(mode="json")
        return {
            MANIFEST: signed(manifest),
            self.path(record): data,
            self.path(record, ".json"): told.model_dump_json().encode() + b"\n",
        }


def signed(document: Any) -> bytes:
    """A manifest with the digests that belong to it, as far as it is one at all."""
    text = json.dumps(document)
    try:
        manifest = parse_version1(text.encode(), "told")
        return manifest.model_copy(update={"request_digest": manifest.request.digest}).signed().to_json()
    except (CacheError, ValueError, TypeError, RecursionError):
        return text.encode()


def lie(truth: Truth, draw: random.Random) -> Lie:
    """One lie about a cache, drawn from a seed."""
    kind = draw.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    while True:
        try:
            what, files = KINDS[kind][0](truth, draw)
        except (ValueError, OverflowError):
            # The store does not write such arrays at all.
            continue
        return Lie(kind, what, files)


Told = tuple[str, Mapping[str, bytes | None]]


def _about_manifest(truth: Truth, draw: random.Random) -> Told:
    """Some values of the manifest, after which it is signed."""
    document = truth.manifest
    whats = [mutate(document, draw) for _ in range(draw.choice((1, 1, 1, 2, 4)))]
    return "; ".join(whats), {MANIFEST: signed(document)}


def _about_names(truth: Truth, draw: random.Random) -> Told:
    """A field under another name, throughout."""
    document, name = truth.manifest, draw.choice(list(truth.cache.fields))
    other = draw.choice([value for value in _NASTY if isinstance(value, str)])
    for part in ("fields", "shards", "constants", "added"):
        if name in document[part]:
            document[part][other] = document[part].pop(name)
    for record in [*document["shards"].get(other, ()), document["constants"].get(other, {})]:
        record["field"] = other
    return f"{name} is called {other[:40]!r}", {MANIFEST: signed(document)}


def _about_text(truth: Truth, draw: random.Random) -> Told:
    """The text of the manifest: bytes of it, its nesting, keys that come twice."""
    text = (truth.root / MANIFEST).read_bytes()
    way = draw.choice(("bytes", "nested", "twice", "cut", "encoding", "number"))
    position = draw.randrange(len(text))
    if way == "bytes":
        data = bytearray(text)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return "bytes", {MANIFEST: bytes(data)}
    if way == "nested":
        depth = draw.choice((100, 5_000, 200_000))
        deep = b"[" * depth + b"]" * draw.choice((0, depth))
        return f"{depth} deep", {MANIFEST: b'{"format": "hskcache", "environment": ' + deep + b"}"}
    if way == "twice":
        key = draw.choice((b'"format": "x",', b'"format_version": 99,', b'"fields": {},', b'"request": null,'))
        return f"{key!r} twice", {MANIFEST: text.replace(b"{", b"{" + key, 1)}
    if way == "number":
        digits = b"9" * draw.choice((20, 4_000, 5_000, 1_000_000))
        return f"{len(digits)} digits", {MANIFEST: text.replace(b'"num_rows": 10', b'"num_rows": ' + digits)}
    if way == "cut":
        return f"cut at {position}", {MANIFEST: text[:position]}
    return "UTF-16", {MANIFEST: text.decode().encode(draw.choice(("utf-16", "utf-8-sig", "utf-7")))}


def _about_record(truth: Truth, draw: random.Random) -> Told:
    """Only the record beside a shard."""
    record = draw.choice(truth.records)
    document = json.loads(record.model_dump_json())
    return mutate(document, draw), {truth.path(record, ".json"): json.dumps(document).encode()}


def _about_beginning(truth: Truth, draw: random.Random) -> Told:
    """A build that was cut off, or a field that is being added."""
    document = truth.manifest["request"]
    what = mutate(document, draw)
    if draw.random() < 0.5:
        return what, {MANIFEST: None, BUILDING: json.dumps(document).encode()}
    return what, {"new/adding.json": json.dumps({"field": document, "added": document}).encode()}


def _about_arrays(truth: Truth, draw: random.Random) -> Told:
    """Arrays that a shard may hold, but that do not belong to its rows."""
    record = draw.choice(truth.records)
    arrays = truth.arrays(record)
    whats = [_change(arrays, draw) for _ in range(draw.choice((1, 1, 2)))]
    told = arrays if draw.random() < 0.8 else None
    return f"{truth.path(record)}: {'; '.join(whats)}", truth.with_shard(record, pack_shard(arrays), told)


def _about_zip(truth: Truth, draw: random.Random) -> Told:
    """The structure of a shard's zip."""
    record = draw.choice(truth.records)
    data = truth.shard(record)
    entries = {name: entry.tobytes() for name, entry in read_archive(data).items()}
    way = draw.choice(("field", "field", "field", "field", "compressed", "twice", "name", "shared", "comment"))
    if way == "field":
        changed = bytearray(data)
        starts = [match for match in _places(data) if match < len(data) - 4]
        for _ in range(draw.randint(1, 3)):
            start = min(draw.choice(starts) + draw.randrange(46), len(data) - 4)
            struct.pack_into("<I", changed, start, draw.choice(_ABSURD))
        return "header fields", truth.with_shard(record, bytes(changed))
    if way == "comment":
        return "a comment", truth.with_shard(record, data + draw.randbytes(draw.choice((1, 100, 70_000))))
    if way == "shared":
        return "shared entries", truth.with_shard(record, _shared(data, draw))
    names = list(entries) + ([draw.choice(list(entries))] if way == "twice" else [])
    if way == "name":
        names[draw.randrange(len(names))] = draw.choice(("../x", "/etc/passwd", "a" * 60_000, "ä", "x/", "zarr.json/c"))
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if way == "compressed" else zipfile.ZIP_STORED
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:
        for name in names:
            content = bytes(50 << 20) if way == "compressed" and draw.random() < 0.02 else entries.get(name, b"{}")
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, method)
    return way, truth.with_shard(record, buffer.getvalue())


def _about_documents(truth: Truth, draw: random.Random) -> Told:
    """The documents of a shard's arrays."""
    record = draw.choice(truth.records)
    entries = {name: entry.tobytes() for name, entry in read_archive(truth.shard(record)).items()}
    name = draw.choice([name for name in entries if name.endswith("zarr.json")])
    document = json.loads(entries[name])
    what = mutate(document, draw)
    if "shape" in document and draw.random() < 0.5:
        document["shape"] = [draw.choice((0, 1, 1 << 20, 1 << 31, 1 << 32, 1 << 62))] * draw.choice((1, 1, 2, 40))
        document["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": document["shape"]}}
    entries[name] = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return f"{truth.path(record)}: {name}: {what}", truth.with_shard(record, write_archive(entries))


def _about_chunks(truth: Truth, draw: random.Random) -> Told:
    """What a chunk says of itself, with the checksum that belongs to it."""
    record = draw.choice(truth.records)
    entries = {name: entry.tobytes() for name, entry in read_archive(truth.shard(record)).items()}
    name = draw.choice([name for name in entries if not name.endswith("zarr.json")])
    payload = bytearray(entries[name][:-4])
    for _ in range(draw.randint(1, 4)):
        way = draw.choice(("header", "header", "flags", "body", "cut", "grown"))
        if way == "header":
            struct.pack_into("<I", payload, draw.choice((4, 8, 12)), draw.choice((*_ABSURD, len(payload))))
        elif way == "flags":
            payload[draw.randrange(4)] = draw.randrange(256)
        elif way == "body":
            payload[draw.randrange(len(payload))] = draw.randrange(256)
        elif way == "cut" and len(payload) > 24:
            del payload[draw.randrange(16, len(payload)) :]
        else:
            payload += draw.randbytes(draw.randint(1, 64))
        if len(payload) >= 16 and draw.random() < 0.7:
            struct.pack_into("<I", payload, 12, len(payload))
    entries[name] = bytes(payload) + google_crc32c.value(bytes(payload)).to_bytes(4, "little")
    return f"{truth.path(record)}: {name}", truth.with_shard(record, write_archive(entries))


def _about_size(truth: Truth, draw: random.Random) -> Told:
    """A small file of zeros without end, which agrees with itself throughout."""
    record = next(record for record in truth.records if record.field == "inputs" and record.shard == 0)
    arrays = truth.arrays(record)
    count = 1 << draw.choice((16, 20, 24, 27))
    arrays["input_ids"] = np.zeros(count, arrays["input_ids"].dtype)
    arrays["token_type_ids"] = np.zeros(count, np.uint8)
    arrays["row_offsets"] = np.array([0, *[count] * record.num_rows], np.int64)
    # Ids that no shard would hold: what is written here is what pack_shard refuses to write.
    data = _unbounded(arrays)
    return f"{count} tokens in {len(data)} bytes", truth.with_shard(record, data, arrays)


KINDS: dict[str, tuple[Callable[[Truth, random.Random], Told], float]] = {
    "manifest": (_about_manifest, 6),
    "names": (_about_names, 0.5),
    "text": (_about_text, 1.5),
    "record": (_about_record, 1),
    "beginning": (_about_beginning, 1),
    "arrays": (_about_arrays, 4),
    "zip": (_about_zip, 2.5),
    "documents": (_about_documents, 2),
    "chunks": (_about_chunks, 2),
    "size": (_about_size, 0.02),
}
"""By kind, what makes a lie of it and how often it is drawn."""


def mutate(document: Any, draw: random.Random) -> str:
    """Change one thing somewhere in a JSON document; what, in words."""
    *path, key = draw.choice(list(_paths(document)))
    place = document
    for step in path:
        place = place[step]
    where, value = "/".join(map(str, [*path, key])), place[key]
    way = draw.choice(("nasty", "nasty", "nasty", "near", "near", "gone", "more", "other"))
    if way == "gone":
        del place[key]
        return f"{where} is gone"
    if way == "more" and isinstance(value, list):
        value += value[: draw.choice((1, len(value)))]
        return f"{where} is longer"
    if way == "more" and isinstance(value, dict):
        value[str(draw.choice(_NASTY))[:100]] = draw.choice(_NASTY)
        return f"{where} has another key"
    if way == "other":
        *other_path, other = draw.choice(list(_paths(document)))
        found = document
        for step in other_path:
            found = found[step]
        place[key] = json.loads(json.dumps(found[other]))
        return f"{where} is what {'/'.join(map(str, [*other_path, other]))} was"
    if way == "near" and isinstance(value, int):
        place[key] = draw.choice((value + 1, value - 1, value * 2, -value, value * 10**6, float(value)))
    elif way == "near" and isinstance(value, str) and value:
        at = draw.randrange(len(value))
        place[key] = value[:at] + chr(draw.choice((0, 46, 47, 92, 0x130, 0x1F600))) + value[at + draw.randint(0, 1) :]
    else:
        place[key] = draw.choice(_NASTY)
    return f"{where} is {place[key]!s:.60}"


def _paths(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a JSON document."""
    keys = document.keys() if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield (*above, key)
        yield from _paths(document[key], (*above, key))


def _change(arrays: dict[str, Any], draw: random.Random) -> str:
    """Change one array of a shard."""
    if not arrays:
        return "nothing is left"
    name = draw.choice(list(arrays))
    array = arrays[name].copy()
    way = draw.choice(("value", "value", "value", "value", "all", "length", "type", "axis", "gone", "more"))
    if way in {"value", "all"} and array.size:
        flat = array.reshape(-1)
        places = slice(None) if way == "all" else [draw.randrange(flat.size) for _ in range(draw.randint(1, 4))]
        flat[places] = _value(array.dtype, draw)
    elif way == "length":
        array = np.resize(array, (draw.choice((0, 1, len(array) + 1, 2 * len(array))), *array.shape[1:]))
    elif way == "type":
        with np.errstate(all="ignore"):
            array = array.astype(draw.choice(sorted(DTYPES)))
    elif way == "axis":
        array = draw.choice((array.reshape(-1), array[None], array[..., None]))
    elif way == "gone":
        del arrays[name]
        return f"{name} is gone"
    else:
        arrays["more"] = array
        return "an array more"
    arrays[name] = array
    return f"{name}: {way}"


def _value(dtype: Any, draw: random.Random) -> Any:
    if dtype.kind == "f":
        return draw.choice((np.nan, np.inf, -np.inf, np.finfo(dtype).max, 0.0))
    limits = np.iinfo(dtype)
    return draw.choice((limits.min, limits.max, 0, 1, draw.randint(int(limits.min), int(limits.max))))


def _places(data: bytes) -> list[int]:
    """Where headers begin in a zip."""
    found = []
    for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"):
        at = data.find(mark)
        while at >= 0:
            found.append(at)
            at = data.find(mark, at + 1)
    return found


def _shared(data: bytes, draw: random.Random) -> bytes:
    """A zip in whose directory entries point at another's content."""
    changed = bytearray(data)
    directory = [at for at in _places(data) if data[at : at + 4] == b"PK\x01\x02"]
    source, target = draw.choice(directory), draw.choice(directory)
    changed[target + 42 : target + 46] = data[source + 42 : source + 46]
    return bytes(changed)


def _unbounded(arrays: Mapping[str, Any]) -> bytes:
    """A shard as ``pack_shard`` would write it if it wrote anything."""
    from hskcache.store import shard

    bound, shard.HARMLESS_BYTES = shard.HARMLESS_BYTES, shard.MAX_SHARD_BYTES
    try:
        return pack_shard(arrays)
    finally:
        shard.HARMLESS_BYTES = bound


def refusals(root: Path, train: Callable[[Path], object] | None = None) -> int:
    """Do everything with a cache that one does with a stranger's; how often it was refused.

    Whatever else than a refusal comes out of it is a fault, and is raised.

    Args:
        root: the cache.
        train: what else is done with it.
    """
    count = 0
    for use in (_read_everything, _verify, _records, *([train] if train else [])):
        try:
            use(root)
        except CacheError:
            count += 1
    return count


def _read_everything(root: Path) -> None:
    cache = open_cache(root)
    refused: list[CacheError] = []
    for read in (
        lambda: [cache.constants(name) for name in cache.fields],
        *((lambda name=name, shard=shard: cache.read(name, shard)) for name, shard in _shards(cache)),
        lambda: cache.row(0),
        lambda: cache.row(cache.num_rows - 1),
        lambda: cache.skipped(list(cache.fields)),
    ):
        try:
            read()
        except CacheError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _shards(cache: Cache) -> Iterator[tuple[str, int]]:
    return ((name, shard) for name in cache.fields for shard in range(len(cache.shards)))


def _verify(root: Path) -> None:
    problems = [problem for deep in (False, True) for problem in verify(root, deep=deep).problems]
    if problems:
        raise DamageError(problems[0].what)


def _records(root: Path) -> None:
    ledger = Ledger(root)
    for field in ("inputs", "hidden", "more"):
        for shard in (CONSTANTS, 0, 1):
            ledger.committed(field, shard)
    request = ledger.request()
    if request is not None:
        ledger.num_committed(request)
