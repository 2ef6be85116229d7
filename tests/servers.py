"""Real servers on loopback, in processes of their own: S3 (moto), HTTP (nginx, aiohttp), SFTP (sshd, asyncssh).

Each is a context manager that gives a :class:`Server`: its URL, the environment that clients need, and ways to stop it
and to start it again on the same port. The Python HTTP server can also misbehave: see :class:`serving.Faults`.
"""

import getpass
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving import PASSWORD as PASSWORD
from serving import USER
from serving import Faults as Faults

BUCKET = "caches"
_PROGRAMS = Path(__file__).with_name("serving.py")
_START_S = 30.0


@dataclass
class Server:
    """A server's process.

    Attributes:
        url: of the folder it serves.
        command: that starts it.
        port: on 127.0.0.1.
        environment: variables that clients need, such as credentials.
        log: a file with one line for each request: method, path and range; None where none is kept.
    """

    url: str
    command: list[str]
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    log: Path | None = None
    process: Any = None

    def start(self) -> None:
        """Start, and wait until a connection is taken."""
        # A file: a pipe that nobody reads would stop a server that tells of every request.
        with tempfile.TemporaryFile() as said:
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=said)
            self._wait(said)

    def _wait(self, said: Any) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                said.seek(0)
                raise RuntimeError(f"{self.command[0]} ended: {said.read().decode()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.command[0]} takes no connection")

    def kill(self) -> None:
        """End at once, with SIGKILL, in the middle of whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()
            self.process = None

    def requests(self) -> list[str]:
        """The lines of the log."""
        return self.log.read_text().splitlines() if self.log is not None and self.log.exists() else []


def free_port() -> int:
    """A port that nobody listens on, and that no connection will begin from.

    From those that the system gives to connections, one to a server that is gone might come to meet itself.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a server, and end it."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def s3_server() -> Iterator[Server]:
    """An S3 server with one bucket, in memory: what it holds is gone when it is killed."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(Server(f"s3://{BUCKET}", command, port, environment)) as server:
        make_bucket(server)
        yield server


def make_bucket(server: Server) -> None:
    """Make the bucket, which an S3 server that was started again has lost."""
    request = urllib.request.Request(f"{server.environment['AWS_ENDPOINT_URL']}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def http_server(root: Path, state: Path) -> Iterator[Server]:
    """aiohttp's server of files, which can misbehave as :func:`misbehave` says.

    Args:
        root: folder that is served.
        state: folder for its log and its faults.
    """
    state.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, str(_PROGRAMS), "http", str(root), str(state), str(port)]
    with running(Server(f"http://127.0.0.1:{port}", command, port, log=state / "requests.log")) as server:
        yield server


def misbehave(server: Server, faults: Faults) -> None:
    """Tell a running Python HTTP server what to do wrong from now on; ``Faults()`` is nothing."""
    assert server.log is not None
    path = server.log.with_name("faults.json")
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({**asdict(faults), "since": time.monotonic_ns()}))
    temporary.replace(path)


@contextmanager
def nginx_server(root: Path, state: Path) -> Iterator[Server | None]:
    """nginx as an ordinary user would run it, with a configuration of its own; None where it is not installed."""
    program = _program("nginx")
    if program is None:
        yield None
        return
    state.mkdir(parents=True, exist_ok=True)
    port = free_port()
    folders = "".join(
        f"{kind}_temp_path {state}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (state / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''}\ndaemon off;\nworker_processes 1;\npid {state}/nginx.pid;\n"
        f"error_log {state}/error.log;\nevents {{ worker_connections 64; }}\nhttp {{\n{folders}"
        "log_format short '$request_method $uri $http_range';\n"
        f"access_log {state}/requests.log short;\nserver {{ listen 127.0.0.1:{port}; root {root}; }}\n}}\n"
    )
    command = [program, "-p", str(state), "-c", str(state / "nginx.conf"), "-e", str(state / "error.log")]
    with running(Server(f"http://127.0.0.1:{port}", command, port, log=state / "requests.log")) as server:
        try:
            yield server
        finally:
            # The worker outlives a master that is killed.
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()


@contextmanager
def sftp_server(root: Path, at_sign_in: str = "ask") -> Iterator[Server]:
    """asyncssh's SFTP server, which shows nothing but ``root`` and knows one user by password.

    Args:
        root: folder that is served.
        at_sign_in: "ask" for the password; or "die", "hang", say "no", hang up with a "bye" or because it is "busy", or
            "stop" once that is done.
    """
    import asyncssh

    port, key = free_port(), asyncssh.generate_private_key("ssh-ed25519")
    with tempfile.TemporaryDirectory() as state:
        own = Path(state) / "host"
        key.write_private_key(str(own))
        known = _known_hosts(Path(state), port, key.export_public_key().decode())
        command = [sys.executable, str(_PROGRAMS), "sftp", str(root), str(own), str(port), at_sign_in]
        with running(Server(f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}", command, port, known)) as server:
            yield server


@contextmanager
def sshd_server(root: Path, state: Path) -> Iterator[Server | None]:
    """OpenSSH's sshd on a high port with keys of its own; None where it is not installed or may not run."""
    program, helper = _program("sshd"), _program("sftp-server")
    if program is None or helper is None or not _may_run_sshd():
        yield None
        return
    state.mkdir(parents=True, exist_ok=True)
    for name in ("host", "client"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(state / name)]
        subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(state / "client.pub", state / "authorized")
    port = free_port()
    (state / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {state}/host\nPidFile {state}/sshd.pid\nUsePAM no\n"
        f"AuthorizedKeysFile {state}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        f"PermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp {helper}\n"
    )
    command = [program, "-D", "-e", "-f", str(state / "sshd.conf")]
    url = f"sftp://{getpass.getuser()}@127.0.0.1:{port}{root}"
    environment = {"FSSPEC_SFTP_KEY_FILENAME": str(state / "client")}
    environment |= _known_hosts(state, port, (state / "host.pub").read_text())
    with running(Server(url, command, port, environment)) as server:
        yield server


def _known_hosts(state: Path, port: int, public_key: str) -> dict[str, str]:
    """What makes clients know a host by its key."""
    path = state / "known_hosts"
    path.write_text(f"[127.0.0.1]:{port} {public_key.strip()}\n")
    return {"FSSPEC_SFTP_KNOWN_HOSTS": str(path)}


def _may_run_sshd() -> bool:
    """Where root starts it, sshd wants an empty folder, which the system's service makes; others need none."""
    if os.geteuid() != 0:
        return True
    try:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return False
    return True


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/openssh"]))
