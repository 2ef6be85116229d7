"""A cache to a URL: what is missing or different there is sent, every shard verified while it is read here.

The order is that of a build: each shard, then its commit record, the tokenizer, the card, and the manifest last, so
that a URL holds a whole cache or, until the same command has gone on, none that anybody could take for one. A record
there with the content of the one here vouches for a shard of the right size. The tokenizer's names are not in the
manifest; a list of them is left beside it for servers that list no folders.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.move.card import card, is_card
from hskcache.move.parallel import Budget, Watch, in_parallel
from hskcache.move.selected import Choice, Selected, Side, select
from hskcache.remote.fetch import TOKENIZER_FILES, read_manifest, remote_sha256
from hskcache.remote.remote import Remote
from hskcache.store.beside import MAX_README_BYTES, README, Beside, read_beside, spelled
from hskcache.store.files import read_file, sha256_hex
from hskcache.store.ledger import MANIFEST, TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
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
    root: Path, remote: Remote, choice: Choice, manner: Manner | None = None, watch: Watch | None = None
) -> Pushed:
    """Send a cache, or some fields and rows of it, to a URL that is empty or has a part of it.

    Args:
        root: the cache's directory.
        remote: where it is to go.
        choice: what to send.
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
    source = Side(str(root), beside.manifest)
    standing = _standing(remote, manner.replace)
    try:
        selected = select(source, None if standing is None else Side(remote.url, standing), choice)
    except MismatchError as error:
        if not manner.replace or standing is None:
            raise MismatchError(f"{error}" + (", or give --replace" if standing is not None else "")) from None
        selected = select(source, None, choice)
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
        self._send_tokenizer(beside, manner.jobs)
        self._send_card(beside.readme)
        if standing is None or standing.to_json() != manifest.to_json():
            self.remote.write(MANIFEST, manifest.to_json())
        if manner.verify:
            self._verify(beside, manner.jobs)
        there = [record for (_, record), was_sent in zip(self.selected.records, sent, strict=True) if not was_sent]
        kept_bytes = sum(record.num_bytes for record in there)
        verified = num_bytes if manner.verify else None
        return Pushed(self.selected, len(sent) - len(there), len(there), num_bytes - kept_bytes, verified)

    def _send(self, pair: tuple[Record, Record]) -> bool:
        """Send a shard and then its record; whether they were not there."""
        ours, theirs = pair
        shard, record = _names(theirs)
        is_there = self._is_vouched(record, theirs) and self.remote.size(shard) == theirs.num_bytes
        if not is_there:
            with self.memory.holding(ours.num_bytes):
                self.remote.write(shard, self._verified(ours))
            self.remote.write(record, spelled(theirs))
        self.tell(ours.num_bytes)
        return not is_there

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
        """Send the tokenizer's files and, last, the list of them, which vouches for them as a record does."""
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

    def _is_vouched(self, name: str, record: Record) -> bool:
        """True if a commit record is there, in the spelling of whichever version has written it."""
        try:
            data = self.remote.read(name, 2 * len(spelled(record)) + _SPELLING_BYTES)
            return parse(Record, data, name) == record
        except (FileNotFoundError, DamageError):
            return False

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
            shard, record = _names(pair[1])
            if remote_sha256(self.remote, shard, pair[1].num_bytes) != pair[1].sha256:
                raise DamageError(f"{self.remote.describe(shard)} is not what was sent; {_AGAIN}")
            if not self._is_vouched(record, pair[1]):
                raise DamageError(f"{self.remote.describe(record)} is not what was sent; {_AGAIN}")
            self.tell(pair[1].num_bytes)

        def require(name: str, data: bytes) -> None:
            if not self._is_there(name, data):
                raise DamageError(f"{self.remote.describe(name)} is not what was sent; {_AGAIN}")

        in_parallel(check, self.selected.records, jobs, self.remote.give_up)
        for name, data in beside.tokenizer.items():
            require(f"{TOKENIZER}/{name}", data)
        require(MANIFEST, self.selected.manifest.to_json())


_AGAIN = "delete it there, push again, and see whether that storage is sound"


def _standing(remote: Remote, replace: bool) -> Manifest | None:
    """The manifest at the URL; None where there is none, or none that can be read and is to be replaced."""
    if remote.size(MANIFEST) is None:
        return None
    try:
        return read_manifest(remote)
    except (DamageError, MismatchError) as error:
        if replace:
            return None
        raise type(error)(f"{error}; with --replace it makes way for this cache") from None


def _clear(remote: Remote, standing: Manifest) -> None:
    """Remove the cache at a URL, the manifest last: whoever is killed finds it by the manifest again."""
    names = [name for record in standing.records for name in reversed(_names(record))]
    in_parallel(remote.remove, names, 8, remote.give_up)
    remote.remove(MANIFEST)


def _names(record: Record) -> tuple[str, str]:
    """The shard and its record, from the URL."""
    return record.path, Ledger(Path()).record_path(record.field, record.shard).as_posix()
