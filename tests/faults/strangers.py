"""Lies that a stranger could tell with a cache: every digest is made to fit, for a stranger signs what he writes."""

import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from mutations import NASTY, change, headers, mutate, shared, unbounded
from stories import Files, Truth, signed

from hskcache.store.archive import read_archive, write_archive
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.ledger import TOKENIZER
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.record import file_name
from hskcache.store.shard import pack_shard
from hskcache.store.survey import BUILDING

_ABSURD = (0, 1, 15, 16, 17, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_HUGE = (-1, 0, 1, 1023, 1024, 1025, 1 << 31, 1 << 62, 1 << 63, 10**30, 10**400, 1e308, True, None, "1")
_LEADS_AWAY = (
    "../x",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../x",
    "a//b",
    "a\\b",
    "x" * 300,
    "\x00",
    "\u202e",
    "a/" * 200,
)


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
                (root / name).unlink(missing_ok=True)
            else:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)

    def take_back(self, root: Path, whole: Path) -> None:
        """Undo that."""
        for name in self.files:
            (root / name).unlink(missing_ok=True)
            if (whole / name).exists():
                (root / name).write_bytes((whole / name).read_bytes())


def lie(truth: Truth, draw: random.Random) -> Lie:
    """One lie about a cache, drawn from a seed."""
    kinds = {kind: about for kind, about in KINDS.items() if truth.is_paged or kind not in OF_PAGES}
    kind = draw.choices(list(kinds), [weight for _, weight in kinds.values()])[0]
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
    story = truth.story
    whats = [mutate(story.manifest, draw) for _ in range(draw.choice((1, 1, 1, 2, 4)))]
    return "; ".join(whats), story.signed()


def _about_copy(truth: Truth, draw: random.Random) -> Told:
    """A manifest and a copy that do not say the same, each signed, or one of them alone."""
    one, other = truth.story.manifest, truth.story.manifest
    what = mutate(one, draw)
    files: Files = dict(zip(draw.sample((MANIFEST, COPY), 2), (signed(one), signed(other)), strict=True))
    way = draw.choice(("both", "one is gone", "one is torn"))
    if way != "both":
        left = draw.choice((MANIFEST, COPY))
        data = files[left] or b""
        files[left] = None if way == "one is gone" else data[: draw.randrange(len(data))]
    return f"{what}; {way}", files


def _about_names(truth: Truth, draw: random.Random) -> Told:
    """A field under another name, throughout."""
    story, name = truth.story, draw.choice(list(truth.cache.fields))
    other = draw.choice([value for value in NASTY if isinstance(value, str)])
    story.rename(name, other)
    return f"{name} is called {other[:40]!r}", truth.told(story.refer())


def _about_text(truth: Truth, draw: random.Random) -> Told:
    """The text of the manifest, and mostly of its copy as well."""
    text = (truth.root / MANIFEST).read_bytes()
    way, data = _text(text, draw)
    if way == "nested":
        data = b'{"format": "hskcache", "environment": ' + data + b"}"
    names = (MANIFEST, COPY) if truth.is_paged and draw.random() < 0.8 else (MANIFEST,)
    return way, dict.fromkeys(names, data)


def _about_page(truth: Truth, draw: random.Random) -> Told:
    """The text of a page of records, which the manifest vouches for."""
    story = truth.story.refer()
    name = draw.choice(list(story.pages))
    number = draw.randrange(len(story.pages[name]))
    text = next(file for file in truth.cache.manifest.index if file.field == name).read()
    way, data = _text(text, draw)
    if way == "nested":
        data = b'{"field": ' + data + b"}\n" + text.partition(b"\n")[2]
    story.put_page(name, number, data)
    return f"{name}: {way}", truth.told(story)


def _about_records(truth: Truth, draw: random.Random) -> Told:
    """Some values of the records in pages, with the digests of the pages."""
    story = truth.story
    whats = [mutate(story.pages, draw) for _ in range(draw.choice((1, 1, 1, 2, 4)))]
    if not all(isinstance(page, list) for pages in _lists(story.pages) for page in pages):
        raise ValueError("these are no pages any more")
    return "; ".join(whats), truth.told(story.refer())


def _about_references(truth: Truth, draw: random.Random) -> Told:
    """How records are divided into pages, and what the manifest says of these."""
    story = truth.story
    name = draw.choice(list(story.pages))
    records = [record for page in story.pages[name] for record in page]
    way = draw.choice(("count", "count", "count", "split", "reversed", "twice", "empty", "of another field", "none"))
    if way == "split":
        story.pages[name] = [[record] for record in records]
    elif way == "reversed":
        story.pages[name] = [[record] for record in reversed(records)]
    elif way == "twice":
        story.pages[name] *= 2
    elif way == "empty":
        story.pages[name].insert(draw.randrange(2), [])
    elif way == "of another field":
        story.pages[name] = story.pages[draw.choice(list(story.pages))]
    elif way == "none":
        story.pages[name] = []
    story.refer()
    if way == "count":
        reference = draw.choice(story.manifest["index"][name])
        place = draw.choice((reference, reference, reference["arrays"]))
        key = draw.choice([key for key, value in place.items() if isinstance(value, int)])
        place[key] = draw.choice(_HUGE)
        way = f"{key} is {place[key]!s:.40}"
    return f"{name}: {way}", truth.told(story)


