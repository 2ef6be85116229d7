"""A cache told anew: its manifest and records as JSON that may be changed, after which every digest is made to fit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hskcache.cache import Cache, open_cache
from hskcache.errors import CacheError
from hskcache.store.files import sha256_hex
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest, without_checksum
from hskcache.store.pages import INDEX, PageStore, make_page, page_name
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.record import CONSTANTS, NamedRecord, Record, StoredArray, describe, file_name, is_field_name
from hskcache.store.shard import stored_arrays
from hskcache.store.version1 import parse_version1
from hskcache.store.version2 import parse_version2

Files = dict[str, bytes | None]
"""New content by path within a cache; None where a file is gone."""


@dataclass(frozen=True, eq=False)
class Story:
    """What is told of a cache.

    Attributes:
        manifest: as JSON. The references to pages in it are those of ``pages`` once :meth:`refer` is called.
        pages: by field, the records of each page as JSON; of version 1, whose manifest holds them, there are none.
        files: everything else that is told.
    """

    manifest: Any
    pages: dict[str, list[list[Any]]]
    files: Files = field(default_factory=dict)

    @property
    def is_paged(self) -> bool:
        """True of version 2 and what pretends to be it."""
        return "index" in self.manifest

    def records(self, name: str) -> list[Any]:
        """The records of a field's shards; changing them changes the story."""
        found: list[Any] = self.manifest["shards"][name] if not self.is_paged else []
        return found or [record for page in self.pages[name] for record in page]

    def put(self, record: Any) -> None:
        """Put another record in the place of one."""
        name, shard = record["field"], record["shard"]
        if shard == CONSTANTS:
            self.manifest["constants"][name] = record
            return
        for page in self.pages[name] if self.is_paged else [self.manifest["shards"][name]]:
            if shard < len(page):
                page[shard] = record
                return
            shard -= len(page)

    def rename(self, name: str, other: str) -> None:
        """Call a field otherwise, throughout."""
        for part in ("fields", "index", "shards", "added", "constants", "agreement"):
            if name in self.manifest.get(part, ()):
                self.manifest[part][other] = self.manifest[part].pop(name)
        if self.is_paged:
            self.pages[other] = self.pages.pop(name)
        for record in [*self.records(other), self.manifest["constants"].get(other, {})]:
            record["field"] = other

    def refer(self) -> "Story":
        """Make the references to pages those of the pages as they are told, with true sums where there are such."""
        for name, pages in self.pages.items():
            told, shard = self.manifest["index"][name], 0
            references = []
            for number, records in enumerate(pages):
                reference, data = _page(shard, records, told[min(number, len(told) - 1)])
                references.append(reference)
                self._put_page(name, reference, data)
                shard += len(records)
            self.manifest["index"][name] = references
        return self

    def put_page(self, name: str, number: int, data: bytes) -> None:
        """Put other content in the place of a page, with the digest that belongs to it."""
        reference = self.manifest["index"][name][number]
        reference |= _named(reference["shard"], data)
        self._put_page(name, reference, data)

    def signed(self) -> Files:
        """All files that are told, the manifest with the digests that belong to it, as far as it is one at all."""
        data = signed(self.manifest)
        return {MANIFEST: data, **({COPY: data} if self.is_paged else {}), **self.files}

    def _put_page(self, name: str, reference: Any, data: bytes) -> None:
        # What the manifest calls a field must not lead the teller out of the cache either.
        if is_field_name(name):
            self.files[f"{name}/{INDEX}/{reference['file']}"] = data


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
    def is_paged(self) -> bool:
        """True of version 2."""
        return not self.cache.manifest.format.keeps_records

    @property
    def story(self) -> Story:
        """All of it as JSON, a copy of one's own."""
        pages: dict[str, list[list[Any]]] = {}
        for file in self.cache.manifest.index:
            pages.setdefault(file.field, []).append([json.loads(line) for line in file.read().splitlines()])
        return Story(json.loads(self.text), pages)

    @cached_property
    def records(self) -> list[Record]:
        """Of every shard and of constants."""
        return list(self.cache.manifest.records)

    @cached_property
    def tokenizer(self) -> dict[str, bytes]:
        """The tokenizer's files by path within their folder."""
        folder = self.root / TOKENIZER
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def record_path(self, record: Record) -> str:
        """The file of a shard's commit record, within the cache."""
        return Ledger(Path()).record_path(record.field, record.shard).as_posix()

    def shard(self, record: Record) -> bytes:
        """A shard's file."""
        return (self.root / record.path).read_bytes()

    def arrays(self, record: Record) -> dict[str, Any]:
        """Content of a shard."""
        if record.shard == CONSTANTS:
            return self.cache.constants(record.field)
        return self.cache.read(record.field, record.shard)

    def told(self, story: Story) -> Files:
        """The files of a story, and those of the truth that have no place in it."""
        files = story.signed()
        for file in self.cache.manifest.index:
            files.setdefault(file.path, None)
        return files

    def with_shard(self, record: Record, data: bytes, arrays: Mapping[str, Any] | None = None) -> Files:
        """The files of a cache in which a shard is another, which its record, its page and the manifest vouch for.

        Args:
            record: of the shard as it is.
            data: the other shard.
            arrays: what it holds, if the record is to tell that and not what it told before.
        """
        told = vouching(record, data, arrays)
        story = self.story
        story.put(told.model_dump(mode="json"))
        story.files[record.path] = None
        story.files[told.path] = data
        if not self.is_paged:
            story.files[self.record_path(record)] = told.model_dump_json().encode() + b"\n"
        return self.told(story.refer())


