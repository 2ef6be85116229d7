"""The Python servers of :mod:`servers`, as programs: HTTP (aiohttp), which can misbehave, and SFTP (asyncssh)."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "reader", "correct-horse"


@dataclass(frozen=True)
class Faults:
    """What the Python HTTP server does wrong, with files whose path holds ``of``.

    Attributes:
        of: part of the paths that are meant; "" is all.
        unavailable: requests that are answered with 503 first.
        cut: requests that then break off after half of what they should send.
        wrong: whether a byte of each file is another.
        without_ranges: whether ranges are ignored and the whole file is sent.
        denied: whether everything is answered with 403.
        endless: whether more is sent than there is, without end.
        die_after: files that are sent before the server kills itself in the middle of the next; None: it lives.
    """

    of: str = ""
    unavailable: int = 0
    cut: int = 0
    wrong: bool = False
    without_ranges: bool = False
    denied: bool = False
    endless: bool = False
    die_after: int | None = None


def _serve_http(root: Path, state: Path, port: int) -> None:
    from aiohttp import web

    counts: dict[str, int] = {}

    def faults() -> Faults:
        try:
            told = json.loads((state / "faults.json").read_text())
        except FileNotFoundError:
            return Faults()
        if counts.get("since") != (since := told.pop("since")):
            counts.clear()
            counts["since"] = since
        return Faults(**told)

    def count(name: str) -> int:
        counts[name] = counts.get(name, 0) + 1
        return counts[name]

    def log(request: web.Request) -> None:
        with (state / "requests.log").open("a") as file:
            file.write(f"{request.method} {request.path} {request.headers.get('Range', '-')}\n")

    async def misbehaving(request: web.Request, path: Path, fault: Faults) -> web.StreamResponse | None:
        if fault.denied:
            return web.Response(status=403)
        if count("unavailable") <= fault.unavailable:
            return web.Response(status=503)
        data = path.read_bytes()
        if fault.die_after is not None and count("sent") > fault.die_after:
            return await cut_off(request, data, die=True)
        if count("cut") <= fault.cut:
            return await cut_off(request, data, die=False)
        if fault.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault.endless:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(bytes(1 << 20))
        return web.Response(body=data) if fault.wrong or fault.without_ranges else None

    async def cut_off(request: web.Request, data: bytes, die: bool) -> web.StreamResponse:
        first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest = data[first:]
        response = web.StreamResponse(status=206 if first else 200, headers={"Content-Length": str(len(rest))})
        await response.prepare(request)
        await response.write(rest[: max(len(rest) // 2, 1)])
        await asyncio.sleep(0.05)
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def get(request: web.Request) -> web.StreamResponse:
        log(request)
        path = root / request.match_info["path"]
        if not path.is_file():
            return web.Response(status=404)
        fault = faults()
        response = await misbehaving(request, path, fault) if fault.of in request.path else None
        # An empty response of older versions of aiohttp counts as false.
        return web.FileResponse(path) if response is None else response

    application = web.Application()
    application.router.add_get("/{path:.*}", get)
    web.run_app(application, host="127.0.0.1", port=port, print=None, handle_signals=False)


def _serve_sftp(root: Path, key: Path, port: int, at_sign_in: str) -> None:
    import asyncssh

    class Knows(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            if at_sign_in == "bye":
                raise asyncssh.PermissionDenied("too many of you")
            if at_sign_in == "busy":
                raise asyncssh.DisconnectError(asyncssh.DISC_TOO_MANY_CONNECTIONS, "come back later")
            return True

        def password_auth_supported(self) -> bool:
            return True

        async def validate_password(self, username: str, password: str) -> bool:
            if at_sign_in == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if at_sign_in == "hang":
                await asyncio.Event().wait()
            if at_sign_in == "no":
                return False
            return (username, password) == (USER, PASSWORD)

    def begin(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        if at_sign_in == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        return asyncssh.SFTPServer(channel, chroot=str(root).encode())

    async def serve() -> None:
        await asyncssh.listen(
            "127.0.0.1",
            port,
            server_host_keys=[str(key)],
            server_factory=Knows,
            sftp_factory=begin,
            reuse_address=True,
        )
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    kind, served, own, at, *manner = sys.argv[1:]
    {"http": _serve_http, "sftp": _serve_sftp}[kind](Path(served), Path(own), int(at), *manner)