def _about_places(truth: Truth, draw: random.Random) -> Told:
    """Where the arrays of a shard are in its file, or which file it is."""
    story, record = truth.story, draw.choice(truth.records)
    told = json.loads(record.model_dump_json())
    infos, size = list(told["arrays"].values()), record.num_bytes
    info, other = draw.choice(infos), draw.choice(infos)
    way = draw.choice(("range", "range", "range", "digest", "swapped", "file", "same file", "size"))
    if way == "range":
        start, stop = info["offset"], info["offset"] + info["num_bytes"]
        at = draw.choice((0, 1, start - 1, start + 1, other["offset"], size - 1, size, size + 1, *_HUGE))
        end = draw.choice((stop, stop + 1, stop - 1, other["offset"] + other["num_bytes"], size, size + 1, 1 << 62))
        info["offset"], info["num_bytes"] = at, end - at if type(at) is int else draw.choice(_HUGE)
        if type(at) is int and 0 <= at < end < 1 << 40 and draw.random() < 0.8:
            info["sha256"] = sha256_hex(truth.shard(record)[at:end])
    elif way == "digest":
        info["sha256"] = draw.choice((other["sha256"], record.sha256, "0" * 64))
    elif way == "swapped":
        info["offset"], other["offset"] = other["offset"], info["offset"]
    elif way == "size":
        told["num_bytes"] = draw.choice((size - 1, size + 1, *_HUGE))
    else:
        theirs = draw.choice(truth.records)
        told["file"] = draw.choice(
            (
                theirs.path.partition("/")[2],
                file_name(theirs.shard, record.sha256),
                f"../{theirs.path}",
                f"/{record.path}",
                "",
                "constants.zarr.zip",
            )
        )
        if way == "same file":
            told |= {"num_bytes": theirs.num_bytes, "sha256": theirs.sha256, "file": theirs.path.partition("/")[2]}
    story.put(told)
    return f"{record.path}: {way}", truth.told(story.refer())


def _about_tokenizer(truth: Truth, draw: random.Random) -> Told:
    """Which files the tokenizer has, with the digest over them; those that may be written stand there."""
    story, files = truth.story, dict(truth.tokenizer)
    listed = story.manifest["tokenizer"]
    name = draw.choice(list(files))
    way = draw.choice(("elsewhere", "elsewhere", "above", "many", "size", "gone", "digest"))
    if way == "elsewhere":
        listed[draw.choice(_LEADS_AWAY)] = listed.pop(name) if draw.random() < 0.5 else listed[name]
    elif way == "above":
        listed[f"{name}/{name}"] = listed[name]
    elif way == "many":
        listed |= {f"{name}.{number}": listed[name] for number in range(draw.choice((300, 20_000)))}
    elif way == "size":
        listed[name]["num_bytes"] = draw.choice(_HUGE)
    elif way == "gone":
        del listed[name]
        story.files[f"{TOKENIZER}/{name}"] = None
    else:
        listed[name]["sha256"] = draw.choice(("0" * 64, "", None, "x" * 64))
    pairs = sorted((name, one["sha256"]) for name, one in listed.items())
    story.manifest["request"]["tokenizer"]["sha256"] = sha256_hex(canonical_json(pairs))
    return f"{name}: {way}", truth.told(story)


def _about_record(truth: Truth, draw: random.Random) -> Told:
    """Only the commit record beside a shard."""
    record = draw.choice(truth.records)
    document = json.loads(record.model_dump_json())
    return mutate(document, draw), {truth.record_path(record): json.dumps(document).encode()}


