"""A user without a home folder and without a name, as containers have them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hskcache.remote.home import in_home

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny.hsk"
NAMELESS = ("unshare", "--user", "--map-user=12345", "--")
ASK = "import getpass; print(getpass.getuser())"


def nameless(*args: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user that the system does not know, with no word of a home or a name in the environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME"}
    }
    command = [*NAMELESS, sys.executable, *map(str, args)]
    return subprocess.run(command, env=kept | more, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def _can_be_nameless() -> None:
    try:
        asked = nameless("-c", ASK)
    except FileNotFoundError:
        pytest.skip("no unshare here, which makes a user without a name")
    if "KeyError" not in asked.stderr and "OSError" not in asked.stderr:
        pytest.skip("this machine gives no process another user")


def test_what_needs_no_home_needs_no_name_either() -> None:
    done = nameless("-m", "hskcache", "verify", TINY)
    assert done.returncode == 0, done.stderr


def test_a_path_with_no_tilde_needs_no_home() -> None:
    assert in_home("/data", "do this") == Path("/data")
    script = "from hskcache.remote.home import in_home; print(in_home('/data', 'do this'))"
    assert nameless("-c", script).stdout == "/data\n"


NO_HOME = "is in no folder: HOME is not set and this user has no home;"
SFTP = ("push", TINY, "sftp://127.0.0.1:9/c.hsk")


@pytest.mark.parametrize(
    ("args", "policy", "line"),
    [
        (
            ("diff", "http://127.0.0.1:9/c.hsk", TINY),
            "reject",
            f"~/.cache/hskcache {NO_HOME} set HSKCACHE_LOCAL to a folder for what is fetched",
        ),
        (
            SFTP,
            "reject",
            f"~/.ssh/known_hosts {NO_HOME} give the file of known hosts in FSSPEC_SFTP_KNOWN_HOSTS",
        ),
        (SFTP, "auto_add", "this user has no name to sign in with; give one in the URL: sftp://USER@HOST/PATH"),
    ],
)
def test_what_needs_them_is_one_line(args: tuple[object, ...], policy: str, line: str) -> None:
    done = nameless("-m", "hskcache", *args, FSSPEC_SFTP_HOST_KEY_POLICY=policy, HSKCACHE_RETRY_S="0")
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {line}"


def test_a_name_in_the_url_and_known_hosts_elsewhere_are_enough(tmp_path: Path) -> None:
    """The server is reached, where nobody answers."""
    (tmp_path / "known").touch()
    more = {"FSSPEC_SFTP_KNOWN_HOSTS": str(tmp_path / "known"), "HSKCACHE_RETRY_S": "0"}
    done = nameless("-m", "hskcache", "push", TINY, "sftp://me@127.0.0.1:9/c.hsk", **more)
    assert done.returncode == 2
    assert "out of reach" in done.stderr
    assert "Traceback" not in done.stderr
