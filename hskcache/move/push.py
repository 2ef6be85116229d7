"""A cache to a URL: what is missing or different there is sent, every shard verified while it is read here.

The order is that of a build: the shards, the pages of their records, the tokenizer, the card, and the manifest last, so
that a URL holds a whole cache or, until the same command has gone on, none that anybody could take for one. A shard of
the right name, which tells its digest, and of the right size is there. Of a cache of version 1, a record there with the
content of the one here vouches for that, and a list of the tokenizer's files is left for servers that list no folders.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.move.card import card, is_card
from hskcache.move.parallel import Budget, Watch, in_parallel
from hskcache.move.selected import NamedManifest, Selected, Subset, select
from hskcache.remote.fetch import TOKENIZER_FILES, read_manifest, remote_sha256
from hskcache.remote.remote import Remote
from hskcache.store.beside import MAX_README_BYTES, README, Beside, read_beside, spelled
from hskcache.store.files import read_file, sha256_hex
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.pages import IndexFile
from hskcache.store.publishing import MANIFEST, manifest_files
from hskcache.store.record import Record, parse

MOST_BYTES = 1 << 30
"""Most bytes of shards that are held in memory while they are sent."""

_SPELLING_BYTES = 1024


@dataclass(frozen=True)
class Pushed:
    """Outcome of a push.

    Attributes:
        selected: what the URL holds now.
        num_sent: shards that were sent.
        num_there: shards that were there.
        bytes_sent: of the shards that were sent.
        bytes_verified: of shards that were read back; None where none were to be.
    """

    selected: Selected
    num_sent: int
    num_there: int
    bytes_sent: int
    bytes_verified: int | None


@dataclass(frozen=True)
class Manner:
    """Settings of a push.

    Attributes:
        jobs: shards at a time; together they take no more memory than ``MOST_BYTES``, or one of them alone.
        verify: whether to read everything back and compare.
        replace: whether another cache at the URL is to be replaced.
    """

    jobs: int = 8
    verify: bool = False
    replace: bool = False


def push(
    root: Path, remote: Remote, subset: Subset, manner: Manner | None = None, watch: Watch | None = None
) -> Pushed:
    """Send a cache, or some fields and rows of it, to a URL that is empty or has a part of it.

    Args:
        root: the cache's directory.
        remote: where it is to go.
        subset: what to send.
        manner: how.
        watch: is told of it.

    Raises:
        CacheError: there is no complete cache, or the URL cannot be written or is out of reach.
        DamageError: a file here is damaged, which is not sent; or what was read back differs.
        MismatchError: another cache is at the URL, or there are no such fields or rows.
    """
    manner, watch = manner or Manner(), watch or Watch()
    if remote.is_read_only:
        raise CacheError(
            f"{remote.url} cannot be written: http servers only give; push to s3://, gs://, sftp://, hf:// or file://"
        )
    beside = read_beside(root)
    source = NamedManifest(str(root), beside.manifest)
    standing = _standing(remote, root, manner.replace)
    try:
        selected = select(source, None if standing is None else NamedManifest(remote.url, standing), subset)
    except MismatchError as error:
        if not manner.replace or standing is None:
            raise MismatchError(f"{error}" + (", or give --replace" if standing is not None else "")) from None
        selected = select(source, None, subset)
        _clear(remote, standing)
        standing = None
    watch.on_select(selected)
    return _Push(root, remote, selected, watch).run(beside, manner, standing)


class _Push:
    def __init__(self, root: Path, remote: Remote, selected: Selected, watch: Watch) -> None:
        self.here = Ledger(root)
        self.remote = remote
        self.selected = selected
        self.watch = watch
        self.tell = watch.counted()
        self.memory = Budget(MOST_BYTES)

    def run(self, beside: Beside, manner: Manner, standing: Manifest | None) -> Pushed:
        manifest = self.selected.manifest
        num_bytes = manifest.num_bytes
        self.watch.on_total(num_bytes * (2 if manner.verify else 1))
        sent = in_parallel(self._send, self.selected.records, manner.jobs, self.remote.give_up)
        in_parallel(self._send_page, manifest.index, manner.jobs, self.remote.give_up)
        self._send_tokenizer(beside, manner.jobs)
        self._send_card(beside.readme)
        for name in manifest_files(manifest):
            self._write(name, manifest.to_json())
        if standing is not None:
            pages = {file.path for file in manifest.index}
            in_parallel(
                self.remote.remove,
                [file.path for file in standing.index if file.path not in pages],
                manner.jobs,
                self.remote.give_up,
            )
        if manner.verify:
            self._verify(beside, manner.jobs)
        verified = num_bytes if manner.verify else None
        num_sent = sum(some is not None for some in sent)
        return Pushed(self.selected, num_sent, len(sent) - num_sent, sum(some or 0 for some in sent), verified)

    def _send(self, pair: tuple[Record, Record]) -> int | None:
        """Send a shard and then its record; its bytes, or None where they were there."""
        ours, theirs = pair
        is_there = self._is_vouched(theirs) and self.remote.size(theirs.path) == theirs.num_bytes
        if not is_there:
            with self.memory.holding(ours.num_bytes):
                self.remote.write(theirs.path, self._verified(ours))
            for record in _record_names(self.selected.manifest, theirs):
                self.remote.write(record, spelled(theirs))
        self.tell(ours.num_bytes)
        return None if is_there else ours.num_bytes

    def _send_page(self, file: IndexFile) -> None:
        """Send a page of records, unless it is there: its name is that of its content."""
        if self.remote.size(file.path) != file.page.index_bytes:
            self.remote.write(file.path, file.read())

    def _verified(self, record: Record) -> bytes:
        """A shard's bytes, which are what was written."""
        path = self.here.shard_path(record)
        try:
            data = read_file(path, record.num_bytes)
        except FileNotFoundError:
            raise DamageError(f"{path} is missing; repair the cache, then push again") from None
        except DamageError as error:
            raise DamageError(f"{path} {error}; repair the cache, then push again") from None
        if len(data) != record.num_bytes or sha256_hex(data) != record.sha256:
            raise DamageError(
                f"{path} has another content than was written and was not sent; repair the cache, then push again"
            )
        return data

    def _send_tokenizer(self, beside: Beside, jobs: int) -> None:
        """Send the tokenizer's files and, where the manifest does not list them, last a list that vouches for them."""
        if beside.manifest.tokenizer is not None:
            in_parallel(
                lambda item: self._write(f"{TOKENIZER}/{item[0]}", item[1]),
                beside.tokenizer.items(),
                jobs,
                self.remote.give_up,
            )
            return
        digests = {name: sha256_hex(data) for name, data in beside.tokenizer.items()}
        content = json.dumps(digests, indent=1).encode() + b"\n"
        listed = self._is_there(TOKENIZER_FILES, content)

        def send(item: tuple[str, bytes]) -> None:
            name = f"{TOKENIZER}/{item[0]}"
            if not listed or self.remote.size(name) != len(item[1]):
                self.remote.write(name, item[1])

        in_parallel(send, beside.tokenizer.items(), jobs, self.remote.give_up)
        self._write(TOKENIZER_FILES, content)

    def _send_card(self, readme: bytes | None) -> None:
        """Send the README.md of the cache; without one, write a card, but over none that somebody has edited there."""
        if readme is None:
            readme = card(self.selected.manifest, self.remote.url)
            with suppress(FileNotFoundError):
                if not is_card(self.remote.read(README, MAX_README_BYTES)):
                    return
        self._write(README, readme)

    def _write(self, name: str, data: bytes) -> None:
        if not self._is_there(name, data):
            self.remote.write(name, data)

    def _is_vouched(self, record: Record) -> bool:
        """True if the commit record is there, where shards have such, in the spelling of whichever version wrote it."""
        try:
            for name in _record_names(self.selected.manifest, record):
                data = self.remote.read(name, 2 * len(spelled(record)) + _SPELLING_BYTES)
                if parse(Record, data, name) != record:
                    return False
        except (FileNotFoundError, DamageError):
            return False
        return True

    def _is_there(self, name: str, data: bytes) -> bool:
        """True if a small file is there with this content."""
        try:
            return self.remote.read(name, len(data)) == data
        except (FileNotFoundError, DamageError):
            return False

    def _verify(self, beside: Beside, jobs: int) -> None:
        """Read everything back and compare it.

        Raises:
            DamageError: something differs.
        """

        def check(pair: tuple[Record, Record]) -> None:
            shard = pair[1].path
            if remote_sha256(self.remote, shard, pair[1].num_bytes) != pair[1].sha256:
                raise DamageError(f"{self.remote.describe(shard)} is not what was sent; {_AGAIN}")
            if not self._is_vouched(pair[1]):
                record = self.remote.describe(Ledger(Path()).record_path(pair[1].field, pair[1].shard).as_posix())
                raise DamageError(f"{record} is not what was sent; {_AGAIN}")
            self.tell(pair[1].num_bytes)

        def require(name: str, data: bytes) -> None:
            if not self._is_there(name, data):
                raise DamageError(f"{self.remote.describe(name)} is not what was sent; {_AGAIN}")

        in_parallel(check, self.selected.records, jobs, self.remote.give_up)
        for name, data in beside.tokenizer.items():
            require(f"{TOKENIZER}/{name}", data)
        for file in self.selected.manifest.index:
            require(file.path, file.read())
        for name in manifest_files(self.selected.manifest):
            require(name, self.selected.manifest.to_json())


_AGAIN = "delete it there, push again, and see whether that storage is sound"


def _standing(remote: Remote, root: Path, replace: bool) -> Manifest | None:
    """The manifest at the URL; None where there is none, or none that can be read and is to be replaced."""
    if remote.size(MANIFEST) is None:
        return None
    try:
        return read_manifest(remote, root)
    except (DamageError, MismatchError) as error:
        if replace:
            return None
        raise type(error)(f"{error}; with --replace it makes way for this cache") from None


def _clear(remote: Remote, standing: Manifest) -> None:
    """Remove the cache at a URL, the manifest last: whoever is killed finds it by the manifest again."""
    names = (name for record in standing.records for name in (*_record_names(standing, record), record.path))
    in_parallel(remote.remove, names, 8, remote.give_up)
    for name in (*(file.path for file in standing.index), *manifest_files(standing)):
        remote.remove(name)


def _record_names(manifest: Manifest, record: Record) -> list[str]:
    """The commit record of a shard, from the URL, if shards have such."""
    return [Ledger(Path()).record_path(record.field, record.shard).as_posix()] if manifest.format.keeps_records else []
