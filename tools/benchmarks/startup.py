"""Seconds until a command has answered, in this checkout and in another commit or checkout.

Each run is a process of its own that imports the packages of one of the two; they take turns.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import ENTRY
from benchmarks.harness.folders import ROOT
from benchmarks.harness.measure import ratio, take_turns
from benchmarks.harness.synthetic import SHAPES, write_config
from hskcache.errors import CacheError
from trainer.timing import Times

HERE, THERE = "here", "against"
BOUNDS = {"hskcache --help": 0.15, "hsktrain --help": 0.15, "hskcache info": 0.3, "hsktrain fit, finished": 1.0}
"""Seconds of the processor, by command."""
GOLDEN = ROOT / "tests" / "golden" / "tiny.hsk"


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


def children_cpu_s() -> float:
    """Seconds of the processor that processes have taken which have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fit_words(folder: Path, side: str) -> tuple[str, ...]:
    """A run of one step over the golden cache; the untimed run finishes it, the others find it finished."""
    rows = folder / "rows.tsv"
    rows.write_text("sentence\tlabel\none\t0\ntwo\t1\n", encoding="utf-8")
    student = write_config(folder, SHAPES["tiny"])
    return (
        "fit", "--cache", str(GOLDEN), "--student", str(student), "--eval-data", str(rows), "--text", "sentence",
        "--label", "label", "--recipe", "labels", "--set", "labels.epochs=1", "--device", "cpu",
        "--out", str(folder / side),
    )  # fmt: skip


def measure(
    trees: dict[str, Path], cache: Path, repetitions: int, wanted: tuple[str, ...]
) -> dict[str, tuple[Times, dict[str, float]]]:
    """Seconds of each command, and of the processor, by command, in the checkouts that take turns."""
    found = {}
    with TemporaryDirectory(prefix="startup-") as folder:
        commands = {
            "hskcache --help": dict.fromkeys(trees, ("--help",)),
            "hsktrain --help": dict.fromkeys(trees, ("--help",)),
            "hskcache info": dict.fromkeys(trees, ("info", str(cache))),
            "hsktrain fit, finished": {side: fit_words(Path(folder), side) for side in trees},
        }
        for name in wanted or commands:
            words = commands[name]
            cpu: dict[str, list[float]] = {side: [] for side in trees}

            def run(side: str, entry: str = ENTRY[name.split()[0]], words: Any = words, cpu: Any = cpu) -> None:
                before = children_cpu_s()
                answer(trees[side], entry, *words[side])
                cpu[side].append(children_cpu_s() - before)

            times = take_turns(name, {side: partial(run, side) for side in trees}, repetitions)
            found[name] = times, {side: median(seconds[-repetitions:]) for side, seconds in cpu.items()}
    return found


@click.command()
@click.option("--against", default="HEAD", show_default=True, metavar="COMMIT_OR_DIR", help="What to compare with.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=GOLDEN,
    help="Cache that info tells about.  [default: the tests' of version 1]",
)
@click.option(
    "--command", "wanted", multiple=True, type=click.Choice(list(BOUNDS)), help="One only.  [default: all of them]"
)
@options.repetitions()
@options.as_json
def main(against: str, cache: Path, wanted: tuple[str, ...], repetitions: int, as_json: bool) -> None:
    """Time both --help, hskcache info and a finished hsktrain fit in this checkout, its changes included, and another.

    A commit is checked out into a worktree in a temporary folder. Both sides have the same Python and the same
    packages beside ours.
    """
    with checkout(against) as other:
        trees = {HERE: ROOT, THERE: other}
        for tree in trees.values():
            require_from(tree)
        found = measure(trees, cache.resolve(), repetitions, wanted)
    rows = []
    for command, (times, cpu) in found.items():
        cells = (f"{value * 1e3:.0f}" for value in (times.median(HERE), times.median(THERE), cpu[HERE], cpu[THERE]))
        rows.append([command, *cells, ratio(times, HERE, THERE)])
    header = ("command", "here ms", "against ms", "here CPU ms", "against CPU ms", "here / against (quartiles)")
    facts = {
        "against": against,
        "commands": {command: times.facts() | {"cpu_s": cpu} for command, (times, cpu) in found.items()},
    }
    title = f"start of a command against {against}, medians of {repetitions}"
    targets = [report.Target(f"CPU s, {command}", cpu[HERE], BOUNDS[command]) for command, (_, cpu) in found.items()]
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
