"""Cost of attention scores on disk and in a step: all positions, the best K x K, and the teacher in the loop."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import built, make_job
from benchmarks.harness.measure import environment, ratio
from benchmarks.harness.sides import Side, learning, student_of, time_sides
from hskcache import units
from hskcache.spec import Attention, Length, Spec

if TYPE_CHECKING:
    from hskcache.build.job import Job

FULL, SOME = "cache, all positions", "cache, {tokens} x {tokens}"
LIVE_FULL, LIVE_SOME = "teacher in the loop, all positions", "teacher in the loop, {tokens} x {tokens}"


def attention_spec(tokens: int | None, given: dict[str, Any]) -> Spec:
    """Attention alone, of the layers that a student of four learns from."""
    attention = Attention(length=Length(tokens=tokens), encoding=given["encoding"])
    return Spec(hidden=None, attention=attention, max_length=given["length"], shard_rows=given["shard_rows"])


def make_side(job: "Job", loader: Any, given: dict[str, Any]) -> Side:
    """A student that learns from attention scores alone."""
    from trainer.recipe import AttentionTerm, Losses

    same = student_of(job, given).config.num_attention_heads == job.teacher.info.num_heads
    return learning(job, Losses(attention=AttentionTerm(heads="match" if same else "mean")), loader, given)


def prepare(work: Path, given: dict[str, Any]) -> tuple[dict[str, Side], dict[str, float]]:
    """The four sides, and bytes a row on disk of both caches, which the real build writes once."""
    from trainer.loading import KnowledgeLoader
    from trainer.source.live import LiveLoader

    folder = work / f"attention_{given['teacher']}_{given['rows']}x{given['length']}"
    rows = synthetic.random_rows(folder / "rows.tsv", synthetic.fixed_lengths(given["rows"], given["length"]))
    teacher = synthetic.random_teacher(given["teacher"], work, given["device"])
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
@options.count("--rows", 64, "Rows of the caches.")
@options.length("Tokens of every row.")
@options.count("--tokens", 16, "K of K x K.")
@options.batch_size
@options.count("--shard-rows", 32, "Rows of a shard.")
@options.block
@options.encoding
@options.teacher_shape
@options.student_of_4
@options.repetitions()
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Compare caches of attention scores by their size and by one optimiser step of the same student.

    The student learns from attention alone; waiting for data and the optimiser belong to the step. The caches are made
    by the real build and used again.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    with quiet():
        sides, row_bytes = prepare(work, given)
    times, waiting = time_sides(sides, given)
    full, some = FULL, SOME.format(**given)
    rows = [
        [
            name,
            f"{times.median(name) * 1e3:.1f}",
            ratio(times, name, some),
            f"{100 * waiting[name]:.1f} %",
            units.human_bytes(row_bytes[name]) if name in row_bytes else "",
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
