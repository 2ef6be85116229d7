"""Object stores through obstore: S3, Google Cloud Storage, Azure, folders of this machine, and memory.

obstore makes one attempt a request; what is tried again, for how long, and what is told of it is that of all servers,
see :mod:`~hskcache.depot.retry`. Files are put by one request each, never in parts: a kill leaves no part of one that a
bucket would keep and bill unseen.
"""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from hskcache.depot.abc import Found
from hskcache.depot.credentials import s3_settings
from hskcache.depot.retry import patiently, reaching, retry_seconds
from hskcache.depot.waiting import SILENCE_S, WAITING
from hskcache.errors import CacheError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "azure": "az"}
"""Schemes of URLs, by which of the stores is meant."""

_MOST_CONFLICTS = 8
# Whoever takes or gives a file slower than that has stopped.
_SLOWEST_BYTES_PER_S = 10_000
_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([^<]{1,60})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})</Message>")
# Answers that are said to be final and are not, by the code that S3 gives.
_PASSING = ("RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted")

# The process in which obstore has begun to work; its children have a copy of this.
_USED_BY: dict[str, int] = {}

Result = TypeVar("Result")


class AnswerError(Exception):
    """Answer of a store that is no success, in words that people may read.

    Attributes:
        status: of HTTP, where it is known and means what it says.
    """

    def __init__(self, words: str, status: int | None) -> None:
        super().__init__(words)
        self.status = status


