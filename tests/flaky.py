"""A proxy before an S3 server that does as stores and networks do: it throttles, fails, loses requests and answers.

``python flaky.py PORT TARGET FAULTS.json``; or :func:`flaky_server`, a context manager.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from servers import Server, free_port, running


@dataclass(frozen=True)
class Flaws:
    """Shares of the requests that go wrong, each in a way of its own, and what the store does not know.

    Attributes:
        throttled: are answered with 503 SlowDown.
        failed: are answered with 500.
        lost: never arrive; the connection is cut.
        unanswered: take effect, and then the connection is cut.
        forgets_conditions: whether files are put though they should be put if absent only.
        seed: of which.
    """

    throttled: float = 0.0
    failed: float = 0.0
    lost: float = 0.0
    unanswered: float = 0.0
    forgets_conditions: bool = False
    seed: int = 0


@contextmanager
def flaky_server(target: Server, flaws: Flaws, state: Path) -> Iterator[Server]:
    """The server ``target`` with some flaws; ``log`` counts what went wrong, a line each."""
    port = free_port()
    told = state / "flaws.json"
    told.write_text(json.dumps(asdict(flaws)))
    command = [sys.executable, __file__, str(port), target.environment["AWS_ENDPOINT_URL"], str(told)]
    environment = target.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with running(Server(target.url, command, port, environment, told.with_suffix(".log"))) as server:
        yield server


def _serve(port: int, target: str, told: Path) -> None:
    from aiohttp import ClientSession, TCPConnector, web

    flaws = Flaws(**json.loads(told.read_text()))
    draw = random.Random(flaws.seed)
    kinds = {name: getattr(flaws, name) for name in ("throttled", "failed", "lost", "unanswered")}
    log = told.with_suffix(".log").open("a", buffering=1)

    def fate() -> str:
        left = draw.random()
        for name, share in kinds.items():
            if left < share:
                return name
            left -= share
        return "answered"

    def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def handle(request: web.Request) -> web.Response:
        body, now = await request.read(), fate()
        log.write(f"{now} {request.method} {request.path}\n")
        if now == "throttled":
            said = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return web.Response(status=503, text=said, content_type="application/xml")
        if now == "failed":
            return web.Response(status=500)
        if now == "lost":
            return cut(request)
        left_out = {"host", "content-length", "connection", "transfer-encoding"}
        left_out |= {"if-none-match"} if flaws.forgets_conditions else set()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
        session = request.app["session"]
        async with session.request(request.method, target + str(request.rel_url), data=body, headers=headers) as answer:
            data = await answer.read()
        if now == "unanswered":
            return cut(request)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        if request.method == "HEAD":
            kept["Content-Length"] = answer.headers.get("Content-Length", "0")
        return web.Response(status=answer.status, body=data, headers=kept)

    async def main() -> None:
        app = web.Application(client_max_size=1 << 30)
        app["session"] = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    asyncio.run(main())


_HOP = {"content-length", "connection", "transfer-encoding", "content-encoding"}


def counted(server: Server) -> Counter[str]:
    """Requests by what became of them."""
    return Counter(line.split()[0] for line in server.requests())


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
