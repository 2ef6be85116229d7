"""The kinds of servers, where they differ: object stores, folders on disks, and http pages.

Each is one thread's view of an fsspec file system and makes one attempt; what the libraries raise is passed on.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

from hskcache.depot.waiting import SILENCE_S
from hskcache.remote.folders import LocalFiles
from hskcache.remote.objects import PIECE_BYTES, Objects, is_past_the_end

HTTP = ("http", "https")
SFTP = ("sftp", "ssh")
_WITHOUT_RANGE = 200
_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)")
# A server that does not let us in for so long is tried again, as is one that is silent for SILENCE_S.
_CONNECT_S = 15.0
# fsspec forgets its systems in a forked child, where Python would then clear their connections away, its parent's too.
_KEPT: dict[int, Any] = {}


class Pages(Objects):
    """An http server: it gives files, says nothing of folders and takes nothing."""

    def pieces(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """As :meth:`Objects.pieces`; a server that knows no ranges sends what was there before ``start``, too."""
        end, before = stop, -1
        # Once, but for servers that give only so much at a time.
        while before < start < end:
            before, response = start, self._get(name, start, end)
            if response is None:
                return
            with response as file:
                is_whole = file.r.status == _WITHOUT_RANGE
                end = start if is_whole else _end(file.r, start, stop)
                skipped = start if is_whole else 0
                while skipped and (piece := file.read(min(PIECE_BYTES, skipped))):
                    skipped -= len(piece)
                while start < stop and (piece := file.read(min(PIECE_BYTES, stop - start))):
                    yield piece
                    start += len(piece)

    def size(self, name: str) -> int:
        """As :meth:`Objects.size`; the headers of a first byte tell it, where there is one."""
        response = self._get(name, 0, 1)
        if response is None:
            return 0
        with response as file:
            total = str(file.r.headers.get("Content-Range", "")).rpartition("/")[2]
            return int(file.r.headers["Content-Length"] if file.r.status == _WITHOUT_RANGE else total)

    def write(self, name: str, data: bytes) -> None:
        """Raises NotImplementedError."""
        raise NotImplementedError(name)

    def remove(self, name: str) -> None:
        """Raises NotImplementedError."""
        raise NotImplementedError(name)

    def names(self, folder: str) -> list[str]:
        """Raises NotImplementedError."""
        raise NotImplementedError(folder)

    def _get(self, name: str, start: int, stop: int) -> Any:
        """An open response; None where the file ends before ``start``."""
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            # A size keeps fsspec from asking for one first, and no blocks make it stream.
            return self.system.open(self._path(name), "rb", block_size=0, size=1, headers=headers)
        except Exception as error:
            if not is_past_the_end(error):
                raise
            return None


def check_protocol(protocol: str) -> None:
    """Raise unless the packages for a kind of URL are there.

    Raises:
        ValueError: nothing is known of it.
        ImportError: a package is missing.
    """
    from fsspec import get_filesystem_class

    get_filesystem_class(protocol)


def open_system(protocol: str, url: str, query: str = "") -> Objects:
    """Connect to a server, for one thread of one process.

    Args:
        protocol: that of the URL.
        url: of the folder.
        query: that is sent along with every name, of an http URL.
    """
    from fsspec import get_filesystem_class
    from fsspec.core import url_to_fs

    for library in ("paramiko", "asyncio"):
        # Where nobody has set logging up, they print each lost connection, and a traceback with it.
        logging.getLogger(library).addHandler(logging.NullHandler())
    options = _options(protocol)
    if protocol in SFTP:
        from hskcache.remote.sftp import open_sftp

        return open_sftp(url, options)
    if not get_filesystem_class(protocol).async_impl:
        options["skip_instance_cache"] = True
    system, root = url_to_fs(url, **options)
    if protocol in ("file", "local"):
        return LocalFiles(root)
    if system.async_impl:
        _KEPT[id(system)] = system
    if hasattr(system, "retries"):
        # Of s3fs and gcsfs, which would try again five times before the time for attempts is looked at.
        system.retries = 1
    return Pages(system, root, query) if protocol in HTTP else Objects(system, root)


def _options(protocol: str) -> dict[str, Any]:
    """Options on how long to wait, and that leave retries to us, unless fsspec's own configuration says otherwise.

    fsspec adds its configuration for the systems that it opens itself; that for sftp is added here.
    """
    from fsspec.config import conf

    options: dict[str, Any] = {}
    if protocol in SFTP:
        options |= dict.fromkeys(("timeout", "banner_timeout", "auth_timeout", "channel_timeout"), _CONNECT_S)
        for name in SFTP:
            options |= conf.get(name, {})
        return options
    if protocol in HTTP:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=SILENCE_S)
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
    elif protocol in ("s3", "s3a"):
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    return {name: value for name, value in options.items() if name not in conf.get(protocol, {})}


def _end(response: Any, start: int, stop: int) -> int:
    """End of what a response to a range says that there is to read.

    Raises:
        OSError: it is of another range.
    """
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        return stop
    if int(match[1]) != start:
        raise OSError(f"bytes from {match[1]} were sent where those from {start} were asked for")
    return min(stop, int(match[2]) if match[2] != "*" else start)
