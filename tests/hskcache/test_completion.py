"""A shell that was told to completes commands, options, paths, and names that ship or that the cache at hand has."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "tiny-2.hsk"
PACKAGES = {"hskcache": "hskcache", "hsktrain": "trainer"}


def answers(line: str) -> list[str]:
    """What the program of a line answers the shell: of each possible word its kind and itself."""
    words = line.split(" ")
    variables = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        f"_{words[0].upper()}_COMPLETE": "bash_complete",
    }
    script = f"import sys; sys.argv[0] = {words[0]!r}; from {PACKAGES[words[0]]}.cli import main; main()"
    done = subprocess.run((sys.executable, "-c", script), env=os.environ | variables, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hskcache ver", {"plain,verify"}),
        ("hskcache completion ", {"plain,bash", "plain,zsh", "plain,fish"}),
        ("hskcache info --vi", {"plain,--view"}),
        ("hskcache build --task ss", {"plain,sst2"}),
        ("hskcache build --encoding int", {"plain,int4", "plain,int8"}),
        ("hskcache build --keep 1l_10", {"plain,1l_10t_0.1h"}),
        (f"hskcache info {GOLDEN} --view 1", {"plain,1l_1t"}),
        (f"hskcache push {GOLDEN} --fields inputs,hid", {"plain,inputs,hidden", "plain,inputs,hidden_uniform"}),
        ("hskcache info --view 1", set()),
        ("hskcache info /tm", {"file,/tm"}),
        ("hskcache build --data tra", {"file,tra"}),
        ("hsktrain fit --student tiny", {"plain,tinybert4", "plain,tinybert6"}),
        ("hsktrain fit --student ./stu", {"file,./stu"}),
        ("hsktrain fit --recipe mu", {"plain,mud"}),
        (f"hsktrain fit --cache {GOLDEN} --view 1", {"plain,1l_1t"}),
    ],
)
def test_words_are_completed(line: str, expected: set[str]) -> None:
    assert set(answers(line)) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", PACKAGES)
def test_the_script_is_one_of_the_shell(program: str, shell: str) -> None:
    script = f"import sys; sys.argv[0] = '/usr/bin/{program}'; from {PACKAGES[program]}.cli import main; main()"
    done = subprocess.run(
        (sys.executable, "-c", script, "completion", shell), capture_output=True, text=True, check=True
    )
    assert f"_{program.upper()}_COMPLETE={shell}_complete" in done.stdout
    if (path := shutil.which(shell)) is not None:
        assert subprocess.run((path, "-n"), input=done.stdout, text=True).returncode == 0
    if shell == "bash":
        told = subprocess.run(("bash", "-c", f"{done.stdout}\ncomplete -p {program}"), capture_output=True, text=True)
        assert told.stdout.split()[-1] == program
