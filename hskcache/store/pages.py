"""Records in pages: files of at most ``PAGE_RECORDS`` lines, each a record, that are read when one of them is needed.

The manifest holds of every page its digest and its sums, so that a cache of any size opens at once, and what is read of
it later is proven by what was read first.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ConfigDict, model_validator
from pydantic import Field as Key

from hskcache.counted import counted
from hskcache.errors import DamageError
from hskcache.store.files import sha256_hex
from hskcache.store.record import Count, FileBytes, NamedRecord, Record, Sha256, Skipped, parse, stem_of
from hskcache.store.records import Records
from hskcache.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE_RECORDS = 1024
MAX_PAGE_BYTES = 256 << 20
INDEX = "index"
"""Folder of a field's pages."""

_DIGITS = 16
_HELD_BYTES = 32 << 20

ReadPage = Callable[[str, int], bytes]
"""Reads a file of the cache by its path, which has so many bytes at most; raises FileNotFoundError or DamageError."""

CheckRecord = Callable[[int, Record], None]
"""Raises a DamageError unless a record is what should stand in the place of a shard."""


class Page(Strict):
    """A page, as the manifest refers to it.

    Attributes:
        file: its name within the folder ``index`` of the field: the number of its first shard and its digest.
        index_bytes, sha256: its size and its digest.
        shard, num_records: number of its first shard, and how many neighbours it is of.
        num_rows, num_bytes: rows of these, and bytes of their files.
        num_nonfinite: NaN and infinities among the values they were made from.
        num_skipped: rows of which nothing was kept.
        arrays: by name, bytes in memory of the array in all of these shards, decompressed and still encoded.
    """

    file: str = Key(pattern=r"^[0-9]{6,12}-[0-9a-f]{16}\.jsonl$")
    index_bytes: int = Key(ge=0, le=MAX_PAGE_BYTES)
    sha256: Sha256
    shard: Count
    num_records: int = Key(ge=1, le=PAGE_RECORDS)
    num_rows: Count
    num_bytes: Count
    num_nonfinite: Count
    num_skipped: Count
    arrays: dict[str, Count]

    @model_validator(mode="after")
    def _check_name(self) -> "Page":
        if self.file != page_name(self.shard, self.sha256):
            raise ValueError("file is not named by the page's first shard and digest")
        return self


class _Size(Strict):
    """Part of a record that is read where no more of it is needed."""

    model_config = ConfigDict(extra="ignore", defer_build=False)

    num_bytes: FileBytes


class IndexFile(NamedTuple):
    """A page as a file of a cache.

    Attributes:
        field: whose shards it is of.
        path, page: from the cache's directory, and what is known of it.
        read: gives its content, verified; raises a DamageError.
    """

    field: str
    path: str
    page: Page
    read: Callable[[], bytes]


def page_name(shard: int, sha256: str) -> str:
    """Name of a page's file: the number of its first shard and the beginning of its digest."""
    return f"{stem_of(shard)}-{sha256[:_DIGITS]}.jsonl"


class PageStore:
    """Reads pages and keeps some of them. Threads may share it.

    Args:
        read: reads a file of the cache.
        where: says what to call it in messages, by its path.
    """

    def __init__(self, read: ReadPage, where: Callable[[str], str]) -> None:
        self.read = read
        self.name = where
        self._held: dict[str, list[bytes]] = {}

    def content(self, path: str, page: Page) -> bytes:
        """A page's file.

        Raises:
            DamageError: it is missing or another.
        """
        if (held := self._held.get(page.sha256)) is not None:
            return b"\n".join([*held, b""])
        try:
            data = self.read(path, page.index_bytes)
        except (FileNotFoundError, NotADirectoryError):
            raise DamageError(f"{self.name(path)} is missing; {_MEND}") from None
        except DamageError as error:
            raise DamageError(f"{self.name(path)} {error}; {_MEND}") from None
        if sha256_hex(data) != page.sha256:
            raise DamageError(f"{self.name(path)} has another content than was written: its SHA-256 differs; {_MEND}")
        return data

    def lines(self, path: str, page: Page) -> list[bytes]:
        """The lines of a page, each a record as JSON.

        Raises:
            DamageError: as :meth:`content`, or it has another number of lines.
        """
        held = self._held.pop(page.sha256, None)
        if held is None:
            data = self.content(path, page)
            # Counted before it is divided: lines of nothing take much more memory than the page.
            if (count := data.count(b"\n")) != page.num_records or not data.endswith(b"\n"):
                raise DamageError(
                    f"{self.name(path)} is damaged: it has {counted(count, 'line')} of {page.num_records}"
                )
            held = data.split(b"\n")[:-1]
        # The last one used stands last; threads that do this at once at worst read a page twice.
        self._held[page.sha256] = held
        kept = list(self._held.items())
        while len(kept) > 1 and sum(sum(map(len, lines)) for _, lines in kept) > _HELD_BYTES:
            self._held.pop(kept.pop(0)[0], None)
        return held


