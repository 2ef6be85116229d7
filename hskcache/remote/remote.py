"""Files at a URL, by their names below it: read in part or whole, written whole, sized and removed.

fsspec speaks to the servers: file, http and https, s3, gs, sftp, hf and what else it knows. Reading needs no listing,
which http servers do not give, since every name of a cache follows from its manifest. A file that is being written is
never seen half: object stores show it when it is there, and elsewhere it is renamed into place.

The hub, hf://, is the same code as every other object store here, but was never run against the live one; each file is
a commit there, so that a large cache goes quicker with the hub's own upload of a folder, which pull reads as well.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from hskcache.depot.retry import OutOfReachError, patiently, reaching, retry_seconds
from hskcache.depot.waiting import WAITING, Wait
from hskcache.errors import CacheError, DamageError
from hskcache.remote.objects import Objects
from hskcache.remote.place import is_url
from hskcache.remote.systems import HTTP, SFTP, check_protocol, open_system

Result = TypeVar("Result")


def open_remote(url: str, retry_s: float | None = None) -> "Remote":
    """The folder at a URL; nothing is read, so it need not be there.

    It belongs to the process that opens it: forked children are refused, and open their own.

    Args:
        url: such as ``s3://bucket/sst2.hsk``, or the path of a folder; the query of an http one goes with
            every name.
        retry_s: seconds for which a server that does not answer is tried again; None: HSKCACHE_RETRY_S, or a minute.

    Raises:
        CacheError: it is no URL, or one that no installed package can reach.
    """
    if not is_url(url):
        if ":" in url.partition("/")[0] or not url:
            raise CacheError(f"{url!r} is not a URL; give one such as s3://bucket/x.hsk, or the path of a folder")
        url = f"file://{Path(url).expanduser().absolute()}"
    try:
        # Looked at by name: urlsplit finds a port that is none only when it is asked for it.
        _ = urlsplit(url).port
    except ValueError:
        raise CacheError(
            "the URL has a port that is no number; write : / and @ in a password as %3A, %2F and %40"
        ) from None
    scheme, _, rest = url.partition("://")
    if not rest.partition("?")[0].strip("/") or (scheme.lower() in (*HTTP, *SFTP) and rest.startswith("/")):
        raise CacheError(f"{scheme}:// names no place; give one such as s3://bucket/x.hsk")
    if scheme.lower() in SFTP and "?" in rest.rpartition("@")[2]:
        raise CacheError("an sftp URL has no query; choose a folder without ? in its path")
    remote = Remote(url, retry_seconds(retry_s))
    remote.check()
    return remote


class Remote:
    """A folder at a URL. Threads may share it; a process that is forked opens its own.

    Attributes:
        url: as people may read it, without user, password and query.
    """

    def __init__(self, url: str, retry_s: float) -> None:
        self._protocol = url.partition("://")[0].lower()
        base, mark, query = url.partition("#")[0].partition("?") if self._protocol in HTTP else (url, "", "")
        # fsspec knows schemes by their small letters.
        base = self._protocol + base[len(self._protocol) :]
        self._base, self._query = base.rstrip("/"), mark + query
        self._secrets = _secrets(url, query)
        self._retry_s = retry_s
        self._idle: list[Objects] = []
        self._process = os.getpid()
        self._is_given_up = False
        self.url = _USER.sub("://", self._base)

    @property
    def is_read_only(self) -> bool:
        """True if this kind of server takes no files, which is known before any is sent."""
        return self._protocol in HTTP

    def check(self) -> None:
        """Raise unless the packages for this URL are there.

        Raises:
            CacheError: no installed package can reach it.
        """
        # Outside of what follows: without fsspec itself, the extra is missing, which the command line tells.
        import fsspec  # noqa: F401

        with reaching(self.url, self._redact):
            try:
                check_protocol(self._protocol)
            except ValueError:
                known = "s3://, gs://, http(s)://, sftp://, hf:// or file://"
                raise CacheError(f"{self.url}: nothing is known of {self._protocol}://; give {known}") from None

    def check_process(self) -> None:
        """Raise unless this process is the one that opened it.

        A forked child has copies of its parent's connections and none of the threads that serve them: it would wait
        for ever, or take what its parent waits for.

        Raises:
            CacheError: it was opened before a fork.
        """
        if self._process != os.getpid():
            raise CacheError(
                f"{self.url} was opened before this process was forked, which cannot use what its parent opened; open "
                "it after the fork, or spawn processes instead"
            )

    def describe(self, name: str) -> str:
        """The URL of a file as people may read it."""
        return f"{self.url}/{name}"

    def read(self, name: str, most_bytes: int, start: int = 0, stop: int | None = None) -> bytes:
        """Read a file, or the bytes [start, stop) of it.

        Args:
            name: below the URL, with ``/`` between folders.
            most_bytes: that it may give; no more are held, whatever the server sends.
            start: first byte.
            stop: one past the last; None: to the end. A file that ends before gives less.

        Raises:
            FileNotFoundError: there is no such file.
            DamageError: it is larger than ``most_bytes``.
            OutOfReachError: the server did not answer, however often it was asked.
            CacheError: it may not be read.
        """

        def read() -> bytes:
            data = bytearray()
            for piece in self.pieces(name, start, start + most_bytes + 1 if stop is None else stop):
                data += piece
                if len(data) > most_bytes:
                    raise DamageError(f"{self.describe(name)} is larger than the {most_bytes} bytes that it may have")
            return bytes(data)

        return self.patiently(read)

    def pieces(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of a file, one piece after the other, with one attempt.

        Yields:
            At most some megabytes each; the file's end may come before ``stop``.

        Raises:
            FileNotFoundError: there is no such file.
            OutOfReachError: the server does not answer, or stopped to; another attempt may go on from there.
            CacheError: it may not be read.
        """
        with self._awaited(name) as wait, self._connected(name) as system:
            for piece in system.pieces(name, start, stop):
                wait.rests()
                yield piece
                wait.goes_on()

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, in place of what may stand there.

        Raises:
            OutOfReachError: the server did not answer, however often it was asked.
            CacheError: it may not be written, or the bucket is not there.
        """
        try:
            # Nothing tells how much of a file has gone, so that a long way is no silence.
            self._ask(name, lambda system: system.write(name, data), is_awaited=False)
        except FileNotFoundError:
            raise CacheError(
                f"{self.describe(name)} cannot be written: its bucket is not there; make it first"
            ) from None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is no such file.

        Raises:
            OutOfReachError, CacheError: as :meth:`read`.
        """
        try:
            return self._ask(name, lambda system: system.size(name))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone already.

        Raises:
            OutOfReachError, CacheError: as :meth:`write`.
        """
        try:
            self._ask(name, lambda system: system.remove(name))
        except FileNotFoundError:
            return

    def names(self, folder: str) -> list[str] | None:
        """Names of the files in a folder and in those below it, from there; None where the server lists none.

        The names are a stranger's: check them before they become paths.

        Raises:
            OutOfReachError, CacheError: as :meth:`read`.
        """
        if self._protocol in HTTP:
            return None
        try:
            return self._ask(folder, lambda system: system.names(folder))
        except FileNotFoundError:
            return []

    def patiently(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` again as long as it raises OutOfReachError and the time for attempts is not over."""
        return patiently(work, self._retry_s)

    def give_up(self) -> None:
        """Let nobody try again: whoever waits for the server in another thread ends with a CacheError."""
        self._is_given_up = True

    def _ask(self, name: str, question: Callable[[Objects], Result], is_awaited: bool = True) -> Result:
        def attempt() -> Result:
            with self._awaited(name) if is_awaited else nullcontext(), self._connected(name) as system:
                return question(system)

        return self.patiently(attempt)

    def _awaited(self, name: str) -> AbstractContextManager[Wait]:
        """Have it told if the answer does not come; a disk has none to wait for."""
        return nullcontext(Wait("")) if self._protocol in ("file", "local") else WAITING.answer(self.describe(name))

    @contextmanager
    def _connected(self, name: str) -> Iterator[Objects]:
        """A connection that nobody else uses meanwhile, as not every library knows threads."""
        self.check_process()
        if self._is_given_up:
            raise CacheError(f"{self.describe(name)} was given up")
        is_lost = False
        try:
            system = self._idle.pop()
        except IndexError:
            with reaching(self.describe(name), self._redact):
                system = open_system(self._protocol, self._base, self._query)
        try:
            with reaching(self.describe(name), self._redact):
                yield system
        except OutOfReachError:
            is_lost = True
            raise
        finally:
            if is_lost:
                system.close()
            else:
                self._idle.append(system)

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        # A server may have sent us elsewhere, by a URL that is signed.
        return _SIGNED.sub(r"\1***", text)


_USER = re.compile(r"://[^/?#]*@")
_SIGNED = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")


def _secrets(url: str, query: str) -> list[str]:
    """Parts of a URL that nobody may read, the longest first: what stands before the host, and the query."""
    user = _USER.search(url)
    secrets = {query} if user is None else {query, user[0][3:], user[0][3:-1], user[0][3:-1].partition(":")[2]}
    return sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True)
