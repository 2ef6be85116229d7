"""Ways to damage the files of a cache: every kind, at every region of every file; and what must be said of it."""

import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from stored import plain

from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.pages import INDEX
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.record import CONSTANTS, NamedRecord

_EXTRA = ("notes.txt", "inputs/000099.zarr.zip", "hidden/000000.json.0f.tmp", "attention/000000.zarr.zip.old", "x/y/z")


class Place(NamedTuple):
    """Where verify must see a damage.

    Attributes:
        file: path within the cache.
        field: or None, of what belongs to no field.
        shard: or None, likewise and of constants.
    """

    file: str
    field: str | None = None
    shard: int | None = None


@dataclass(frozen=True, eq=False)
class Damage:
    """Something done to a cache.

    Attributes:
        kind: ``flipped bit``, ``truncated`` and so on.
        region: of which file, and which part of it: ``shard: central directory``.
        what: it all in words.
        apply: does it to a cache.
        places: that verify must name, every one; None where it may name any.
        touched: files that it changes, makes or removes.
        read: whether training reads what it changes, so that it must refuse it.
    """

    kind: str
    region: str
    what: str
    apply: Callable[[Path], object]
    places: tuple[Place, ...] | None
    touched: tuple[str, ...]
    read: bool = False


class Cut(NamedTuple):
    """How many positions of a file to try: of the bytes of a region, and lengths to cut a file to.

    None tries every byte of it.
    """

    positions: int | None
    lengths: int | None


