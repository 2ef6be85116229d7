"""Peak memory of training, for a cache and for one ten times larger."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.random import Generator

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.commands import command_line
from benchmarks.harness.random_cache import LAYER, POSITIONS, VOCABULARY, Arrays, Plan, offsets, write
from hskcache import console, units
from hskcache.cache import HiddenField
from hskcache.spec import Depth, Hidden, Length, Spec, Width

LENGTH = 16
STUDENT = synthetic.Shape(2, 32, 2, 64)
RECIPE = """\
name: one-epoch
stages:
  - {name: hidden, losses: {hidden: {weight: 1.0}, soft: {weight: 1.0}}, epochs: 1}
"""


def plan(num_rows: int, shard_rows: int, width: int) -> Plan:
    """A cache of float32 states of so many columns, whose random bits keep them from being compressed."""
    hidden = Hidden(
        depth=Depth(student_layers=STUDENT.num_layers, target=LAYER, num_layers=1),
        length=Length(tokens=POSITIONS),
        width=Width(scheme="all"),
        encoding="float32",
    )
    stored = HiddenField(
        width=width,
        num_columns=width,
        columns="all",
        encoding="float32",
        layers=[LAYER],
        max_tokens=POSITIONS,
    )

    def arrays(draw: Generator, count: int) -> Arrays:
        states = {
            "position_offsets": offsets(count, POSITIONS),
            f"layer_{LAYER}/positions": np.tile(np.arange(POSITIONS, dtype=np.uint16), count),
            f"layer_{LAYER}/values": draw.standard_normal((count * POSITIONS, width), np.float32),
        }
        return {"hidden": states}

    return Plan(num_rows, shard_rows, Spec(hidden=hidden, max_length=LENGTH), {"hidden": stored}, arrays)


class Peak(NamedTuple):
    """Cost of one run: largest resident memory in bytes, seconds, and median seconds of a step."""

    num_bytes: int
    seconds: float
    step_s: float


def fit(cache: Path, residency: str, device: str) -> Peak:
    """Train one epoch in a process of its own, ``hsktrain fit`` as a user would call it."""
    folder = cache.parent
    out = folder / "student"
    shutil.rmtree(out, ignore_errors=True)
    student = synthetic.write_config(folder, STUDENT, LENGTH, VOCABULARY)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    rows = synthetic.write_rows(folder / "dev.tsv", synthetic.fixed_lengths(64, LENGTH), words=VOCABULARY)
    command = command_line(
        "hsktrain", "fit", "--cache", cache, "--residency", residency, "--out", out, "--student", student,
        "--recipe", folder / "recipe.yaml", "--device", device, "--eval-data", rows, "--text", "sentence",
        "--label", "label", "--json",
    )  # fmt: skip
    start = perf_counter()
    with (folder / "fit.json").open("w") as printed, (folder / "fit.log").open("w") as words:
        process = subprocess.Popen(command, stdout=printed, stderr=words)
        # wait4 tells this child's own peak; RUSAGE_CHILDREN would tell the largest of all so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"hsktrain fit failed: {(folder / 'fit.log').read_text().splitlines()[-1]}")
    result = json.loads((folder / "fit.json").read_text())
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return Peak(usage.ru_maxrss * unit, perf_counter() - start, result["stages"][0]["seconds_per_step"])


@click.command()
@options.count("--megabytes", 100, "Of states in the smaller cache.")
@options.count("--factor", 10, "How much larger the other is.", at_least=2)
@options.count("--shard-rows", 128, "Rows of a shard.")
@options.count("--width", 768, "Of the stored states.")
@click.option("--keep-caches", is_flag=True, help="Leave the caches in --work for another run.")
@options.work
@options.device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Measure the peak memory of hsktrain fit over a cache and over a larger one, in stream and in host residency.

    In stream residency memory must not follow the size of the cache.
    """
    folder = work / "memory"
    rows = max(1, given["megabytes"] * 1_000_000 // (POSITIONS * given["width"] * 4))
    named = {"small": rows, "large": rows * given["factor"]}
    caches = {name: folder / f"{count}x{given['width']}.hsk" for name, count in named.items()}
    plans = {name: plan(count, given["shard_rows"], given["width"]) for name, count in named.items()}
    sizes = {name: write(cache, plans[name]) for name, cache in caches.items()}
    found: dict[str, dict[str, Peak]] = {}
    with console.progress("runs") as bar:
        task = bar.add_task("fit", total=4)
        for residency in ("stream", "host"):
            for name, cache in caches.items():
                found.setdefault(residency, {})[name] = fit(cache, residency, given["device"])
                bar.advance(task)
    if not given["keep_caches"]:
        for cache in caches.values():
            shutil.rmtree(cache)
    ratios = {residency: peaks["large"].num_bytes / peaks["small"].num_bytes for residency, peaks in found.items()}
    lines = []
    for residency, peaks in found.items():
        memory = [units.human_bytes(peaks[name].num_bytes) for name in named]
        lines.append([residency, *memory, f"{ratios[residency]:.3f}", f"{peaks['large'].step_s * 1e3:.2f}"])
    header = ("residency", *(f"{name}, {units.human_bytes(sizes[name])}" for name in named), "ratio", "ms a step")
    facts = {
        "settings": given,
        "cache_bytes": sizes,
        "cache_rows": named,
        "peaks": {residency: {name: p._asdict() for name, p in peaks.items()} for residency, peaks in found.items()},
    }
    title = f"peak resident memory of hsktrain fit by size of the cache, shards of {given['shard_rows']} rows"
    targets = [report.Target("large / small in stream residency", ratios["stream"], 1.15)]
    report.conclude(facts, [report.table(title, header, lines)], targets, as_json)
