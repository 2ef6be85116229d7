"""What a training step takes beside other programs, by how the threads of torch wait for each other.

Each way to wait has a process of its own, which trains the same small model on the CPU; they take turns.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import plain
from benchmarks.harness.folders import ROOT
from benchmarks.harness.measure import environment, ratio, take_turns
from benchmarks.harness.synthetic import SHAPES
from hskcache.errors import CacheError
from hskcache.threads import CHOSEN_BY, bound_waiting
from trainer.timing import Times

SPIN, SLEEP, OURS = "spin (torch's default)", "sleep (PASSIVE)", "ours"
BOUND = 1.05


class Block(NamedTuple):
    """Answer of a process that has taken its steps: CPU seconds of all its threads, and the last loss."""

    cpu_s: float
    loss: float


class Stepper:
    """A process that takes a block of steps when it is asked to, and its answers."""

    def __init__(self, way: dict[str, str], given: dict[str, Any]) -> None:
        plain = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
        paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tools")))}
        preload = {"LD_PRELOAD": str(given["preload"])} if given["preload"] else {}
        words = (given["shape"], given["batch_size"], given["length"], given["block"])
        self.process = subprocess.Popen(
            (sys.executable, "-m", "benchmarks.harness.stepping", *map(str, words)),
            env=plain | paths | preload | way, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.blocks: list[Block] = []

    def step(self) -> None:
        """Wait until it has taken a block of steps.

        Raises:
            CacheError: it has ended instead.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise CacheError(f"a process that trains ended with exit code {self.process.wait()}")
        self.blocks.append(Block(*map(float, answer)))


@contextmanager
def ended(processes: "list[subprocess.Popen[str]]") -> Iterator[None]:
    """Processes that are killed at the end."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def neighbours(number: int) -> "list[subprocess.Popen[str]]":
    """Processes that compute as much as they can."""
    return [subprocess.Popen((sys.executable, "-c", "while True: pass"), text=True) for _ in range(number)]


def ways(looks: tuple[int, ...]) -> dict[str, dict[str, str]]:
    """Environment variables of each way to wait, and of further bounds."""
    ours: dict[str, str] = {}
    bound_waiting(ours)
    further = {f"{number} looks": {"GOMP_SPINCOUNT": str(number)} for number in looks}
    return {SPIN: {}, SLEEP: {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}, OURS: ours} | further


def measure(numbers: tuple[int, ...], given: dict[str, Any]) -> dict[int, tuple[Times, dict[str, float]]]:
    """Seconds of a step of each way, and its CPU seconds, by the number of neighbours.

    Raises:
        CacheError: they do not all learn the same to the last bit.
    """
    found = {}
    with ExitStack() as stack:
        steppers = {name: Stepper(way, given) for name, way in ways(given["looks"]).items()}
        stack.enter_context(ended([stepper.process for stepper in steppers.values()]))
        for number in numbers:
            for stepper in steppers.values():
                stepper.blocks.clear()
            with ended(neighbours(number)):
                sides = {name: stepper.step for name, stepper in steppers.items()}
                times = take_turns(f"{number} neighbours", sides, given["repetitions"])
            losses = {tuple(block.loss for block in stepper.blocks) for stepper in steppers.values()}
            if len(losses) > 1:
                raise CacheError("how threads wait has changed what is learned")
            timed = {name: stepper.blocks[-given["repetitions"] :] for name, stepper in steppers.items()}
            cpu = {name: median(block.cpu_s for block in blocks) / given["block"] for name, blocks in timed.items()}
            seconds = {name: [value / given["block"] for value in values] for name, values in times.seconds.items()}
            found[number] = Times(seconds), cpu
    return found


def better(times: Times) -> str:
    """The one of the two extremes that is quicker."""
    return min((SPIN, SLEEP), key=times.median)


@click.command()
@click.option(
    "--neighbours", "numbers", type=click.IntRange(min=0), multiple=True, default=(0, 1, 4), show_default=True,
    help="Busy processes beside it; may be given again.",
)  # fmt: skip
@click.option("--looks", type=click.IntRange(min=1), multiple=True, help="A further bound (GOMP_SPINCOUNT) to time.")
@click.option("--shape", type=click.Choice(list(SHAPES)), default="small", show_default=True, help="Of the model.")
@options.count("--batch-size", 16, "Rows of a step.")
@options.length("Tokens of every row.", 32)
@options.count("--block", 3, "Steps timed together.")
@click.option(
    "--preload", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Another OpenMP: its libiomp5.so."
)
@options.repetitions(15)
@options.as_json
def main(numbers: tuple[int, ...], as_json: bool, **given: Any) -> None:
    """Time training steps of a small model beside busy neighbours: threads that spin, that sleep, and as we have it.

    Targets: ours takes at most 1.05 times as long as the better of the two others.
    """
    about = environment()
    found = measure(numbers, given)
    rows = []
    for number, (times, cpu) in found.items():
        for name in times.seconds:
            cells = (f"{times.median(name) * 1e3:.1f}", ratio(times, name, better(times)), f"{cpu[name] * 1e3:.1f}")
            rows.append([f"{number}, {name}", *cells])
    header = ("neighbours, threads", "ms a step", "/ the better of two (quartiles)", "CPU ms a step")
    title = f"{given['shape']}, B={given['batch_size']}, L={given['length']}, {about['threads']} threads"
    targets = [
        report.Target(f"ours / the better, {number} neighbours", times.ratio(OURS, better(times)), BOUND)
        for number, (times, _) in found.items()
    ]
    by_number = {number: times.facts() | {"cpu_s": cpu} for number, (times, cpu) in found.items()}
    facts = {"settings": plain(given), "environment": about, "neighbours": by_number}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
