"""Cost of a whole distillation by the recipe ``mud``: from a cache, build included, and with the teacher in the loop.

Nobody waits for 67,349 rows and fifteen epochs to learn a ratio: the rows are a sample of the real ones, steps of both
ways and builds of parts of the sample take turns, and the job is the sum of its steps, rows, evaluations and
checkpoints.
"""

import random
from collections.abc import Callable, Iterator
from itertools import count
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.folders import replace
from benchmarks.harness.jobs import built, make_job, make_spec
from benchmarks.harness.measure import environment, synchronise, take_turns
from benchmarks.harness.sides import Side, learning, student_of
from trainer.timing import Times

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.cache import Cache
    from hskcache.text import Examples

LOOP, CACHE = "teacher in the loop", "cache"
LOOP_HIDDEN, LOOP_PREDICTION = "teacher in the loop, hidden", "teacher in the loop, prediction"
HIDDEN, PREDICTION = "cache, hidden", "cache, prediction"
BUILD, EVALUATION, CHECKPOINT = "build", "evaluation", "checkpoint"
ROWS = 67_349
"""Rows of SST-2's training set."""


def sample(glue: Path, out: Path, num_rows: int) -> "Examples":
    """Rows of SST-2's training set, drawn without regard to their length."""
    lines = (glue / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()
    drawn = random.Random(0).sample(lines[1:], num_rows)  # noqa: S311
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out, "\n".join([lines[0], *drawn]) + "\n")
    return synthetic.read_rows(out)


def padded_batches(job: "Job", batch_size: int, length: int) -> Iterator[dict[str, Any]]:
    """Batches as the papers' code makes them: rows in random order, every one padded to one length."""
    import numpy as np
    import torch

    from hskcache.inference import pad_batch

    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(job.rows))
        for first in range(0, len(order) - batch_size + 1, batch_size):
            batch = pad_batch(job.rows, order[first : first + batch_size], job.teacher.tokenizer.pad_token_id)
            longest = batch["input_ids"].shape[1]
            yield {
                name: torch.nn.functional.pad(tensor, (0, length - longest)).to(job.teacher.device)
                for name, tensor in batch.items()
            }


def in_the_loop(job: "Job", stage: str, given: dict[str, Any]) -> Side:
    """The published way: the teacher computes for every batch of every epoch what the student learns from."""
    import torch
    from torch.nn.functional import mse_loss, softmax

    from hskcache.selection.depth import layer_map

    student, teacher = student_of(job, given), job.teacher.model
    widths = student.config.hidden_size, teacher.config.hidden_size
    projection = torch.nn.Linear(*widths).to(given["device"])
    layers = layer_map(student.config.num_hidden_layers, teacher.config.num_hidden_layers)

    def hidden(inputs: dict[str, Any]) -> Any:
        with torch.no_grad():
            theirs = teacher(**inputs, output_hidden_states=True).hidden_states
        ours = student(**inputs, output_hidden_states=True).hidden_states
        pairs = zip(ours, (theirs[layer] for layer in layers), strict=True)
        return torch.stack([mse_loss(projection(mine), other) for mine, other in pairs]).sum()

    def prediction(inputs: dict[str, Any]) -> Any:
        with torch.no_grad():
            answers = softmax(teacher(**inputs).logits, -1)
        return torch.nn.functional.cross_entropy(student(**inputs).logits, answers)

    learner = torch.nn.ModuleDict({"student": student, "projection": projection})
    loss, module = (hidden, learner) if stage == "hidden" else (prediction, student)
    return Side(module, loss, padded_batches(job, given["batch_size"], given["length"]), given)


