"""Difference between learning from a cache and learning from the teacher itself, in the loss of every step."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import click

from benchmarks.harness import report, synthetic
from benchmarks.harness.jobs import built, make_job, make_spec, with_attention
from benchmarks.harness.measure import environment
from hskcache import console
from hskcache.encoded import ENCODED

# Largest relative difference of the loss or one of its terms, at any step. float32 is the promise. The others are the
# largest that was measured (README: 2.6e-5, 1.3e-4, 3.5e-4, 1.23e-2), times three to four and rounded.
BOUNDS = {"float32": 1e-5, "float16": 1e-4, "bfloat16": 5e-4, "int8": 1e-3, "int4": 4e-2}
Missing = Literal["zero", "ignore"]
MISSING: tuple[Missing, ...] = get_args(Missing)
SHARD_ROWS = 128


class Step(NamedTuple):
    """Rows and losses of one optimiser step."""

    rows: tuple[int, ...]
    loss: float
    terms: dict[str, float]


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch of a loader."""
    while True:
        yield from loader


def train(loader: Any, job: Any, missing: Missing, given: dict[str, Any]) -> list[Step]:
    """Train a student of seed 0 on all that the cache keeps, dropout on, and note every step."""
    import torch

    from trainer.recipe import AttentionTerm, HiddenTerm, Losses, SoftTerm
    from trainer.source.live import live_knowledge
    from trainer.source.objective import Objective
    from trainer.student.create import create_student

    knowledge = live_knowledge(job)
    student = create_student(given["student_config"], knowledge.interface(), seed=0).to(given["device"])
    attention = AttentionTerm(heads=given["heads"]) if knowledge.attention is not None else None
    losses = Losses(hidden=HiddenTerm(missing=missing), attention=attention, soft=SoftTerm())
    objective = Objective(student, losses, knowledge.matches).to(given["device"]).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=given["learning_rate"], fused=True)
    torch.manual_seed(0)
    steps = []
    for batch in islice(endless(loader), given["steps"]):
        loss, terms = objective(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps.append(Step(batch.row_ids, loss.item(), {name: term.item() for name, term in terms.items()}))
    return steps


def largest_difference(cached: list[Step], live: list[Step]) -> float:
    """Over all steps and terms, |cached - live| / |live|."""
    largest = 0.0
    for mine, theirs in zip(cached, live, strict=True):
        if mine.rows != theirs.rows:
            raise AssertionError("the cache and the teacher in the loop gave different rows")
        pairs = [(mine.loss, theirs.loss), *((mine.terms[name], theirs.terms[name]) for name in theirs.terms)]
        largest = max(largest, *(abs(a - b) / abs(b) for a, b in pairs))
    return largest


def compare(given: dict[str, Any], work: Path) -> dict[str, dict[str, float]]:
    """The largest relative difference by encoding and treatment of dropped columns."""
    from trainer.loading import KnowledgeLoader
    from trainer.source.live import LiveLoader

    teacher, examples, name = source(given, work)
    found: dict[str, dict[str, float]] = {}
    live: dict[str, list[Step]] = {}
    encodings = given["encodings"] or tuple(ENCODED)
    with console.progress("runs") as bar:
        task = bar.add_task("train", total=len(MISSING) * (len(encodings) + 1))
        for encoding in encodings:
            spec = with_attention(make_spec(given["keep"], encoding, max_length=given["length"]), given["attention"])
            # The order follows the shards, whose size must not follow the encoding.
            job = make_job(teacher, examples, spec.model_copy(update={"shard_rows": SHARD_ROWS}))
            cache = built(job, work / "parity" / f"{name}_{given['keep']}_{given['attention']}_{encoding}.hsk")
            for missing in MISSING:
                if missing not in live:
                    live[missing] = train(LiveLoader(job, batch_size=given["batch_size"]), job, missing, given)
                    bar.advance(task)
                loader = KnowledgeLoader(
                    cache, residency="stream", batch_size=given["batch_size"], device=given["device"]
                )
                cached = train(loader, job, missing, given)
                found.setdefault(encoding, {})[missing] = largest_difference(cached, live[missing])
                bar.advance(task)
    return found


def source(given: dict[str, Any], work: Path) -> tuple[Any, Any, str]:
    """Teacher, rows and a name for both: made up, or the ones that are given."""
    if given["teacher"] is not None:
        from hskcache.teacher.load import load_teacher
        from hskcache.text.layout import Layout

        if given["data"] is None:
            raise click.UsageError("--teacher needs --data, rows of its task")
        teacher = load_teacher(given["teacher"], given["device"])
        layout = Layout(given["task"], None, None, None, None)
        rows = layout.read_for(teacher.info.name, teacher.model.config, given["data"])
        return teacher, rows, f"given_{given['length']}"
    tokenizer = synthetic.write_tokenizer(work / "tokenizer")
    name = f"{given['shape']}_{given['rows']}x{given['length']}"
    lengths = synthetic.ragged_lengths(given["rows"] * given["length"], given["length"])[: given["rows"]]
    path = synthetic.write_rows(work / "parity" / f"{name}.tsv", lengths)
    teacher = synthetic.random_teacher(synthetic.SHAPES[given["shape"]], tokenizer, given["device"])
    return teacher, synthetic.read_rows(path), name


@click.command()
@click.option("--shape", type=click.Choice(list(synthetic.SHAPES)), default="small", show_default=True)
@click.option("--teacher", metavar="DIR_OR_ID", help="A fine-tuned teacher instead of random weights; needs --data.")
@click.option("--data", metavar="FILE", help="Rows for --teacher.")
@click.option("--task", default="sst2", show_default=True, help="Task of --data.")
@click.option("--student", default="tiny", show_default=True, help="tinybert4, or tiny: 4 layers, 48 wide.")
@click.option("--rows", type=click.IntRange(min=1), default=512, show_default=True, help="Rows of random words.")
@click.option("--length", type=click.IntRange(4, 512), default=64, show_default=True, help="Tokens of a row at most.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Rows of a step.")
@click.option("--steps", type=click.IntRange(min=1), default=50, show_default=True, help="Optimiser steps of each run.")
@click.option("--lr", "learning_rate", default=5e-5, show_default=True, help="Of AdamW.")
@click.option("--encodings", multiple=True, type=click.Choice(list(BOUNDS)), help="Some only.  [default: all]")
@report.keep
@click.option("--attention", default="8t", show_default=True, help="Attention scores: layers and tokens, full or none.")
@click.option("--heads", default="mean", show_default=True, help="mean, or match where both have as many heads.")
@report.work
@report.device
@report.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Train the same student from a cache and from the teacher in the loop and compare every step's loss.

    The teacher is in eval mode, the student trains with dropout of the same seed, both meet the same batches.
    Exit 1 if the losses differ by more than the encoding allows; float32 allows 1e-5.
    """
    import json

    from hskcache.runtime import quiet, resolve_device

    given["device"] = resolve_device(given["device"])
    given["student_config"] = given["student"]
    if given["student"] == "tiny":
        folder = work / "parity" / "student"
        folder.mkdir(parents=True, exist_ok=True)
        shape = synthetic.Shape(4, 48, 4, 96)
        (folder / "config.json").write_text(json.dumps(synthetic.config(shape)), encoding="utf-8")
        given["student_config"] = str(folder)
    with quiet():
        found = compare(given, work)
    header = ("encoding", *(f"missing {missing}" for missing in MISSING), "bound")
    rows = [
        [name, *(f"{values[missing]:.2e}" for missing in MISSING), f"{BOUNDS[name]:.0e}"]
        for name, values in found.items()
    ]
    kept = f"{given['keep']}, attention {given['attention']}"
    title = f"largest relative difference of a loss in {given['steps']} steps, {kept}"
    targets = [report.Target(name, max(values.values()), BOUNDS[name]) for name, values in found.items()]
    facts = {"settings": given, "environment": environment(given["device"]), "largest_difference": found}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