def _text(text: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A document of JSON, or lines of it, with other bytes, or in its place something deep; and in words which."""
    way = draw.choice(("bytes", "nested", "twice", "cut", "encoding", "number", "lines"))
    if way == "bytes":
        data = bytearray(text)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return "bytes", bytes(data)
    if way == "nested":
        depth = draw.choice((100, 5_000, 200_000))
        return "nested", b"[" * depth + b"]" * draw.choice((0, depth))
    if way == "twice":
        keys = (
            b'"format": "x",',
            b'"format_version": 99,',
            b'"fields": {},',
            b'"request": null,',
            b'"num_bytes": "x",',
        )
        key = draw.choice(keys)
        return f"{key!r} twice", text.replace(b"{", b"{" + key, 1)
    if way == "number":
        digits = b"9" * draw.choice((20, 4_000, 5_000, 1_000_000))
        changed = re.sub(rb'("(?:num_rows|num_bytes)": ?)[0-9]+', lambda found: found[1] + digits, text, count=1)
        return f"{len(digits)} digits", changed
    if way == "cut":
        position = draw.randrange(len(text))
        return f"cut at {position}", text[:position]
    if way == "lines":
        return "lines", draw.choice(
            (text + b"\n", b"\n" + text, b"\n" * (1 << 22), text.replace(b"\n", b"\r\n"), text[:-1])
        )
    return "UTF-16", text.decode().encode(draw.choice(("utf-16", "utf-8-sig", "utf-7")))


def _lists(pages: Any) -> list[Any]:
    found = list(pages.values())
    if not all(isinstance(one, list) for one in found):
        raise ValueError("these are no lists of pages any more")
    return found


def _about_beginning(truth: Truth, draw: random.Random) -> Told:
    """A build that was cut off, or a field that is being added."""
    document = truth.story.manifest["request"]
    what = mutate(document, draw)
    if draw.random() < 0.5:
        return what, {MANIFEST: None, COPY: None, BUILDING: json.dumps(document).encode()}
    return what, {"new/adding.json": json.dumps({"field": document, "added": document}).encode()}


def _about_arrays(truth: Truth, draw: random.Random) -> Told:
    """Arrays that a shard may hold, but that do not belong to its rows."""
    record = draw.choice(truth.records)
    arrays = truth.arrays(record)
    whats = [change(arrays, draw) for _ in range(draw.choice((1, 1, 2)))]
    told = arrays if draw.random() < 0.8 else None
    return f"{record.path}: {'; '.join(whats)}", truth.with_shard(record, pack_shard(arrays), told)


def _about_zip(truth: Truth, draw: random.Random) -> Told:
    """The structure of a shard's zip."""
    record = draw.choice(truth.records)
    data = truth.shard(record)
    entries = {name: entry.tobytes() for name, entry in read_archive(data).items()}
    way = draw.choice(("field", "field", "field", "field", "compressed", "twice", "name", "shared", "comment"))
    if way == "field":
        changed = bytearray(data)
        starts = [match for match in headers(data) if match < len(data) - 4]
        for _ in range(draw.randint(1, 3)):
            start = min(draw.choice(starts) + draw.randrange(46), len(data) - 4)
            struct.pack_into("<I", changed, start, draw.choice(_ABSURD))
        return "header fields", truth.with_shard(record, bytes(changed))
    if way == "comment":
        return "a comment", truth.with_shard(record, data + draw.randbytes(draw.choice((1, 100, 70_000))))
    if way == "shared":
        return "shared entries", truth.with_shard(record, shared(data, draw))
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
    return f"{record.path}: {name}: {what}", truth.with_shard(record, write_archive(entries))


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
    return f"{record.path}: {name}", truth.with_shard(record, write_archive(entries))


def _about_size(truth: Truth, draw: random.Random) -> Told:
    """A small file of zeros without end, which agrees with itself throughout."""
    record = next(record for record in truth.records if record.field == "inputs" and record.shard == 0)
    arrays = truth.arrays(record)
    count = 1 << draw.choice((16, 20, 24, 27))
    arrays["input_ids"] = np.zeros(count, arrays["input_ids"].dtype)
    arrays["token_type_ids"] = np.zeros(count, np.uint8)
    arrays["row_offsets"] = np.array([0, *[count] * record.num_rows], np.int64)
    # Ids that no shard would hold: what is written here is what pack_shard refuses to write.
    data = unbounded(arrays)
    return f"{count} tokens in {len(data)} bytes", truth.with_shard(record, data, arrays)


KINDS: dict[str, tuple[Callable[[Truth, random.Random], Told], float]] = {
    "manifest": (_about_manifest, 6),
    "copy": (_about_copy, 1),
    "names": (_about_names, 0.5),
    "text": (_about_text, 1.5),
    "page": (_about_page, 1.5),
    "records": (_about_records, 4),
    "references": (_about_references, 2),
    "places": (_about_places, 3),
    "tokenizer": (_about_tokenizer, 1),
    "record": (_about_record, 1),
    "beginning": (_about_beginning, 1),
    "arrays": (_about_arrays, 4),
    "zip": (_about_zip, 2.5),
    "documents": (_about_documents, 2),
    "chunks": (_about_chunks, 2),
    "size": (_about_size, 0.02),
}
"""By kind, what makes a lie of it and how often it is drawn."""

OF_PAGES = frozenset({"copy", "page", "records", "references", "places", "tokenizer"})
"""Kinds that version 1, which has nothing of the sort, leaves out."""
