"""A proxy on loopback that cuts the connections to a server at a chosen message, and then is gone or goes on."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from servers import free_port

Manner = Literal["close", "reset", "half"]
MANNERS: tuple[Manner, ...] = ("close", "reset", "half")
"""How a connection ends before a message is passed on: closed, reset, or reset after the first half of the message."""

_MESSAGE_BYTES = 65_536


class Cutting:
    """Passes on what clients and a server say, counted in messages: what one of them has sent when it is looked at.

    Args:
        target: port of the server on 127.0.0.1.

    Attributes:
        port: of the proxy.
        num_messages: that were passed on, in either direction, since the last :meth:`cut` or :meth:`pass_on`.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.pass_on()

    def pass_on(self) -> None:
        """Cut nothing from now on."""
        self.cut(-1, "close", for_good=False)

    def cut(self, moment: int, manner: Manner, for_good: bool) -> None:
        """Cut every connection before a message is passed on, once.

        Args:
            moment: the number of the message from now, counted from 0.
            manner: how.
            for_good: whether nobody is let in afterwards.
        """
        with self._lock:
            self.num_messages, self._is_gone = 0, False
            self._moment, self._manner, self._for_good = moment, manner, for_good

    @property
    def has_cut(self) -> bool:
        """Whether the moment came."""
        return 0 <= self._moment < self.num_messages

    def serve(self) -> None:
        """Let clients in until :meth:`end`."""
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = None if self._is_gone else self._connected()
            if there is None:
                _end(here, reset=True)
                continue
            for one in (here, there):
                # Otherwise small messages wait for each other.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((here, there))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def end(self) -> None:
        """Let nobody in any more, and everybody out."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut_all("close")

    def _connected(self) -> socket.socket | None:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", self._target))
        return None

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while message := source.recv(_MESSAGE_BYTES):
                with self._lock:
                    is_moment = self.num_messages == self._moment
                    self.num_messages += 1
                    self._is_gone |= is_moment and self._for_good
                if not is_moment:
                    sink.sendall(message)
                    continue
                if self._manner == "half":
                    sink.sendall(message[: len(message) // 2])
                self._cut_all(self._manner)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _cut_all(self, manner: Manner) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _end(one, reset=manner != "close")


def _end(one: socket.socket, reset: bool) -> None:
    with suppress(OSError):
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closing alone would not end it while another thread waits for a message; before a reset nothing may be said.
        one.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
    one.close()


@contextmanager
def cutting(target: int) -> Iterator[Cutting]:
    """Stand before a server until the end of the block."""
    proxy = Cutting(target)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join()
