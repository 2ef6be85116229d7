"""Sides that take turns, their ratios, and the origin of a figure."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click

from hskcache import console
from trainer.timing import Times, alternate

TO = "{:.3f} ({:.3f} to {:.3f})"


CLOCKS = {"wall": perf_counter, "cpu": process_time}
"""Clocks by name: ``cpu`` counts what this process computes in all its threads, whatever others do meanwhile."""


def take_turns(
    name: str,
    sides: Mapping[str, Callable[[], Any]],
    repetitions: int,
    warmup: int = 1,
    clock: str = "wall",
    on_done: Callable[[], None] = lambda: None,
) -> Times:
    """Seconds of every side, see :func:`trainer.timing.alternate`, with a bar of that name."""
    with console.progress("runs") as bar:
        task = bar.add_task(name, total=len(sides) * (repetitions + warmup))

        def done() -> None:
            on_done()
            bar.advance(task)

        return alternate(sides, repetitions, warmup, done, CLOCKS[clock])


def ratio(times: Times, side: str, reference: str, form: str = "{:.3f} ({:.3f}-{:.3f})") -> str:
    """A cell: the ratio of the medians, and the quartiles of the ratio within a repetition."""
    return form.format(times.ratio(side, reference), *times.spread(side, reference))


def throughput(times: Times, side: str, num_bytes: int) -> list[str]:
    """Two cells: median seconds, and megabytes a second."""
    seconds = times.median(side)
    return [f"{seconds:.3f}", f"{num_bytes / seconds / 1e6:,.0f}"]


def synchronise(device: str) -> None:
    """Wait until the device has finished what was asked of it."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def most_memory(run: Callable[[], Any], device: str) -> int:
    """Most bytes that a run takes beyond what there is: of the device, or resident in this process."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return int(torch.cuda.max_memory_allocated(device) - before)
    # 5 resets the high-water mark of a process of Linux.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def peak_alone(benchmark: str, *arguments: Any) -> int:
    """Bytes that the ``peak`` of a benchmark's module finds in a process of its own; arguments go as JSON."""
    code = f"import json, sys; from benchmarks.{benchmark} import peak; print(peak(*json.loads(sys.argv[1])))"
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    tools = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=tools, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])
    return int(done.stdout)


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise click.ClickException(f"/proc/self/status tells no {name}; on the CPU this runs on Linux")
    return int(found[1]) * 1024


def environment(device: str = "cpu") -> dict[str, Any]:
    """Origin of a figure: versions, threads and device, and the load of the machine at the start."""
    import torch
    import transformers

    place = torch.device(device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }
