"""sftp to hosts that are known: a stranger in between would get the password, and could give any cache for this one.

fsspec takes whatever key a host shows. Here it must be the one in ``~/.ssh/known_hosts``, as for ssh itself; with
FSSPEC_SFTP_HOST_KEY_POLICY=auto_add a host that is not in there is taken at its word, a changed key never.
"""

import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]
from fsspec.utils import infer_storage_options

from hskcache.depot.waiting import SILENCE_S
from hskcache.errors import CacheError, SpecError
from hskcache.remote.folders import SftpFiles
from hskcache.remote.home import in_home, user_name

_POLICY, _FILE = "host_key_policy", "known_hosts"
# A server that died or hung while we signed in, and not one that said no.
_UNANSWERED = re.compile("timeout|shut down")
_PORT = 22
_LOST = (OSError, EOFError, paramiko.SSHException)


def _tell_nobody_of_lost(before: Callable[[threading.ExceptHookArgs], object]) -> None:
    """Have nothing printed where a connection is lost to the thread of paramiko that asks ahead: its reader raises."""

    def hook(args: threading.ExceptHookArgs) -> None:
        modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(args.exc_traceback)}
        if not (issubclass(args.exc_type, _LOST) and paramiko.SFTPFile.__module__ in modules):
            before(args)

    threading.excepthook = hook


_tell_nobody_of_lost(threading.excepthook)


def open_sftp(url: str, options: dict[str, Any]) -> SftpFiles:
    """Sign in to a server.

    Args:
        url: of a folder.
        options: of paramiko's ``SSHClient.connect``, with ``channel_timeout``; ``known_hosts`` is a file, and with
            the ``host_key_policy`` auto_add hosts that are not in it are taken at their word.

    Raises:
        CacheError: the host is not known, or not by the key that it shows.
        Exception: paramiko's and the system's, for whatever else.
    """
    place = infer_storage_options(url)
    given = options | {name: place[name] for name in ("port", "username", "password") if name in place}
    takes_unknown = given.pop(_POLICY, "reject") in {"auto_add", "warning"}
    known_hosts = _known_hosts(given.pop(_FILE, "~/.ssh/known_hosts"), takes_unknown)
    client = _client(known_hosts, takes_unknown)
    try:
        _sign_in(client, place["host"], given, known_hosts)
        with _hurried(client, float(given["channel_timeout"])):
            system = client.open_sftp()
    except BaseException:
        client.close()
        raise
    system.get_channel().settimeout(SILENCE_S)
    return SftpFiles(client, system, place["path"])


def _known_hosts(path: str, takes_unknown: bool) -> Path:
    try:
        return in_home(path, "give the file of known hosts in FSSPEC_SFTP_KNOWN_HOSTS")
    except SpecError:
        if not takes_unknown:
            raise
        return Path(os.devnull)


def _client(known_hosts: Path, takes_unknown: bool) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    if known_hosts.is_file():
        client.load_system_host_keys(str(known_hosts))
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy() if takes_unknown else _Refused(known_hosts))
    return client


def _sign_in(client: paramiko.SSHClient, host: str, options: dict[str, Any], known_hosts: Path) -> None:
    # paramiko would look the name up, and not survive it where there is none.
    name = options.get("username") or user_name("give one in the URL: sftp://USER@HOST/PATH")
    try:
        client.connect(host, **options | {"username": name, "sock": _connected(host, options)})
    except paramiko.BadHostKeyException as error:
        raise CacheError(
            f"{error.hostname} shows another host key ({_fingerprint(error.key)}) than {known_hosts} has: it was "
            "set up anew, or somebody stands in between; ask who runs it before you change that file"
        ) from None
    except paramiko.AuthenticationException as error:
        # For paramiko, who does not answer has refused.
        if _UNANSWERED.search(str(error)):
            raise ConnectionError(str(error)) from None
        raise


def _connected(host: str, options: dict[str, Any]) -> socket.socket:
    connection = socket.create_connection((host, options.get("port", _PORT)), options["timeout"])
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # paramiko would try for ever to send to a server that takes no more.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_S * 1000))
    return connection


@contextmanager
def _hurried(client: paramiko.SSHClient, seconds: float) -> Iterator[None]:
    """Hang up on a server that takes its time, for which paramiko would wait without end."""
    hurry = threading.Timer(seconds, client.close)
    hurry.daemon = True
    hurry.start()
    try:
        yield
    finally:
        hurry.cancel()


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