def from_cache(job: "Job", cache: "Cache", given: dict[str, Any]) -> dict[str, Side]:
    """Students that learn as ``hsktrain fit --recipe mud`` lets them, one a stage."""
    from trainer.loading import KnowledgeLoader
    from trainer.recipe import load_recipe

    hidden, prediction = load_recipe("mud").stages
    shared = {"batch_size": given["batch_size"], "device": given["device"]}
    return {
        HIDDEN: learning(job, hidden.losses, KnowledgeLoader(cache, fields=("hidden",), **shared), given),
        PREDICTION: learning(job, prediction.losses, KnowledgeLoader(cache, fields=("logits",), **shared), given),
    }


def in_a_block(name: str, given: dict[str, Any]) -> int:
    """Steps of a side that are timed together.

    From a cache all of an epoch of the sample, as its batches are of similar length and take a few times as long as
    others; in the loop, where all batches are padded to one length, as many as are asked for.
    """
    steps: int = ceil(given["rows"] / given["batch_size"]) if name in (HIDDEN, PREDICTION) else given["block"]
    return steps


def steps(side: Side, num_steps: int, given: dict[str, Any]) -> Callable[[], None]:
    """A block of optimiser steps."""

    def run() -> None:
        for _ in range(num_steps):
            side.step()
        synchronise(given["device"])

    return run


