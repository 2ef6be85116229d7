"""Cost of a training step: on labels alone, from a cache, and with the teacher in the loop."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import report, synthetic
from benchmarks.harness.jobs import built, make_job, make_spec
from benchmarks.harness.measure import environment
from benchmarks.harness.sides import Side, endless, time_sides
from hskcache import console
from hskcache.encoded import ENCODED
from hskcache.spec import ComputeDtype

PLAIN, HIDDEN, PREDICTION, LIVE = "labels, plain", "cache, hidden", "cache, prediction", "teacher in the loop"


def plain_batches(job: Any, batch_size: int, device: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Batches for label fine-tuning, padded from rows in memory: the cheapest data pipeline there is."""
    import numpy as np
    import torch

    from trainer.inference import pad_batch

    rng = np.random.default_rng(0)
    pin = torch.device(device).type == "cuda"
    while True:
        order = rng.permutation(len(job.rows))
        for first in range(0, len(order) - batch_size + 1, batch_size):
            index = order[first : first + batch_size]
            batch = pad_batch(job.rows, index, job.teacher.tokenizer.pad_token_id)
            batch["labels"] = torch.from_numpy(job.labels[index])
            moved = {
                name: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=pin)
                for name, tensor in batch.items()
            }
            yield moved, moved.pop("labels")


def make_loaders(job: Any, cache: Any, given: dict[str, Any]) -> dict[str, Any]:
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


def make_sides(job: Any, loaders: dict[str, Any], given: dict[str, Any]) -> dict[str, Side]:
    """Four students of the same weights, each with its own source of batches."""
    import torch

    from trainer.recipe import HiddenTerm, Losses, SoftTerm
    from trainer.source.live import live_knowledge
    from trainer.source.objective import Objective
    from trainer.student.create import create_student

    device, knowledge = given["device"], live_knowledge(job)
    assert knowledge.hidden is not None

    def student() -> Any:
        return create_student(given["student"], knowledge.interface(), seed=0).to(device)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=given["bf16"])

    plain = student()

    def label_loss(batch: tuple[dict[str, Any], Any]) -> Any:
        inputs, labels = batch
        return torch.nn.functional.cross_entropy(plain(**inputs).logits.float(), labels)

    def total(objective: Objective, batch: Any) -> Any:
        return objective(batch)[0]

    sides = {PLAIN: Side(plain, label_loss, plain_batches(job, given["batch_size"], device), autocast)}
    for name, loader in loaders.items():
        losses = Losses(soft=SoftTerm()) if name == PREDICTION else Losses(hidden=HiddenTerm())
        objective = Objective(student(), losses, knowledge.matches).to(device)
        sides[name] = Side(objective, partial(total, objective), endless(loader), autocast)
    return sides


def encoded_bytes(loader: Any) -> float:
    """Encoded bytes of an average batch: what a step moves to the device where the cache is not on it already."""
    import numpy as np

    rows = loader.reader.read(tuple(range(len(loader.cache.shards))))
    sizes = [rows.take(np.array(batch.row_ids)).num_bytes for batch in loader]
    return float(np.mean(sizes))


def prepare(work: Path, given: dict[str, Any]) -> tuple[Any, Any]:
    """The job of a random teacher over random rows, and its cache, built once."""
    dtype: ComputeDtype = "bfloat16" if given["bf16"] else "float32"
    folder = work / f"step_{given['teacher']}_{given['rows']}x{given['length']}_{dtype}"
    tokenizer = synthetic.write_tokenizer(work / "tokenizer")
    rows = synthetic.write_rows(folder / "rows.tsv", synthetic.fixed_lengths(given["rows"], given["length"]))
    teacher = synthetic.random_teacher(synthetic.SHAPES[given["teacher"]], tokenizer, given["device"], dtype)
    spec = make_spec(given["keep"], given["encoding"], max_length=given["length"], compute_dtype=dtype)
    job = make_job(teacher, synthetic.read_rows(rows), spec)
    return job, built(job, folder / f"{given['keep']}_{given['encoding']}.hsk")


@click.command()
@click.option("--rows", type=click.IntRange(min=1), default=256, show_default=True, help="Rows of the cache.")
@click.option("--length", type=click.IntRange(4, 512), default=128, show_default=True, help="Tokens of every row.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows of a step.")
@click.option("--block", type=click.IntRange(min=1), help="Steps timed together.  [default: 1; 20 on CUDA]")
@report.keep
@click.option(
    "--encoding",
    type=click.Choice(tuple(ENCODED)),
    default="int8",
    show_default=True,
    help="How the cache stores values.",
)
@click.option("--teacher", type=click.Choice(list(synthetic.SHAPES)), default="bert-base", show_default=True)
@click.option("--student", default="tinybert4", show_default=True, help="What hsktrain takes, of 4 layers.")
@click.option("--residency", type=click.Choice(["auto", "device", "host", "stream"]), default="auto", show_default=True)
@click.option("--bf16", is_flag=True, help="Teacher in bfloat16, students under bfloat16 autocast.")
@report.rounds
@report.work
@report.device
@report.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time one optimiser step of the same student with four sources of supervision, alternating in one run.

    Waiting for data and the optimiser belong to the step. The cache is made by the real build and used again.
    """
    from hskcache.runtime import quiet, resolve_device

    given["device"] = resolve_device(given["device"])
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
        against = f"{times.ratio(name, PLAIN):.3f} ({{:.3f}}-{{:.3f}})".format(*times.spread(name, PLAIN))
        size = console.human_bytes(num_bytes[name]) if name in num_bytes else ""
        milliseconds, share = f"{times.median(name) * 1e3:.1f}", f"{100 * waiting[name]:.2f} %"
        rows.append([name, milliseconds, "1" if name == PLAIN else against, share, size])
    header = ("side", "ms a step", "/ plain (quartiles)", "waiting for data", "encoded a step")
    title = f"{given['student']}, B={given['batch_size']}, L={given['length']}, {about['device']}"
    facts = {"settings": given, "environment": about, **times.facts(), "waiting_share": waiting}
    facts |= {"residency": loaders[HIDDEN].residency, "encoded_bytes_a_step": num_bytes}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
