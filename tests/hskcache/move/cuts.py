"""Connections that are cut at any message of a push or a pull, over each kind of server: one line, and it goes on."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from cutting import Cutting, Manner, cutting
from noise import files, write_cache
from servers import Server, http_server, nginx_server, s3_server, sftp_server, sshd_server
from sharing import done, hskcache, reach

from hskcache.cache import Cache

Command = Literal["push", "pull"]
COMMANDS: dict[str, tuple[Command, ...]] = {
    "s3": ("push", "pull"),
    "sftp": ("push", "pull"),
    "sshd": ("push", "pull"),
    "http": ("pull",),
    "nginx": ("pull",),
}
"""Kinds of servers (moto, asyncssh, OpenSSH, aiohttp, nginx), and what can be done with each."""

_PATIENCE_S = "10"


@dataclass
class Way:
    """A cache here, and a server behind a proxy.

    Attributes:
        cache: what is pushed; under the same name it is on the server to be pulled.
        url: of the folder on the server, through the proxy.
        folder: of this way's own.
        served: the folder that the server shows, where it is one of this machine that clients write into.
        proxy: cuts the connections.
        environment: to be set while commands run.
        tracebacks: errors that ended a thread, which Python prints.
    """

    cache: Cache
    url: str
    folder: Path
    served: Path | None
    proxy: Cutting
    environment: pytest.MonkeyPatch
    tracebacks: list[threading.ExceptHookArgs] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def num_messages(self, command: Command) -> int:
        """Messages of a command that nobody disturbs; they vary a little, with how they fall into packets."""
        self.proxy.pass_on()
        done(*self._arguments(command, next(self._numbers)))
        return self.proxy.num_messages

    def recover(self, command: Command, moment: int, manner: Manner) -> None:
        """Cut a command off for good, then give it again, cut it off again at the same moment, and let it go on.

        Raises:
            AssertionError: it ended otherwise than it should.
        """
        number = next(self._numbers)
        arguments = self._arguments(command, number)
        self.tracebacks.clear()
        self._let_try("0")
        self.proxy.cut(moment, manner, for_good=True)
        result = hskcache(*arguments, "--json")
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        # The last messages may come when all is done.
        assert result.exit_code == 0 or self.proxy.has_cut, f"it ended by itself: {result.stderr[-400:]}"
        assert result.exit_code in (0, 2), result.stderr[-400:]
        assert (result.stdout == "") is (result.exit_code == 2), result.stdout[-400:]
        assert not errors or "is out of reach" in errors[0], errors[0]
        assert len(errors) == (result.exit_code == 2), result.stderr[-400:]
        self._let_try(_PATIENCE_S)
        self.proxy.cut(moment, manner, for_good=False)
        done(*arguments)
        self.proxy.pass_on()
        self._check(command, number)
        assert not self.tracebacks, f"a thread printed a traceback: {self.tracebacks[0].exc_value!r}"

    def _check(self, command: Command, number: int) -> None:
        there, back = f"{self.url}/{number}.hsk", self.folder / f"{number}.hsk"
        if command == "push":
            done("pull", there, back)
        assert files(back) == files(self.cache.root), "what came is not the cache"
        if self.served is not None:
            left = [path.name for path in self.served.rglob("*.tmp")]
            assert not left, f"it left {left}"

    def _arguments(self, command: Command, number: int) -> tuple[object, ...]:
        if command == "push":
            return "push", self.cache.root, f"{self.url}/{number}.hsk", "--jobs", 2
        return "pull", f"{self.url}/{self.cache.root.name}", self.folder / f"{number}.hsk", "--jobs", 2

    def _let_try(self, seconds: str) -> None:
        self.environment.setenv("HSKCACHE_RETRY_S", seconds)


@contextmanager
def way(kind: str, folder: Path) -> Iterator[Way | None]:
    """Start a server of a kind, with a cache to pull; None where it is not installed.

    Args:
        kind: of ``COMMANDS``.
        folder: an empty one.
    """
    served, takes = folder / "served", "push" in COMMANDS[kind]
    cache = write_cache((folder if takes else served) / "c.hsk")
    served.mkdir(exist_ok=True)
    with _server(kind, served, folder / "state") as server:
        if server is None:
            yield None
            return
        with cutting(server.port) as proxy, pytest.MonkeyPatch.context() as environment:
            through = _through(server, proxy.port)
            reach(through, environment)
            shown = served if kind in ("sftp", "sshd") else None
            found = Way(cache, through.url, folder / "back", shown, proxy, environment)
            found.folder.mkdir()
            environment.setattr(threading, "excepthook", found.tracebacks.append)
            if takes:
                done("push", cache.root, f"{found.url}/c.hsk")
            yield found


def _server(kind: str, served: Path, state: Path) -> AbstractContextManager[Server | None]:
    if kind == "s3":
        return s3_server()
    if kind == "sftp":
        return sftp_server(served)
    return {"http": http_server, "nginx": nginx_server, "sshd": sshd_server}[kind](served, state)  # type: ignore[operator]


def _through(server: Server, port: int) -> Server:
    """A server as clients reach it by another port."""
    old, new = f"127.0.0.1:{server.port}", f"127.0.0.1:{port}"
    if (known := server.environment.get("FSSPEC_SFTP_KNOWN_HOSTS")) is not None:
        entry = Path(known).read_text()
        Path(known).write_text(entry + entry.replace(f"[127.0.0.1]:{server.port}", f"[127.0.0.1]:{port}"))
    environment = {name: value.replace(old, new) for name, value in server.environment.items()}
    return replace(server, url=server.url.replace(old, new), environment=environment)
