"""An HTTP server that serves a folder in ranges, counts what it is asked for, and fails when it is told to."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stored import plain

_PIECE_BYTES = 8192


class Unsteady(ThreadingHTTPServer):
    """A running server.

    Attributes:
        root: what it serves; may be exchanged.
        begun: how often each file was asked for from its first byte on.
        sent: bytes of each file that were sent.
        num_failures: requests that are still to be answered by 503.
        pause_s: between pieces of 8 kB.
        refused: names that are answered by 503, whenever they are asked for.
        altered: names whose last byte arrives as another.
        is_gone: whether it hangs up on whoever still holds a connection.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.begun: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.num_failures = 0
        self.pause_s = 0.0
        self.refused: set[str] = set()
        self.altered: set[str] = set()
        self.is_gone = False
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def shards_begun(self) -> dict[str, int]:
        return {plain(name): count for name, count in self.begun.items() if name.endswith(".zarr.zip")}

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Unsteady

    def do_GET(self) -> None:
        server, name = self.server, self.path.lstrip("/")
        if server.is_gone:
            self.close_connection = True
            return
        with server.lock:
            fails = plain(name) in server.refused or server.num_failures > 0
            server.num_failures = max(0, server.num_failures - fails)
        path = server.root / name
        if fails or not path.is_file():
            self.send_response(503 if fails else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        if plain(name) in server.altered:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start, stop = self._range(len(data))
        with server.lock:
            server.begun[name] += start == 0
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        for begin in range(start, stop, _PIECE_BYTES):
            piece = data[begin : min(begin + _PIECE_BYTES, stop)]
            self.wfile.write(piece)
            self.wfile.flush()
            with server.lock:
                server.sent[name] += len(piece)
            time.sleep(server.pause_s)

    def _range(self, size: int) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        assert found is not None
        return int(found[1]), min(int(found[2] or size - 1) + 1, size)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@contextmanager
def serving(root: Path) -> Iterator[Unsteady]:
    """Serve a folder until the end of the block; then nobody answers."""
    server = Unsteady(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.is_gone = True
        server.shutdown()
        server.server_close()
        thread.join()
