"""Cost of a training step: on labels alone, from a cache, and with the teacher in the loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import built, make_job, make_spec
from benchmarks.harness.measure import environment, ratio
from benchmarks.harness.sides import Side, learning, student_of, time_sides
from hskcache import units
from hskcache.spec import ComputeDtype

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.cache import Cache

PLAIN, HIDDEN, PREDICTION, LIVE = "labels, plain", "cache, hidden", "cache, prediction", "teacher in the loop"


def plain_batches(job: "Job", batch_size: int, device: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Batches for label fine-tuning, padded from rows in memory: the cheapest data pipeline there is."""
    import numpy as np
    import torch

    from hskcache.inference import pad_batch

    rng = np.random.default_rng(0)
    pin = torch.device(device).type == "cuda"
    labels = job.labels
    assert labels is not None
    while True:
        order = rng.permutation(len(job.rows))
        for first in range(0, len(order) - batch_size + 1, batch_size):
            index = order[first : first + batch_size]
            batch = pad_batch(job.rows, index, job.teacher.tokenizer.pad_token_id)
            batch["labels"] = torch.from_numpy(labels[index])
            moved = {
                name: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=pin)
                for name, tensor in batch.items()
            }
            yield moved, moved.pop("labels")


def make_loaders(job: "Job", cache: "Cache", given: dict[str, Any]) -> dict[str, Any]:
    """Sources of batches for those sides that learn from the teacher's knowledge."""
    from trainer.loading import KnowledgeLoader
    from trainer.source.live import LiveLoader

    shared = {"batch_size": given["batch_size"]}
    cached = {"residency": given["residency"], "device": given["device"], **shared}
    return {
        HIDDEN: KnowledgeLoader(cache, fields=("hidden",), **cached),
        PREDICTION: KnowledgeLoader(cache, fields=("logits",), **cached),
        LIVE: LiveLoader(job, fields=("hidden",), **shared),
    }


def make_sides(job: "Job", loaders: dict[str, Any], given: dict[str, Any]) -> dict[str, Side]:
    """Four students of the same weights, each with its own source of batches."""
    import torch

    from trainer.recipe import HiddenTerm, Losses, SoftTerm

    plain = student_of(job, given)

    def label_loss(batch: tuple[dict[str, Any], Any]) -> Any:
        inputs, labels = batch
        return torch.nn.functional.cross_entropy(plain(**inputs).logits.float(), labels)

    sides = {PLAIN: Side(plain, label_loss, plain_batches(job, given["batch_size"], given["device"]), given)}
    for name, loader in loaders.items():
        losses = Losses(soft=SoftTerm()) if name == PREDICTION else Losses(hidden=HiddenTerm())
        sides[name] = learning(job, losses, loader, given)
    return sides


def encoded_bytes(loader: Any) -> float:
    """Encoded bytes of an average batch: what a step moves to the device where the cache is not on it already."""
    import numpy as np

    rows = loader.reader.read(tuple(range(len(loader.cache.shards))))
    sizes = [rows.take(np.array(batch.row_ids)).num_bytes for batch in loader]
    return float(np.mean(sizes))


def prepare(work: Path, given: dict[str, Any]) -> "tuple[Job, Cache]":
    """The job of a random teacher over random rows, and its cache, built once."""
    dtype: ComputeDtype = "bfloat16" if given["bf16"] else "float32"
    folder = work / f"step_{given['teacher']}_{given['rows']}x{given['length']}_{dtype}"
    rows = synthetic.random_rows(folder / "rows.tsv", synthetic.fixed_lengths(given["rows"], given["length"]))
    teacher = synthetic.random_teacher(given["teacher"], work, given["device"], dtype)
    spec = make_spec(given["keep"], given["encoding"], max_length=given["length"], compute_dtype=dtype)
    job = make_job(teacher, rows, spec)
    return job, built(job, folder / f"{given['keep']}_{given['encoding']}.hsk")


@click.command()
@options.count("--rows", 256, "Rows of the cache.")
@options.length("Tokens of every row.")
@options.batch_size
@options.block
@options.keep
@options.encoding
@options.teacher_shape
@options.student_of_4
@click.option("--residency", type=click.Choice(["auto", "device", "host", "stream"]), default="auto", show_default=True)
@click.option("--bf16", is_flag=True, help="Teacher in bfloat16, students under bfloat16 autocast.")
@options.repetitions()
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time one optimiser step of the same student with four sources of supervision, alternating in one run.

    Waiting for data and the optimiser belong to the step. The cache is made by the real build and used again.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    with quiet():
        job, cache = prepare(work, given)
        loaders = make_loaders(job, cache, given)
        sides = make_sides(job, loaders, given)
    num_bytes = {name: encoded_bytes(loaders[name]) for name in (HIDDEN, PREDICTION)}
    times, waiting = time_sides(sides, given)
    targets = [
        report.Target("cached / plain, hidden stage", times.ratio(HIDDEN, PLAIN), 1.05),
        report.Target("cached / plain, prediction stage", times.ratio(PREDICTION, PLAIN), 1.05),
        report.Target("teacher in the loop / cached", times.ratio(LIVE, HIDDEN), 4.0, at_least=True),
    ]
    rows = []
    for name in sides:
        size = units.human_bytes(num_bytes[name]) if name in num_bytes else ""
        milliseconds, share = f"{times.median(name) * 1e3:.1f}", f"{100 * waiting[name]:.2f} %"
        rows.append([name, milliseconds, "1" if name == PLAIN else ratio(times, name, PLAIN), share, size])
    header = ("side", "ms a step", "/ plain (quartiles)", "waiting for data", "encoded a step")
    title = f"{given['student']}, B={given['batch_size']}, L={given['length']}, {about['device']}"
    facts = {"settings": given, "environment": about, **times.facts(), "waiting_share": waiting}
    facts |= {"residency": loaders[HIDDEN].residency, "encoded_bytes_a_step": num_bytes}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