def vouching(record: Record, data: bytes, arrays: Mapping[str, Any] | None = None) -> Record:
    """A record of another file of a shard; where that can still be taken apart, with its arrays' true places."""
    changes: dict[str, Any] = {"num_bytes": len(data), "sha256": sha256_hex(data)}
    claimed: Mapping[str, Any] = record.arrays if arrays is None else describe(arrays)
    if not isinstance(record, NamedRecord):
        return record.model_copy(update=changes | {"arrays": claimed})
    try:
        found: Mapping[str, StoredArray] = stored_arrays(data)
    except CacheError:
        found = {}
    # An array that cannot be found is said to be all of the file.
    whole = {"codec": "zstd", "offset": 0, "num_bytes": len(data), "sha256": changes["sha256"]}
    changes["arrays"] = {
        name: StoredArray(
            shape=info.shape,
            dtype=info.dtype,
            **(found[name].model_dump(include=set(whole)) if name in found else whole),
        )
        for name, info in claimed.items()
    }
    return record.model_copy(update=changes | {"file": file_name(record.shard, changes["sha256"])})


def signed(document: Any) -> bytes:
    """A manifest with the digests that belong to it, as far as it is one at all."""
    text = json.dumps(document)
    try:
        manifest = _parsed(text.encode(), is_paged="index" in document)
        return manifest.model_copy(update={"request_digest": manifest.request.digest}).signed().to_json()
    except (CacheError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return text.encode()


def _parsed(text: bytes, is_paged: bool) -> Manifest:
    if not is_paged:
        return parse_version1(text, "told")

    def unread(path: str, most_bytes: int) -> bytes:
        raise AssertionError(f"{path} of {most_bytes} bytes is read to sign a manifest")

    return parse_version2(text, "told", PageStore(unread, str), lambda *_: lambda _shard, _record: None)


def _named(shard: int, data: bytes) -> dict[str, Any]:
    digest = sha256_hex(data)
    return {"file": page_name(shard, digest), "index_bytes": len(data), "sha256": digest}


def _page(shard: int, records: list[Any], before: Any) -> tuple[Any, bytes]:
    """The reference to a page of some records, and its content; sums are those from before where there are none."""
    lines = [json.dumps(record, separators=(",", ":"), ensure_ascii=False) for record in records]
    try:
        page, data = make_page(shard, [NamedRecord.model_validate_json(line) for line in lines])
        return page.model_dump(mode="json"), data
    except (ValueError, TypeError, OverflowError):
        data = b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in lines)
        return before | _named(shard, data) | {"shard": shard, "num_records": len(records)}, data
