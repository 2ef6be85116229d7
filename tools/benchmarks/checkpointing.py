"""Memory and time of a language model's step with gradient checkpointing, and without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.language import VOCABULARY, LanguageShape, language_model
from benchmarks.harness.measure import environment, most_memory, peak_alone, ratio, synchronise, take_turns
from hskcache import units

KEPT, AGAIN = "inner values kept", "computed again"


def make_step(side: str, work: Path, given: dict[str, Any]) -> Callable[[], None]:
    """Forward and backward pass of a student that learns from the text alone, as hsktrain has it."""
    import torch

    from trainer.batch import Batch
    from trainer.recipe import GoldTerm, Losses
    from trainer.source.objective import Objective
    from trainer.student.recomputation import recompute_layers

    shape, rows, length = LanguageShape(given["layers"], given["width"]), given["rows"], given["length"]
    student = language_model(work, shape, length).to(given["device"])
    if side == AGAIN:
        recompute_layers(student, "the student")
    objective = Objective(student, Losses(gold=GoldTerm())).train()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (rows, length), generator=draw).to(given["device"])
    places = torch.arange(rows * length, device=given["device"]).view(rows, length)[:, :-1].flatten()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    totals = {"inputs": len(places)}
    batch = Batch(inputs, None, {}, rows, tuple(range(rows)), totals, answered=places)

    def step() -> None:
        loss, _ = objective(batch)
        loss.backward()
        objective.zero_grad(set_to_none=True)
        synchronise(given["device"])

    return step


def peak(side: str, work: str, given: dict[str, Any]) -> int:
    """Most bytes that a step takes beyond weights and inputs, the gradients among them."""
    # What is made at first use belongs to no step.
    make_step(side, Path(work), {**given, "rows": 1, "layers": 1})()
    return most_memory(make_step(side, Path(work), given), given["device"])


@click.command()
@options.count("--layers", 8, "Of the student.")
@options.count("--width", 256, "Of the student, a multiple of 64.", at_least=64)
@options.count("--rows", 8, "Rows of a step.")
@options.length("Tokens of a row.", 256)
@options.repetitions(5)
@options.clock
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, clock: str, repetitions: int, **given: Any) -> None:
    """Measure forward and backward passes of a student of SmolLM2's form on text, both ways.

    Times are of one run in turns; memory is of a process of its own each, and holds the gradients, which are the same.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    peaks = {side: peak_alone("checkpointing", side, str(work.resolve()), given) for side in (KEPT, AGAIN)}
    with quiet():
        sides = {side: make_step(side, work, given) for side in (KEPT, AGAIN)}
    times = take_turns("steps", sides, repetitions, clock=clock)
    rows = [
        [side, units.human_bytes(peaks[side]), f"{times.median(side):.2f}", ratio(times, side, KEPT)] for side in sides
    ]
    share = peaks[AGAIN] / peaks[KEPT]
    shape = LanguageShape(given["layers"], given["width"])
    title = f"student of {shape}, {given['rows']} rows of {given['length']} tokens, {about['device']}"
    facts = {"settings": given, "environment": about, "peak_bytes": peaks, "share": share, **times.facts()}
    header = ("a layer's", "memory", f"{clock} s a step", "/ kept (quartiles)")
    report.conclude(facts, [report.table(title, header, rows)], [], as_json)