class PagedRecords(Records):
    """Records in pages.

    Args:
        field: whose shards they are of.
        pages: in order.
        store: reads them.
        check: is asked of every record that is read.
    """

    def __init__(self, field: str, pages: Iterable[Page], store: PageStore, check: CheckRecord | None = None) -> None:
        self.field = field
        self.pages = tuple(pages)
        self.store = store
        self._check = check
        self._starts = [page.shard for page in self.pages]

    def __len__(self) -> int:
        return self.pages[-1].shard + self.pages[-1].num_records if self.pages else 0

    def __eq__(self, other: object) -> bool:
        """True if the records are the same."""
        if isinstance(other, PagedRecords):
            return (self.field, self.pages) == (other.field, other.pages)
        return super().__eq__(other)

    __hash__ = None

    def _at(self, shard: int) -> Record:
        page = self.pages[bisect_right(self._starts, shard) - 1]
        return self._parsed(page, self.store.lines(self.path(page), page), shard)

    def __iter__(self) -> Iterator[Record]:
        return self.since(0)

    def since(self, first: int) -> Iterator[Record]:
        """The records from that of a shard on, a page at a time."""
        for page in self.pages:
            if page.shard + page.num_records > first:
                yield from islice(self.of_page(page), max(0, first - page.shard), None)

    def of_page(self, page: Page) -> Iterator[Record]:
        """The records of one page.

        Raises:
            DamageError: the page is missing, another, or holds what it should not.
        """
        lines = self.store.lines(self.path(page), page)
        return (self._parsed(page, lines, page.shard + place) for place in range(page.num_records))

    def path(self, page: Page) -> str:
        """A page's file, from the cache's directory."""
        return f"{self.field}/{INDEX}/{page.file}"

    @property
    def files(self) -> Iterator[IndexFile]:
        """Every page as a file."""
        for page in self.pages:
            path = self.path(page)
            yield IndexFile(self.field, path, page, partial(self.store.content, path, page))

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of the shards on disk."""
        return sum(page.num_bytes for page in self.pages)

    def shard_bytes(self) -> "NDArray[np.int64]":
        """Bytes on disk of each shard, int64 [number of shards]."""
        import numpy as np

        paths = ((self.path(page), page) for page in self.pages)
        lines = ((self.store.name(path), line) for path, page in paths for line in self.store.lines(path, page))
        return np.fromiter((parse(_Size, line, name).num_bytes for name, line in lines), np.int64, len(self))

    @cached_property
    def array_bytes(self) -> Mapping[str, int]:
        """Bytes in memory of all shards' arrays together, by name."""
        sums: dict[str, int] = {}
        for page in self.pages:
            for name, size in page.arrays.items():
                sums[name] = sums.get(name, 0) + size
        return sums

    def skipped(self) -> Iterator[Skipped]:
        """Rows of which the field holds nothing, ascending."""
        pages = (page for page in self.pages if page.num_skipped)
        return (one for page in pages for record in self.of_page(page) for one in record.skipped)

    def _parsed(self, page: Page, lines: list[bytes], shard: int) -> Record:
        name = self.store.name(self.path(page))
        record = parse(NamedRecord, lines[shard - page.shard], name)
        try:
            if self._check is not None:
                self._check(shard, record)
        except DamageError as error:
            raise DamageError(f"{name} is damaged: {error}") from None
        return record


def paged(field: str, records: Iterable[Record], before: PagedRecords | None = None) -> PagedRecords:
    """Records of the shards of a field in pages, which are in memory until they are written.

    Args:
        field: its name.
        records: in order.
        before: records that come before these. Their pages stay as they are, for whoever has opened the cache.
    """
    pages, contents = list[Page](), dict[str, bytes]()
    left, first = iter(records), 0 if before is None else len(before)
    while some := list(islice(left, PAGE_RECORDS)):
        page, data = make_page(first, some)
        pages.append(page)
        contents[f"{field}/{INDEX}/{page.file}"] = data
        first += len(some)

    def read(path: str, most_bytes: int) -> bytes:
        if path in contents or before is None:
            return contents[path]
        return before.store.read(path, most_bytes)

    whole = [*(() if before is None else before.pages), *pages]
    return PagedRecords(field, whole, PageStore(read, str if before is None else before.store.name))


def make_page(shard: int, records: Iterable[Record]) -> tuple[Page, bytes]:
    """A page of some neighbouring shards, the first of which has this number, and its content."""
    lines, arrays = [], dict[str, int]()
    sums = dict.fromkeys(("num_rows", "num_bytes", "num_nonfinite", "num_skipped"), 0)
    for record in records:
        lines.append(record.model_dump_json().encode() + b"\n")
        sums["num_rows"] += record.num_rows
        sums["num_bytes"] += record.num_bytes
        sums["num_nonfinite"] += record.num_nonfinite
        sums["num_skipped"] += len(record.skipped)
        for name, info in record.arrays.items():
            arrays[name] = arrays.get(name, 0) + info.memory_bytes
    data = b"".join(lines)
    digest = sha256_hex(data)
    page = Page(
        file=page_name(shard, digest),
        index_bytes=len(data),
        sha256=digest,
        shard=shard,
        num_records=len(lines),
        arrays=dict(sorted(arrays.items())),
        **sums,
    )
    return page, data


_MEND = "fetch the cache again, or mend it with hskcache repair"