def beside_the_steps(job: "Job", part: "Job", learner: Side, folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What a job from a cache does beside its steps: a build of some rows, an evaluation, and a checkpoint."""
    import torch

    from hskcache.build.build import build
    from hskcache.inference import predict
    from hskcache.text import tokenize

    numbers, tokenizer = count(), job.teacher.tokenizer
    dev = tokenize(synthetic.read_rows(given["glue"] / "SST-2" / "dev.tsv"), tokenizer, given["length"])

    def checkpoint() -> None:
        out = folder / "checkpoint"
        learner.module.student.save_pretrained(out)
        torch.save(learner.optimizer.state_dict(), out / "optimizer.pt")

    return {
        BUILD: lambda: build(part, folder / f"{next(numbers)}.hsk"),
        EVALUATION: lambda: predict(learner.module.student, dev, pad_token_id=tokenizer.pad_token_id),
        CHECKPOINT: checkpoint,
    }


class Prepared(NamedTuple):
    """The job of a sample of the real rows and its cache, and the job of a part of the sample."""

    job: "Job"
    cache: "Cache"
    part: "Job"


def prepare(work: Path, given: dict[str, Any]) -> Prepared:
    """Draw the rows, and run the random teacher over them once."""
    folder = work / f"job_{given['teacher']}_{given['rows']}x{given['length']}"
    spec = make_spec(given["keep"], given["encoding"], max_length=given["length"])
    rows = [sample(given["glue"], folder / f"{size}.tsv", size) for size in (given["rows"], given["build_rows"])]
    tokenizer = synthetic.train_tokenizer(folder / "tokenizer", list(rows[0].texts))
    teacher = synthetic.random_teacher(given["teacher"], work, given["device"], tokenizer=tokenizer)
    job, part = (make_job(teacher, examples, spec) for examples in rows)
    return Prepared(job, built(job, folder / f"{given['keep']}_{given['encoding']}.hsk"), part)


class Cost(NamedTuple):
    """Seconds of a way for the whole training set."""

    build: float
    hidden_epoch: float
    prediction_epoch: float
    saved: float

    @property
    def first_epoch(self) -> float:
        """Seconds until the first epoch is done."""
        return self.build + self.hidden_epoch

    def whole(self, epochs: tuple[float, float]) -> float:
        """Seconds of the job."""
        trained = epochs[0] * self.hidden_epoch + epochs[1] * self.prediction_epoch
        return self.build + trained + self.saved


def costs(times: Times, epochs: tuple[float, float], given: dict[str, Any]) -> dict[str, Cost]:
    """What both ways take for all rows; evaluations and checkpoints are counted for the cache alone."""
    num_steps = ceil(ROWS / given["batch_size"])
    epoch = {
        name: num_steps * times.median(name) / in_a_block(name, given)
        for name in (LOOP_HIDDEN, LOOP_PREDICTION, HIDDEN, PREDICTION)
    }
    # A student is saved after every epoch, and scored where the recipe chooses the best.
    saved = sum(epochs) * times.median(CHECKPOINT) + epochs[1] * times.median(EVALUATION)
    rows_built = ROWS / given["build_rows"]
    return {
        LOOP: Cost(0, epoch[LOOP_HIDDEN], epoch[LOOP_PREDICTION], 0),
        CACHE: Cost(rows_built * times.median(BUILD), epoch[HIDDEN], epoch[PREDICTION], saved),
    }


@click.command()
@options.glue
@options.count("--rows", 1024, "Rows of the sample.")
@options.count("--build-rows", 256, "Rows of a timed build.")
@options.length("Tokens of a row at most, to which the published way pads every row.", 64)
@options.batch_size
@options.count("--block", 4, "Steps with the teacher in the loop that are timed together; of a cache whole epochs are.")
@options.keep
@options.encoding
@options.teacher_shape
@options.student_of_4
@options.repetitions(7)
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time the steps, builds, evaluations and checkpoints of a job on SST-2's real text, alternating in one run.

    The sums are of all 67,349 rows and the epochs of the paper. The teacher has random weights: time does not tell.
    """
    from hskcache.runtime import quiet
    from trainer.recipe import load_recipe

    work.mkdir(parents=True, exist_ok=True)
    about, recipe = environment(given["device"]), load_recipe("mud").for_task("sst2")
    epochs = recipe.stages[0].epochs, recipe.stages[1].epochs
    with quiet(), TemporaryDirectory(prefix="job-", dir=work) as folder:
        job, cache, part = prepare(work, given)
        learners = from_cache(job, cache, given)
        sides = {LOOP_HIDDEN: in_the_loop(job, "hidden", given), LOOP_PREDICTION: in_the_loop(job, "prediction", given)}
        work_of = {name: steps(side, in_a_block(name, given), given) for name, side in (sides | learners).items()}
        work_of |= beside_the_steps(job, part, learners[HIDDEN], Path(folder), given)
        times = take_turns("job", work_of, given["repetitions"])
    conclude(times, epochs, about, given, as_json)


def conclude(
    times: Times, epochs: tuple[float, float], about: dict[str, Any], given: dict[str, Any], as_json: bool
) -> None:
    """Print times a step and the sums, and judge them."""
    of_way = costs(times, epochs, given)
    loop, cache = of_way[LOOP], of_way[CACHE]
    whole = cache.whole(epochs)
    targets = [
        report.Target("whole job, teacher in the loop / cache", loop.whole(epochs) / whole, 18, at_least=True),
        report.Target(
            "first epoch, teacher in the loop / cache with its build",
            loop.first_epoch / cache.first_epoch,
            8,
            at_least=True,
        ),
        report.Target("evaluations and checkpoints / whole job", cache.saved / whole, 0.05),
    ]
    whole_runs = (BUILD, EVALUATION, CHECKPOINT)
    timed = [
        [name, f"{times.median(name) / (1 if name in whole_runs else in_a_block(name, given)):.4f}"]
        for name in times.seconds
    ]
    header = ("seconds of the job", "build", "an epoch, hidden", "an epoch, prediction", "saving", "whole")
    sums = [[name, *(f"{value:,.0f}" for value in (*cost, cost.whole(epochs)))] for name, cost in of_way.items()]
    title = f"{given['teacher']} to {given['student']}, B={given['batch_size']}, {about['device']}"
    facts = {
        "settings": given,
        "environment": about,
        **times.facts(),
        "costs": {name: cost._asdict() for name, cost in of_way.items()},
    }
    texts = [
        report.table(title, (f"a step, or {given['build_rows']} rows built", "s"), timed),
        report.table(f"{ROWS:,} rows, {epochs[0]:g} + {epochs[1]:g} epochs", header, sums),
    ]
    report.conclude(facts, texts, targets, as_json)
