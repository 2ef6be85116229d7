"""Cost of a training step of a language model: on the text alone, from a cache, and with the teacher in the loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.jobs import built
from benchmarks.harness.language import (
    FORMS,
    LanguageShape,
    cache_folder,
    language_job,
    language_model,
    language_teacher,
    write_document,
)
from benchmarks.harness.measure import environment, ratio
from benchmarks.harness.sides import Side, endless, time_sides

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.cache import Cache
    from trainer.recipe import Losses

GOLD, DENSE, LIVE = "text, in chunks", "text, labels= of transformers", "teacher in the loop"
TOP = "top:32"
CHEAP = (TOP, "sampled:50")
# All logits are more memory than is kept once freed; the side behind them, which pays for it, has no target.
ORDER = (GOLD, *CHEAP, DENSE, "head", LIVE)


def dense_side(job: "Job", student: Any, given: dict[str, Any]) -> Side:
    """The student as anybody would train it, on rows in memory."""
    import numpy as np
    import torch

    from hskcache.inference import pad_batch

    def batches() -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(0)
        while True:
            index = rng.permutation(len(job.rows))[: given["batch_size"]]
            batch = pad_batch(job.rows, index, job.teacher.pad_token_id)
            moved = {name: tensor.to(given["device"]) for name, tensor in batch.items() if name != "token_type_ids"}
            # Those that the loss of transformers leaves out; here no row is padded.
            yield moved | {"labels": torch.where(moved["attention_mask"].bool(), moved["input_ids"], -100)}

    return Side(student, lambda batch: student(**batch, use_cache=False).loss, batches(), given)


def learning_side(job: "Job", student: Any, losses: "Losses", loader: Any, given: dict[str, Any]) -> Side:
    """The student as hsktrain trains it."""
    from trainer.source.live import live_knowledge
    from trainer.source.objective import Objective

    objective = Objective(student, losses, live_knowledge(job).matches).to(given["device"])
    return Side(objective, lambda batch: objective(batch)[0], endless(loader), given)


def make_sides(
    work: Path, jobs: dict[str, "Job"], caches: dict[str, "Cache"], given: dict[str, Any]
) -> dict[str, Side]:
    """Students of the same weights, each with its own source of batches."""
    from trainer.loading import KnowledgeLoader
    from trainer.recipe import GoldTerm, Losses, NextTerm
    from trainer.source.live import LiveLoader

    def student() -> Any:
        shape = LanguageShape(given["student_layers"], given["student_width"])
        return language_model(work, shape, given["length"]).to(given["device"])

    asked: dict[str, Any] = {"batch_size": given["batch_size"], "device": given["device"]}
    first, next_tokens = next(iter(jobs)), Losses(next=NextTerm())
    top = jobs[first]
    text = KnowledgeLoader(caches[first], fields=(), **asked)
    live = LiveLoader(top, fields=("vocabulary",), batch_size=given["batch_size"])
    sides = {GOLD: learning_side(top, student(), Losses(gold=GoldTerm()), text, given)}
    for form, cache in caches.items():
        loader = KnowledgeLoader(cache, fields=("vocabulary",), **asked)
        sides[form] = learning_side(jobs[form], student(), next_tokens, loader, given)
    sides[LIVE] = learning_side(top, student(), next_tokens, live, given)
    if set(caches) == set(FORMS):
        sides[DENSE] = dense_side(top, student(), given)
    return {name: sides[name] for name in ORDER if name in sides}


@click.command()
@options.language_teacher
@options.count("--layers", 6, "Of a teacher of random weights.")
@options.count("--width", 576, "Of the teacher, a multiple of 64.", at_least=64)
@options.count("--student-layers", 4)
@options.count("--student-width", 256, "A multiple of 64.", at_least=64)
@options.count("--rows", 16, "Rows of the caches, of --length tokens.")
@options.length("Tokens of a row.", 256)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Rows of a step.")
@click.option(
    "--form",
    "forms",
    type=click.Choice(list(FORMS)),
    multiple=True,
    help="Of what is cached; the first is that of the teacher in the loop.  [default: all, and all logits at once]",
)
@options.block
@options.clock
@options.repetitions(5)
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, forms: tuple[str, ...], **given: Any) -> None:
    """Time one optimiser step of the same student of a language model with six sources of supervision, alternating.

    Waiting for data and the optimiser belong to the step. Caches are made by the real build and used again.
    """
    from hskcache.runtime import quiet

    if given["rows"] < given["batch_size"]:
        raise click.BadParameter(f"--rows {given['rows']} make no batch of {given['batch_size']}")
    about = environment(given["device"])
    with quiet():
        teacher = language_teacher(work, given)
    folder = cache_folder(work, teacher, given)
    document = write_document(folder, teacher, given)
    jobs = {form: language_job(teacher, document, form, given) for form in forms or FORMS}
    caches = {form: built(job, folder / f"{form.partition(':')[0]}.hsk") for form, job in jobs.items()}
    sides = make_sides(work, jobs, caches, given)
    times, _ = time_sides(sides, given)
    targets = [report.Target(f"{form} / {GOLD}", times.ratio(form, GOLD), 1.05) for form in CHEAP if form in sides]
    first = next(iter(jobs))
    targets.append(report.Target(f"{LIVE} / cached, {first}", times.ratio(LIVE, first), 3.0, at_least=True))
    rows = [[name, f"{times.median(name):.2f}", ratio(times, name, GOLD), ratio(times, name, first)] for name in sides]
    header = ("side", f"{given['clock']} s a step", "/ in chunks (quartiles)", f"/ {first}")
    shape = LanguageShape(given["student_layers"], given["student_width"])
    title = (
        f"student of {shape}, {given['batch_size']} rows of {given['length']} tokens, teacher of {teacher.info.name}, "
        f"{about['device']}"
    )
    facts = {"settings": given, "environment": about, "teacher": teacher.info.name, **times.facts()}
    report.conclude(facts, [report.table(title, header, rows)], targets, as_json)
