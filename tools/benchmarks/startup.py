"""Seconds until a command has answered, in this checkout and in another commit or checkout.

Each run is a process of its own that imports the packages of one of the two; they take turns.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import ENTRY
from benchmarks.harness.folders import ROOT
from benchmarks.harness.measure import ratio, take_turns
from hskcache.errors import CacheError
from trainer.timing import Times

HERE, THERE = "here", "against"


@contextmanager
def checkout(commit_or_folder: str) -> Iterator[Path]:
    """The folder of a checkout; of a commit, a worktree in a temporary folder that is removed at the end.

    Raises:
        CacheError: it is neither.
    """
    folder = Path(commit_or_folder)
    if (folder / "hskcache" / "__init__.py").is_file():
        yield folder.resolve()
        return
    git = ("git", "-C", str(ROOT), "worktree")
    with TemporaryDirectory(prefix="startup-") as temporary:
        tree = Path(temporary) / "tree"
        add = (*git, "add", "--quiet", "--detach", str(tree), commit_or_folder)
        done = subprocess.run(add, capture_output=True, check=False, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            raise CacheError(f"--against {commit_or_folder!r} is no checkout and no commit: {' '.join(said)}")
        try:
            yield tree
        finally:
            subprocess.run((*git, "remove", "--force", str(tree)), check=True)


def answer(tree: Path, code: str, *words: str) -> str:
    """Output of a new Python that imports from a checkout.

    Raises:
        CacheError: it fails.
    """
    # Bytecode is written by the untimed run and read by the others, as it is for a user.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(tree)
    command = (sys.executable, "-c", code, *words)
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, check=False, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        raise CacheError(f"{' '.join(words)} fails in {tree} with exit code {done.returncode}: {' '.join(said)}")
    return done.stdout


def require_from(tree: Path) -> None:
    """Raise unless a process of a checkout imports the packages of that checkout.

    Raises:
        CacheError: another installation is found first.
    """
    found = answer(tree, "import hskcache, trainer; print(hskcache.__file__, trainer.__file__, sep='\\n')").split("\n")
    if not all(Path(file).is_relative_to(tree) for file in found if file):
        raise CacheError(f"a process in {tree} imports {', '.join(filter(None, found))}")


def measure(trees: dict[str, Path], cache: Path, repetitions: int) -> dict[str, Times]:
    """Seconds of each command, by command, in the checkouts that take turns."""
    commands = (("hskcache", "--help"), ("hsktrain", "--help"), ("hskcache", "info", str(cache)))
    found = {}
    for program, *words in commands:
        name = f"{program} {words[0]}"
        sides = {side: partial(answer, tree, ENTRY[program], *words) for side, tree in trees.items()}
        found[name] = take_turns(name, sides, repetitions)
    return found


@click.command()
@click.option("--against", default="HEAD", show_default=True, metavar="COMMIT_OR_DIR", help="What to compare with.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=ROOT / "tests" / "golden" / "tiny.hsk",
    help="Cache that info tells about.  [default: the tests' of version 1]",
)
@options.repetitions()
@options.as_json
def main(against: str, cache: Path, repetitions: int, as_json: bool) -> None:
    """Time hskcache --help, hsktrain --help and hskcache info in this checkout, its changes included, and in another.

    A commit is checked out into a worktree in a temporary folder. Both sides have the same Python and the same
    packages beside ours.
    """
    with checkout(against) as other:
        trees = {HERE: ROOT, THERE: other}
        for tree in trees.values():
            require_from(tree)
        found = measure(trees, cache.resolve(), repetitions)
    rows = []
    for command, times in found.items():
        milliseconds = (f"{times.median(side) * 1e3:.0f}" for side in (HERE, THERE))
        rows.append([command, *milliseconds, ratio(times, HERE, THERE)])
    header = ("command", "here ms", "against ms", "here / against (quartiles)")
    facts = {"against": against, "commands": {command: times.facts() for command, times in found.items()}}
    title = f"start of a command against {against}, medians of {repetitions}"
    report.conclude(facts, [report.table(title, header, rows)], [], as_json)
