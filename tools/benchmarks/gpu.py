"""Everything that a GPU is asked about, one benchmark after the other, in ten minutes at most."""

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import click

from benchmarks.harness import options, report
from hskcache import console

BENCH = Path(__file__).resolve().parents[1] / "bench"
TINY = {
    "step": ("--rows", "32", "--batch-size", "8", "--length", "32", "--repetitions", "2"),
    "extract": ("--rows", "16", "--repetitions", "2"),
}
FULL = {
    "step": ("--rows", "1024", "--repetitions", "7"),
    "extract": ("--rows", "2048", "--token-budget", "65536", "--repetitions", "3"),
}


def plan(small: bool) -> dict[str, list[str]]:
    """The benchmarks by what they tell, the most wanted first."""
    sizes = TINY if small else FULL
    base, large = ("small", "small") if small else ("bert-base", "bert-large")
    step = ["step", *sizes["step"], *(() if small else ("--bf16",))]
    extract = ["extract", *sizes["extract"], "--dtype", "float32" if small else "bfloat16", "--teacher", base]
    return {
        "a step, BERT-base in the loop": [*step, "--teacher", base],
        "a build of 1l_10t_0.1h": [*extract, "--case", "ragged"],
        "a build of all states in float16": [*extract, "--keep", "full", "--encoding", "float16", "--case", "ragged"],
        "a step, BERT-large in the loop": [*step, "--teacher", large],
        "a step from the disk": [*step, "--teacher", base, "--residency", "stream"],
    }


def run(words: list[str], left_s: float) -> dict[str, Any] | str:
    """What a benchmark found; a word where it found nothing in the time that is left."""
    try:
        done = subprocess.run(
            [sys.executable, BENCH, *words, "--json"], stdout=subprocess.PIPE, timeout=left_s, text=True, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return "out of time"
    except ValueError:
        return f"failed with exit code {done.returncode}"
    return found


@click.command()
@click.option("--small", is_flag=True, help="Tiny models and few rows, to see that it all runs.")
@click.option("--seconds", type=click.FloatRange(min=1), default=600.0, show_default=True, help="For all of it.")
@options.work
@options.device
@options.as_json
def main(work: Path, as_json: bool, small: bool, seconds: float, device: str) -> None:
    """Run the benchmarks of steps and builds in bfloat16 with a GPU, each in a process of its own, and collect them.

    What each found stands in --work as soon as it is there, so that a machine that is taken away leaves the first.
    Targets are told and do not decide the exit code, which is 1 if a benchmark failed or the time ran out.
    """
    begin, lines, facts = monotonic(), [], dict[str, Any]()
    folder = work / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in plan(small).items():
        console.say(f"$ tools/bench {' '.join(words)}")
        left_s = seconds - (monotonic() - begin)
        found = run([*words, "--device", device, "--work", str(work)], left_s) if left_s > 0 else "out of time"
        facts[name] = found
        (folder / f"{len(facts)}.json").write_text(json.dumps({name: found}, indent=2), encoding="utf-8")
        if isinstance(found, str):
            lines.append([name, found, "", ""])
            continue
        for target in found["targets"]:
            sign = ">=" if target["at_least"] else "<="
            lines.append([name, target["name"], f"{target['value']:.3f}", f"{sign} {target['bound']:g}"])
        for side, share in found.get("waiting_share", {}).items():
            lines.append([name, f"waiting for data, {side}", f"{share:.2%}", ""])
    failed = report.Target("benchmarks that failed", sum(isinstance(found, str) for found in facts.values()), 0)
    table = report.table(f"device {device}", ("benchmark", "figure", "value", "target"), lines)
    report.conclude({"small": small, "device": device, "found": facts}, [table], [failed], as_json)
