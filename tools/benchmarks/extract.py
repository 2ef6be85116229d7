"""Cost of building a cache beyond the teacher's own forward passes."""

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from numpy.typing import NDArray

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import make_job, make_spec
from benchmarks.harness.measure import environment, ratio, synchronise, take_turns
from trainer.timing import Times

if TYPE_CHECKING:
    from hskcache.build.job import Job

BARE, BUILD = "bare forward", "build"


def forward_alone(job: "Job") -> Callable[[], None]:
    """The teacher over the build's own batches, already padded and on the device, and nothing else."""
    import torch

    from hskcache.attention import IMPLEMENTATION
    from hskcache.build.batching import batching_of
    from hskcache.build.build import extractor_for

    extractor, shards, model = extractor_for(job), job.layout.shards, job.teacher.model
    batching = batching_of(job)
    batches = [
        extractor.batch(index)[0]
        for group in batching.groups
        for index in batching.batches(shards[group[0]][0], shards[group[-1]][1])
    ]

    def run() -> None:
        model.set_attn_implementation("sdpa")
        with torch.inference_mode():
            for inputs in batches:
                model(**inputs)
        synchronise(str(job.teacher.device))
        model.set_attn_implementation(IMPLEMENTATION)

    return run


def whole_build(job: "Job", folder: Path) -> Callable[[], None]:
    """Run from the prepared job to a finished cache in a fresh folder below ``folder``."""
    from hskcache.build.build import build

    numbers = count()

    def run() -> None:
        build(job, folder / f"{next(numbers)}.hsk")

    return run


def measure(job: "Job", work: Path, given: dict[str, Any], name: str) -> Times:
    """Seconds of the two sides, alternating."""
    with tempfile.TemporaryDirectory(prefix="extract-", dir=work) as folder:
        sides = {BARE: forward_alone(job), BUILD: whole_build(job, Path(folder))}
        return take_turns(name, sides, given["repetitions"], given["warmup"], given["clock"])


def cases(given: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Row lengths by case; about the same number of tokens in each."""
    length, rows = given["length"], given["rows"]
    all_cases = {
        "fixed": synthetic.fixed_lengths(rows, length),
        "ragged": synthetic.ragged_lengths(rows * length, length),
    }
    return {name: all_cases[name] for name in given["cases"] or all_cases}


@click.command()
@options.teacher_shape
@options.count("--rows", 128, "Rows of --length tokens.")
@options.length("Tokens of a row at most.")
@click.option(
    "--case", "cases", multiple=True, type=click.Choice(["fixed", "ragged"]), help="One only.  [default: both]"
)
@options.encoding
@click.option("--shard-rows", type=click.IntRange(min=1), help="Rows of a shard.  [default: as a build has it]")
@options.count("--token-budget", 4096)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@options.repetitions(5)
@options.count("--warmup", 1, "Untimed runs of each side.", at_least=0)
@options.keep
@options.clock
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time a whole build against the teacher's bare forward passes over the same batches, alternating in one run.

    The build begins with a prepared job and ends with a finished cache; loading the teacher and tokenizing are outside.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    work.mkdir(parents=True, exist_ok=True)
    rows, targets, found = [], [], {}
    with quiet():
        teacher = synthetic.random_teacher(given["teacher"], work, given["device"], given["dtype"])
    for name, lengths in cases(given).items():
        examples = synthetic.random_rows(work / f"extract_{name}.tsv", lengths)
        spec = make_spec(given["keep"], given["encoding"], max_length=given["length"], compute_dtype=given["dtype"])
        settings = {name: given[name] for name in ("shard_rows", "token_budget")}
        job = make_job(teacher, examples, spec.model_copy(update=settings))
        times = measure(job, work, given, name)
        tokens = int(lengths.sum())
        seconds = [f"{times.median(side):.2f}" for side in (BARE, BUILD)]
        rate = f"{tokens / times.median(BUILD):,.0f}"
        rows.append([f"{name}, {len(lengths)} rows", f"{tokens:,}", *seconds, ratio(times, BUILD, BARE), rate])
        targets.append(report.Target(f"build / bare forward, {name}", times.ratio(BUILD, BARE), 1.10))
        found[name] = {"num_rows": len(lengths), "num_tokens": tokens, **times.facts()}
    header = ("rows", "tokens", "bare s", "build s", "build / bare (quartiles)", "tokens/s of the build")
    title = f"{given['teacher']} teacher, {given['keep']} {given['encoding']}, {given['dtype']}, {about['device']}"
    facts = {"settings": given, "environment": about, "cases": found}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
