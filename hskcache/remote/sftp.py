"""sftp to hosts that are known: a stranger in between would get the password, and could give any cache for this one.

fsspec takes whatever key a host shows. Here it must be the one in ``~/.ssh/known_hosts``, as for ssh itself; with
FSSPEC_SFTP_HOST_KEY_POLICY=auto_add a host that is not in there is taken at its word, a changed key never.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]
from fsspec.implementations.sftp import SFTPFileSystem

from hskcache.errors import CacheError, SpecError
from hskcache.remote.home import in_home, user_name

_POLICY = "host_key_policy"
_FILE = "known_hosts"
# A server that died or hung while we signed in, and not one that said no.
_UNANSWERED = re.compile("timeout|shut down")
# Service not available, connection lost, too many connections.
_BUSY = (7, 10, 12)


class KnownHosts(SFTPFileSystem):  # type: ignore[misc]
    """fsspec's sftp; ``known_hosts`` and ``host_key_policy`` are of its configuration or arguments."""

    cachable = False

    def __init__(self, host: str, **options: Any) -> None:
        self._takes_unknown = options.pop(_POLICY, "reject") in {"auto_add", "warning"}
        self._file = self._known(options.pop(_FILE, "~/.ssh/known_hosts"))
        super().__init__(host, **options)

    def _known(self, path: str) -> Path:
        try:
            return in_home(path, "give the file of known hosts in FSSPEC_SFTP_KNOWN_HOSTS")
        except SpecError:
            if not self._takes_unknown:
                raise
            return Path(os.devnull)

    # Before 2025.10 fsspec takes what it is given here for paths.
    def info(self, path: str, **options: Any) -> Any:
        """Size and kind of what a URL or path names."""
        return super().info(self._strip_protocol(path), **options)

    def mv(self, old: str, new: str, **options: Any) -> None:
        """Rename, over what stands there."""
        super().mv(self._strip_protocol(old), self._strip_protocol(new), **options)

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        if self._file.is_file():
            self.client.load_system_host_keys(str(self._file))
        if self._takes_unknown:
            self.client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        else:
            self.client.set_missing_host_key_policy(_Refused(self._file))
        try:
            self._sign_in()
            with self._hurried():
                self.ftp = self.client.open_sftp()
        except BaseException:
            self.client.close()
            raise

    def _sign_in(self) -> None:
        # paramiko would look the name up, and not survive it where there is none.
        given = dict(self.ssh_kwargs)
        given["username"] = given.get("username") or user_name("give one in the URL: sftp://USER@HOST/PATH")
        try:
            self.client.connect(self.host, transport_factory=_Transport, **given)
        except paramiko.BadHostKeyException as error:
            raise CacheError(
                f"{error.hostname} shows another host key ({_fingerprint(error.key)}) than {self._file} has: it was "
                "set up anew, or somebody stands in between; ask who runs it before you change that file"
            ) from None
        except paramiko.SSHException as error:
            _tell_lost_from_refused(error, self.client.get_transport())
            raise

    @contextmanager
    def _hurried(self) -> Iterator[None]:
        """Hang up on a server that takes its time, for which paramiko would wait without end."""
        hurry = threading.Timer(float(self.ssh_kwargs["channel_timeout"]), self.client.close)
        hurry.daemon = True
        hurry.start()
        try:
            yield
        finally:
            hurry.cancel()

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        file = super()._open(path, *arguments, **options)
        if (ask_ahead := getattr(file, "_prefetch_thread", None)) is not None:
            file._prefetch_thread = partial(_ask_quietly, file, ask_ahead)
        return file


def _ask_quietly(file: Any, ask_ahead: Callable[..., None], chunks: Iterable[Any], *limits: Any) -> None:
    """Ask for what comes next in a file as long as somebody reads it.

    It would print a traceback when the connection ends, of which who reads tells anyway.
    """
    with suppress(EOFError, OSError, paramiko.SSHException):
        ask_ahead((chunk for chunk in chunks if not file.closed), *limits)


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """Keeps why a server hangs up, which paramiko only logs: the code of RFC 4253, section 11.1, and words."""

    code = 0
    reason = ""

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        super()._parse_disconnect(message)
        message.rewind()
        self.code = message.get_int()
        self.reason = message.get_text()


def _tell_lost_from_refused(error: paramiko.SSHException, transport: _Transport) -> None:
    """Whom nobody answers is refused for paramiko, and who is sent away while signing in has merely no session."""
    if transport.code in _BUSY:
        raise ConnectionError(transport.reason) from None
    if transport.auth_handler is not None and transport.reason:
        raise paramiko.AuthenticationException(transport.reason) from None
    if isinstance(error, paramiko.AuthenticationException) and _UNANSWERED.search(str(error)):
        raise ConnectionError(str(error)) from None


class _Refused(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Says what to do about a host that is not known."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Refuse.

        Raises:
            CacheError: always.
        """
        host, _, port = hostname.removeprefix("[").partition("]:")
        raise CacheError(
            f"{hostname} is not in {self._file}, so nobody knows whether it is what it says; its key is "
            f"{_fingerprint(key)}: where that is right, ssh-keyscan -p {port or 22} {host} >> {self._file}"
        )


def _fingerprint(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"