@dataclass(frozen=True, eq=False)
class Suite:
    """The damages of one cache.

    Attributes:
        root: the cache, which is not touched.
        older: another cache of the same fields, built from another seed.
        small: how much to try of manifest, records and tokenizer.
        shard: how much to try of each shard.
        seed: of what is drawn.
    """

    root: Path
    older: Path
    small: Cut
    shard: Cut
    seed: int = 0

    def damages(self) -> Iterator[Damage]:
        """All of them."""
        for file in self.files:
            yield from self._of_bytes(file)
            yield from self._of_files(file)
        for folder, place in {
            TOKENIZER: Place(TOKENIZER),
            **{name: Place(name, name) for name in self._fields},
            **{f"{name}/{INDEX}": Place(f"{name}/{INDEX}", name) for name in self._fields},
        }.items():
            yield _linked(folder, place, [file for file in self.files if file.startswith(f"{folder}/")])
        yield from self._swaps()
        yield from self._stale()
        yield from self._of_both_manifests()
        for name in _EXTRA:
            field = name.partition("/")[0] if name.partition("/")[0] in self._fields else None
            yield _written("extra file", "extra", name, b"something", Place(name, field))

    @property
    def files(self) -> dict[str, Place]:
        """Every file of the cache, and where verify must see what is done to it."""
        manifest = Ledger(self.root).manifest()
        found = {name: Place(name) for name in (MANIFEST, COPY)}
        found |= {file.path: Place(file.path, file.field) for file in manifest.index}
        for record in manifest.records:
            found[record.path] = Place(record.path, record.field, None if record.shard == CONSTANTS else record.shard)
        for path in sorted((self.root / TOKENIZER).rglob("*")):
            found[path.relative_to(self.root).as_posix()] = Place(TOKENIZER)
        return found

    def _of_both_manifests(self) -> Iterator[Damage]:
        """Damages that the manifest and its copy have in common, so that neither can be read in the other's place."""
        data, names = (self.root / MANIFEST).read_bytes(), (MANIFEST, COPY)
        draw = random.Random(f"{self.seed} both")
        others = [("emptied", b""), ("truncated", data[: len(data) // 2]), ("zeros throughout", bytes(len(data)))]
        for position in _drawn(draw, range(len(data)), self.small.positions):
            flipped = data[:position] + bytes([data[position] ^ 1 << draw.randrange(8)]) + data[position + 1 :]
            others.append(("flipped bit", flipped))
        for kind, other in others:

            def write(root: Path, other: bytes = other) -> None:
                for name in names:
                    (root / name).write_bytes(other)

            yield Damage(kind, "both manifests", "both manifests", write, (Place(MANIFEST),), names, read=True)

        def remove(root: Path) -> None:
            for name in names:
                (root / name).unlink()

        yield Damage("missing", "both manifests", "both manifests", remove, (Place(MANIFEST),), names, read=True)

    @cached_property
    def _read(self) -> dict[str, set[int]]:
        """By shard, the bytes that training reads: those of every array but the one that only names rows."""
        found: dict[str, set[int]] = {}
        for record in Ledger(self.root).manifest().records:
            assert isinstance(record, NamedRecord)
            infos = [info for name, info in record.arrays.items() if name != "row_ids"]
            found[record.path] = {place for info in infos for place in range(info.offset, info.offset + info.num_bytes)}
        return found

    def _is_read(self, file: str, position: int | None = None) -> bool:
        """True if training reads a file at all, or this byte of it; of manifests it reads the one that is whole."""
        if position is None or kind_of(file) == "page":
            return kind_of(file) in {"page", "shard", "constants shard"}
        return position in self._read.get(file, ())

    @property
    def _fields(self) -> set[str]:
        return set(Ledger(self.root).manifest().fields)

    def _of_bytes(self, file: str) -> Iterator[Damage]:
        """Flipped bits in every region, and lengths to which a file may be cut."""
        draw, data = random.Random(f"{self.seed} {file}"), (self.root / file).read_bytes()
        kind, place = kind_of(file), self.files[file]
        cut = self.shard if kind.endswith("shard") else self.small
        spans: dict[str, list[int]] = {}
        for region, span in regions(file, data):
            spans.setdefault(region, []).extend(span)
        for region, positions in spans.items():
            for position in _drawn(draw, positions, cut.positions):
                bit = draw.randrange(8)
                flipped = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
                what = f"bit {bit} of byte {position} of {file}"
                is_read = self._is_read(file, position)
                yield _written("flipped bit", f"{kind}: {region}", file, flipped, place, what, is_read)
        is_read = self._is_read(file)
        lengths = {1, len(data) // 2, len(data) - 1, *_drawn(draw, range(1, len(data)), cut.lengths)}
        for length in sorted(lengths):
            yield _written("truncated", kind, file, data[:length], place, f"{file} cut to {length} bytes", is_read)
        yield _written("emptied", kind, file, b"", place, is_read=is_read)
        half = data[: len(data) // 2]
        yield _written("zeros from the middle", kind, file, half + bytes(len(data) - len(half)), place, is_read=is_read)
        yield _written("zeros throughout", kind, file, bytes(len(data)), place, is_read=is_read)
        yield _written("appended", kind, file, data + b"\n", place, f"{file} with a byte more", is_read)
        yield _written("appended", kind, file, data + data, place, f"{file} twice over", is_read)

    def _of_files(self, file: str) -> Iterator[Damage]:
        kind, place, is_read = kind_of(file), self.files[file], self._is_read(file)
        yield Damage("missing", kind, file, lambda root: (root / file).unlink(), (place,), (file,), is_read)

        def folder(root: Path) -> None:
            (root / file).unlink()
            (root / file).mkdir()

        def link(root: Path) -> None:
            (root / file).rename(root / ".elsewhere")
            (root / file).symlink_to(root / ".elsewhere")

        yield Damage("a folder instead", kind, file, folder, (place,), (file,), is_read)
        yield Damage("a link to an equal file", kind, file, link, (place,), (file, ".elsewhere"), is_read)

    def _swaps(self) -> Iterator[Damage]:
        """Files of one kind in each other's places: of two shards, and of two fields."""
        files = self.files
        named = [file for file, place in files.items() if place.shard is not None]
        for one in named:
            field, shard = files[one].field, files[one].shard
            others = [other for other in named if (files[other].field == field) != (files[other].shard == shard)]
            for other in others:
                if one < other:
                    yield _swap(one, other, (files[one], files[other]))
        pages = [file for file in files if kind_of(file) == "page"]
        for one, other in combinations(pages, 2):
            yield _swap(one, other, (files[one], files[other]))

    def _stale(self) -> Iterator[Damage]:
        """Files of an older build in the place of today's."""
        older = {plain(path.relative_to(self.older).as_posix()): path for path in self.older.rglob("*")}
        for file, place in self.files.items():
            path = older.get(plain(file))
            if path is not None and path.is_file() and path.read_bytes() != (self.root / file).read_bytes():
                # A manifest of another build is true of itself; that the files are others shows at each of them.
                where = place if file not in {MANIFEST, COPY} else None
                what = f"{file} of an older build"
                yield _written("stale", kind_of(file), file, path.read_bytes(), where, what, self._is_read(file))


def kind_of(file: str) -> str:
    """The kind of a file of a cache."""
    if file in {MANIFEST, COPY}:
        return "manifest"
    if file.endswith(".jsonl"):
        return "page"
    if file.startswith(f"{TOKENIZER}/"):
        return "tokenizer"
    constants = "constants " if "constants" in file else ""
    return f"{constants}shard"


def regions(file: str, data: bytes) -> Iterator[tuple[str, range]]:
    """The parts of a file, in order and without gaps; of a shard those of its zip."""
    if not file.endswith(".zarr.zip"):
        yield "text", range(len(data))
        return
    import io

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos, directory = sorted(archive.infolist(), key=lambda info: info.header_offset), archive.start_dir
    for info in infos:
        start = info.header_offset
        name_size, extra_size = struct.unpack("<HH", data[start + 26 : start + 30])
        content = start + 30 + name_size + extra_size
        stop = content + info.file_size
        yield "local header", range(start, content)
        if info.filename.endswith("zarr.json"):
            yield "document", range(content, stop)
            continue
        yield "chunk header", range(content, content + 16)
        yield "chunk payload", range(content + 16, stop - 4)
        yield "chunk checksum", range(stop - 4, stop)
    yield "central directory", range(directory, len(data) - 22)
    yield "end record", range(len(data) - 22, len(data))


def restore(root: Path, whole: Path, damage: Damage) -> None:
    """Undo a damage."""
    for file in damage.touched:
        path = root / file
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        if (whole / file).is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole / file, path)
        elif path.parent.is_dir() and not (whole / file).parent.is_dir():
            shutil.rmtree(path.parent)


def _drawn(draw: random.Random, span: Sequence[int], count: int | None) -> list[int]:
    return list(span) if count is None or count >= len(span) else sorted(draw.sample(span, count))


def _written(
    kind: str,
    region: str,
    file: str,
    data: bytes,
    place: Place | None,
    what: str | None = None,
    is_read: bool = False,
) -> Damage:
    def write(root: Path) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)

    return Damage(kind, region, what or file, write, None if place is None else (place,), (file,), is_read)


def _linked(folder: str, place: Place, files: list[str]) -> Damage:
    def link(root: Path) -> None:
        (root / folder).rename(root / ".elsewhere")
        (root / folder).symlink_to(root / ".elsewhere")

    # First the link itself is removed, then its files come back.
    return Damage("a link to an equal folder", "folder", folder, link, (place,), (folder, ".elsewhere", *files))


def _swap(one: str, other: str, places: tuple[Place, Place]) -> Damage:
    def swap(root: Path) -> None:
        first, second = (root / one).read_bytes(), (root / other).read_bytes()
        (root / one).write_bytes(second)
        (root / other).write_bytes(first)

    return Damage("swapped", kind_of(one), f"{one} and {other}", swap, places, (one, other), read=True)