class Stores:
    """A depot in an object store.

    Args:
        url: as people may read it.
        store: makes the obstore of it, of which a request may take so many seconds at most.
        retry_s: seconds for which a store that does not answer is tried again.
    """

    def __init__(self, url: str, store: Callable[[int], "ObjectStore"], retry_s: float) -> None:
        self.url = url
        self._store = store
        self._retry_s = retry_s

    def get(self, name: str) -> bytes:
        """As :meth:`~hskcache.depot.abc.Depot.get`."""
        import obstore

        return self._ask(name, lambda store: bytes(obstore.get(store, name).bytes()), 1 << 30)

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """As :meth:`~hskcache.depot.abc.Depot.get_range`."""
        import obstore

        def read(store: "ObjectStore") -> bytes:
            size = obstore.head(store, name)["size"]
            end = min(stop, size)
            return bytes(obstore.get_range(store, name, start=start, end=end)) if start < end else b""

        return self._ask(name, read, stop - start)

    def put(self, name: str, data: bytes) -> None:
        """As :meth:`~hskcache.depot.abc.Depot.put`."""
        self._writing(name, lambda store: self._put(store, name, data, "overwrite"), len(data))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """As :meth:`~hskcache.depot.abc.Depot.put_if_absent`."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def create(store: "ObjectStore") -> bool:
            try:
                return self._put(store, name, data, "create")
            except (AlreadyExistsError, PreconditionError):
                return False

        for _ in range(_MOST_CONFLICTS):
            if self._writing(name, create, len(data)):
                return True
            try:
                # An attempt whose answer was lost may have been ours.
                return self.get(name) == data
            except FileNotFoundError:
                # It was removed meanwhile, or a store that has two at it at once lets neither.
                continue
        raise CacheError(f"{self.url}/{name} is put and removed all the time; see who else writes there")

    def list(self, prefix: str = "") -> list[Found]:
        """As :meth:`~hskcache.depot.abc.Depot.list`."""
        import obstore

        def read(store: "ObjectStore") -> list[Found]:
            pages = obstore.list(store, prefix.rpartition("/")[0] or None)
            found = [
                Found(one["path"], one["size"], one["last_modified"].timestamp()) for page in pages for one in page
            ]
            return sorted(one for one in found if one.name.startswith(prefix))

        return self._ask(prefix, read)

    def delete(self, *names: str) -> None:
        """As :meth:`~hskcache.depot.abc.Depot.delete`."""
        import obstore

        if not names:
            return
        try:
            self._ask(names[0], lambda store: obstore.delete(store, list(names)))
        except FileNotFoundError:
            # Stores that remove one at a time may have stopped there.
            for name in names if len(names) > 1 else ():
                self.delete(name)

    def _put(self, store: "ObjectStore", name: str, data: bytes, mode: Literal["create", "overwrite"]) -> bool:
        import obstore

        obstore.put(store, name, data, mode=mode, use_multipart=False)
        return True

    def _writing(self, name: str, question: "Callable[[ObjectStore], bool]", num_bytes: int) -> bool:
        try:
            return self._ask(name, question, num_bytes)
        except FileNotFoundError:
            raise CacheError(f"{self.url}/{name} cannot be written: its bucket is not there; make it first") from None

    def _ask(self, name: str, question: "Callable[[ObjectStore], Result]", num_bytes: int = 0) -> Result:
        """Ask the store, again and again where it does not answer; ``num_bytes`` may go to and fro."""
        _require_own_threads(self.url)
        # Few stores, each with connections of its own: a power of two.
        limit_s = 1 << int(SILENCE_S + num_bytes / _SLOWEST_BYTES_PER_S).bit_length()

        def attempt() -> Result:
            place = f"{self.url}/{name}"
            with WAITING.answer(place), reaching(place, lambda text: text):
                try:
                    return question(self._store(limit_s))
                except Exception as error:  # noqa: BLE001  (whatever obstore and its credentials raise)
                    raise _plain(error, place) from None

        return patiently(attempt, self._retry_s)


def open_stores(url: str, retry_s: float | None = None) -> Stores:
    """The depot at a URL of an object store; nothing is read, so it need not be there.

    Args:
        url: such as ``s3://bucket/sst2.hsk``, ``gs://``, ``az://container/``, ``file:///folder`` or ``memory://``.
        retry_s: seconds for which a store that does not answer is tried again; None: HSKCACHE_RETRY_S, or a minute.

    Raises:
        CacheError: it names no place, obstore is not installed, or there are no credentials for it.
    """
    _require_obstore()
    parts = urlsplit(url)
    scheme, place = parts.scheme.lower(), parts.path.strip("/")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{place}".rstrip("/")
    if scheme in ("file", "memory"):
        store = _local(Path("/" + unquote(place))) if scheme == "file" else _memory()
        return Stores(shown, lambda _limit_s: store, 0.0)
    if scheme not in SCHEMES:
        raise CacheError(f"{shown}: {scheme}:// is no object store; give s3://, gs:// or az://")
    if not parts.netloc:
        raise CacheError(f"{scheme}:// names no bucket; give one such as {scheme}://bucket/x.hsk")
    make = {"s3": _s3, "gs": _gs, "az": _az}[SCHEMES[scheme]]
    settings = s3_settings(shown) if make is _s3 else {}
    return Stores(shown, cache(lambda limit_s: make(parts.netloc, place, limit_s, settings)), retry_seconds(retry_s))


def _require_own_threads(url: str) -> None:
    """Raise CacheError in a child that was forked from a process in which obstore works.

    The two would share what wakes its threads, and the parent would take the child's answers for its own and crash.
    """
    if _USED_BY.setdefault("process", os.getpid()) != os.getpid():
        raise CacheError(
            f"{url} cannot be reached from a process that was forked from one that uses obstore; spawn it instead"
        )


def _require_obstore() -> None:
    from importlib.util import find_spec

    if find_spec("obstore") is None:
        raise CacheError("obstore is not installed; install the extra: pip install 'hskcache[share]'")


def _s3(bucket: str, prefix: str, limit_s: int, settings: dict[str, Any]) -> "ObjectStore":
    from obstore.store import S3Store

    return S3Store(bucket, prefix=prefix or None, **settings, **_manner(limit_s))


def _gs(bucket: str, prefix: str, limit_s: int, settings: dict[str, Any]) -> "ObjectStore":
    from obstore.store import GCSStore

    return GCSStore(bucket, prefix=prefix or None, **settings, **_manner(limit_s))


def _az(container: str, prefix: str, limit_s: int, settings: dict[str, Any]) -> "ObjectStore":
    from obstore.store import AzureStore

    return AzureStore(container, prefix=prefix or None, **settings, **_manner(limit_s))


def _local(folder: Path) -> "ObjectStore":
    from obstore.store import LocalStore

    return LocalStore(folder, mkdir=True)


def _memory() -> "ObjectStore":
    from obstore.store import MemoryStore

    return MemoryStore()


def _manner(limit_s: int) -> dict[str, Any]:
    """Settings of all stores: how long a request may take, and that it is made once."""
    return {
        # What is no https is named by the user's own endpoint.
        "client_options": {"timeout": f"{limit_s}s", "connect_timeout": "15s", "allow_http": True},
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(0)},
    }


def _plain(error: Exception, place: str) -> Exception:
    """An error of obstore, whose words are pages, by what it means; that a file is missing stays what it is."""
    from obstore.exceptions import BaseError

    text = str(error).partition("\n\nDebug source")[0]
    code, message, number = _CODE.search(text), _MESSAGE.search(text), _STATUS.search(text)
    name = code[1] if code else ""
    if name == "NoSuchBucket":
        return CacheError(f"{place}: there is no such bucket; make it first, or give another URL")
    if name == "RequestTimeTooSkewed":
        return CacheError(f"{place} is refused as the clock of this machine is off; set it, and give the command again")
    if isinstance(error, FileNotFoundError) or not isinstance(error, BaseError):
        return error
    words = f"{name}: {message[1]}" if code and message else name or text.rpartition(" - ")[2] or text
    status = None if number is None or name in _PASSING else int(number[1])
    return AnswerError(" ".join(words.split())[:300], status)
