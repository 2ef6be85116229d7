"""Format version 2: records in pages that the manifest refers to, and shards whose files are named by their digests."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field as Key

from hskcache.errors import DamageError
from hskcache.store.agreement import Agreement
from hskcache.store.evaluation import Evaluation
from hskcache.store.fields import Field, StoredField, kind_of
from hskcache.store.files import canonical_json, sha256_hex
from hskcache.store.manifest import Format, Manifest, Part, named_content, with_checksum
from hskcache.store.meaning import meanings
from hskcache.store.pages import CheckRecord, Page, PagedRecords, PageStore, paged
from hskcache.store.record import FieldName, NamedRecord, Record, Sha256, file_name, parse
from hskcache.store.records import Records
from hskcache.store.request import Added, Request
from hskcache.store.tokenizer import TokenizerFile
from hskcache.strict import Strict

if TYPE_CHECKING:
    from numpy.typing import NDArray

Checks = Callable[[Request, str, StoredField], CheckRecord]
"""Makes of a request and a field of it, and its name, the check of the records of its shards."""


class Version2Document(Strict):
    """``manifest.json``; the keys are those of :class:`~hskcache.store.manifest.Manifest`, but for the records.

    Attributes:
        index: by field, the pages of its records.
    """

    format: Literal["hskcache"] = "hskcache"
    format_version: Literal[2] = 2
    cache_id: Sha256
    request_digest: Sha256
    request: Request
    fields: dict[FieldName, Field]
    index: dict[FieldName, list[Page]]
    constants: dict[FieldName, NamedRecord]
    tokenizer: dict[str, TokenizerFile]
    added: dict[FieldName, Added] = Key(default={})
    part: Part | None = None
    upgraded_from: Sha256 | None = None
    environment: dict[str, str]
    agreement: dict[FieldName, Agreement] = Key(default={})
    evaluations: list[Evaluation] = Key(default=[])


_SHARED = tuple(name for name in Version2Document.model_fields if name not in {"format", "format_version", "index"})


class _Version2(Format):
    version = 2
    keeps_records = False

    def spelled(self, manifest: Manifest) -> bytes:
        """Content of ``manifest.json``, its checksum included."""
        shared = {name: getattr(manifest, name) for name in _SHARED}
        document = Version2Document(index={name: list(pages) for name, pages in _pages(manifest).items()}, **shared)
        # Of no evaluations nothing is written: manifests from before there were any keep their bytes.
        unwritten = None if manifest.evaluations else {"evaluations"}
        return with_checksum(document.model_dump_json(indent=1, exclude=unwritten).encode() + b"\n")

    def identity(self, manifest: Manifest, names: Collection[str]) -> str:
        """SHA-256 over the request, the fields and the digests of the pages, which are over every shard's."""
        content = named_content(manifest, names)
        content["pages"] = {
            name: [page.sha256 for page in pages] for name, pages in _pages(manifest).items() if name in names
        }
        content["constants"] = {
            name: record.model_dump(mode="json", exclude_defaults=True)
            for name, record in manifest.constants.items()
            if name in names
        }
        return sha256_hex(canonical_json(content))

    def records(self, field: str, records: Iterable[Record]) -> Records:
        """Records of a field, in pages."""
        return records if isinstance(records, PagedRecords) else paged(field, records)

    def extended(self, records: Records, more: Iterable[Record]) -> Records:
        """Records of a field, and more after them in pages of their own."""
        assert isinstance(records, PagedRecords)
        return paged(records.field, more, records)

    def pack(self, arrays: "Mapping[str, NDArray[Any]]", sha256: str | None = None) -> bytes:
        """Arrays as the bytes of a shard, of which it is told what they mean."""
        from hskcache.store.shard import pack_shard

        told = meanings({name: array.ndim for name, array in arrays.items()})
        data = pack_shard(arrays, told)
        if sha256 in (None, sha256_hex(data)):
            return data
        # Until arrays had attributes, axes alone had names.
        earlier = pack_shard(arrays, told, with_attributes=False)
        return earlier if sha256_hex(earlier) == sha256 else data

    def record(self, data: bytes, facts: Mapping[str, Any]) -> Record:
        """The record of a shard."""
        from hskcache.store.shard import stored_arrays

        digest = sha256_hex(data)
        file = file_name(facts["shard"], digest)
        return NamedRecord(file=file, num_bytes=len(data), sha256=digest, arrays=stored_arrays(data), **facts)

    def parse_record(self, data: bytes, file: str) -> Record:
        """Read a commit record."""
        return parse(NamedRecord, data, file)


VERSION_2 = _Version2()


def parse_version2(body: bytes, file: str, store: PageStore, checks: Checks) -> Manifest:
    """Read ``manifest.json`` without its checksum; no page is read.

    Args:
        body: the content.
        file: what to call it in messages.
        store: reads the pages.
        checks: of every record, once its page is read.

    Raises:
        DamageError: it is not what it should be; names ``file``.
    """
    document = parse(Version2Document, body, file)
    request, fields = document.request, document.fields
    for name, pages in document.index.items():
        _check_pages(file, name, pages)
        if name in fields:
            _check_arrays(file, name, pages, kind_of(fields[name]).arrays(fields[name]))
    shards: dict[str, Records] = {
        name: PagedRecords(name, pages, store, checks(request, name, fields[name]) if name in fields else None)
        for name, pages in document.index.items()
    }
    # All of it is validated; to do so again would take as long.
    shared = {name: getattr(document, name) for name in _SHARED}
    return Manifest.model_construct(format=VERSION_2, shards=shards, **shared)


def _check_pages(file: str, name: str, pages: list[Page]) -> None:
    """Raise unless pages follow each other."""
    shard = 0
    for number, page in enumerate(pages):
        if page.shard != shard:
            raise DamageError(f"{file} is damaged: page {number} of {name} does not follow the one before")
        shard += page.num_records


def _check_arrays(file: str, name: str, pages: list[Page], arrays: Collection[str]) -> None:
    """Raise unless the arrays that pages sum up are those of their field; sizes are told by these sums alone."""
    for page in pages:
        if foreign := next((array for array in page.arrays if array not in arrays), None):
            raise DamageError(f"{file} is damaged: {name} has no {foreign}, of which {page.file} is to hold records")


def _pages(manifest: Manifest) -> dict[str, tuple[Page, ...]]:
    """The pages by field, in the order of the fields."""
    pages = {}
    for name, records in manifest.shards.items():
        assert isinstance(records, PagedRecords)
        pages[name] = records.pages
    return pages
