"""Cost of attention scores on disk and in a step: all positions, the best K x K, and the teacher in the loop."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import report, synthetic
from benchmarks.harness.jobs import built, make_job
from benchmarks.harness.measure import environment
from benchmarks.harness.sides import Side, endless, time_sides
from hskcache import console
from hskcache.encoded import ENCODED
from hskcache.spec import Attention, Length, Spec

FULL, SOME = "cache, all positions", "cache, {tokens} x {tokens}"
LIVE_FULL, LIVE_SOME = "teacher in the loop, all positions", "teacher in the loop, {tokens} x {tokens}"


def attention_spec(tokens: int | None, given: dict[str, Any]) -> Spec:
    """Attention alone, of the layers that a student of four learns from."""
    attention = Attention(length=Length(tokens=tokens), encoding=given["encoding"])
    return Spec(hidden=None, attention=attention, max_length=given["length"], shard_rows=given["shard_rows"])


def make_side(job: Any, loader: Any, given: dict[str, Any]) -> Side:
    """A student that learns from attention scores alone."""
    import torch

    from trainer.recipe import AttentionTerm, Losses
    from trainer.source.live import live_knowledge
    from trainer.source.objective import Objective
    from trainer.student.create import create_student

    knowledge = live_knowledge(job)
    student = create_student(given["student"], knowledge.interface(), seed=0).to(given["device"])
    same = student.config.num_attention_heads == job.teacher.info.num_heads
    losses = Losses(attention=AttentionTerm(heads="match" if same else "mean"))
    objective = Objective(student, losses, knowledge.matches).to(given["device"])

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(torch.device(given["device"]).type, enabled=False)

    return Side(objective, lambda batch: objective(batch)[0], endless(loader), autocast)


def prepare(work: Path, given: dict[str, Any]) -> tuple[dict[str, Side], dict[str, float]]:
    """The four sides, and bytes a row on disk of both caches, which the real build writes once."""
    from trainer.loading import KnowledgeLoader
    from trainer.source.live import LiveLoader

    folder = work / f"attention_{given['teacher']}_{given['rows']}x{given['length']}"
    tokenizer = synthetic.write_tokenizer(work / "tokenizer")
    path = synthetic.write_rows(folder / "rows.tsv", synthetic.fixed_lengths(given["rows"], given["length"]))
    rows = synthetic.read_rows(path)
    teacher = synthetic.random_teacher(synthetic.SHAPES[given["teacher"]], tokenizer, given["device"])
    sides, row_bytes = {}, {}
    for tokens, cached, live in ((None, FULL, LIVE_FULL), (given["tokens"], SOME, LIVE_SOME)):
        job = make_job(teacher, rows, attention_spec(tokens, given))
        cache = built(job, folder / f"{tokens or 'all'}_{given['encoding']}.hsk")
        loader = KnowledgeLoader(
            cache, fields=("attention",), batch_size=given["batch_size"], residency="host", device=given["device"]
        )
        name = cached.format(**given)
        sides[name] = make_side(job, loader, given)
        row_bytes[name] = cache.num_bytes("attention") / len(rows)
        live_loader = LiveLoader(job, fields=("attention",), batch_size=given["batch_size"])
        sides[live.format(**given)] = make_side(job, live_loader, given)
    return sides, row_bytes


@click.command()
@click.option("--rows", type=click.IntRange(min=1), default=64, show_default=True, help="Rows of the caches.")
@click.option("--length", type=click.IntRange(4, 512), default=128, show_default=True, help="Tokens of every row.")
@click.option("--tokens", type=click.IntRange(min=1), default=16, show_default=True, help="K of K x K.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows of a step.")
@click.option("--shard-rows", type=click.IntRange(min=1), default=32, show_default=True, help="Rows of a shard.")
@click.option("--block", type=click.IntRange(min=1), help="Steps timed together.  [default: 1; 20 on CUDA]")
@click.option(
    "--encoding",
    type=click.Choice(tuple(ENCODED)),
    default="int8",
    show_default=True,
    help="How the caches store scores.",
)
@click.option("--teacher", type=click.Choice(list(synthetic.SHAPES)), default="bert-base", show_default=True)
@click.option("--student", default="tinybert4", show_default=True, help="What hsktrain takes, of 4 layers.")
@report.rounds
@report.work
@report.device
@report.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Compare caches of attention scores by their size and by one optimiser step of the same student.

    The student learns from attention alone; waiting for data and the optimiser belong to the step. The caches are made
    by the real build and used again.
    """
    from hskcache.runtime import quiet, resolve_device

    given["device"] = resolve_device(given["device"])
    about = environment(given["device"])
    with quiet():
        sides, row_bytes = prepare(work, given)
    times, waiting = time_sides(sides, given)
    full, some = FULL, SOME.format(**given)
    rows = [
        [
            name,
            f"{times.median(name) * 1e3:.1f}",
            f"{times.ratio(name, some):.3f} ({{:.3f}}-{{:.3f}})".format(*times.spread(name, some)),
            f"{100 * waiting[name]:.1f} %",
            console.human_bytes(row_bytes[name]) if name in row_bytes else "",
        ]
        for name in sides
    ]
    header = ("side", "ms a step", f"/ {some} (quartiles)", "waiting for data", "on disk a row")
    title = (
        f"{given['student']}, B={given['batch_size']}, L={given['length']}, {given['encoding']}, {about['device']}; "
        f"all positions take {row_bytes[full] / row_bytes[some]:.1f} times the bytes of {given['tokens']} x "
        f"{given['tokens']}"
    )
    facts = {"settings": given, "environment": about, **times.facts(), "waiting_share": waiting}
    facts |= {"bytes_a_row": row_bytes, "full_over_some_bytes": row_bytes[full] / row_bytes[some]}
    report.conclude(facts, [report.table(title, header, rows)], [], as_json)
