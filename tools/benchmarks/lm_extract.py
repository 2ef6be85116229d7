"""Cost of building a cache of next tokens beyond the language model's own forward passes."""

import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.extract import forward_alone, whole_build
from benchmarks.harness import options, report
from benchmarks.harness.language import FORMS, OF_SOME, cache_folder, language_job, language_teacher, write_document
from benchmarks.harness.measure import environment, ratio, take_turns

BARE = "bare forward"
TARGETS = ("top:32", "sampled:50")


@click.command()
@options.language_teacher
@options.count("--layers", 6, "Of a teacher of random weights.")
@options.count("--width", 576, "Of the teacher, a multiple of 64.", at_least=64)
@options.count("--rows", 32, "Rows of --length tokens.")
@options.length("Tokens of a row.", 256)
@options.count("--token-budget", 4096)
@click.option(
    "--form", "forms", type=click.Choice([*FORMS, *OF_SOME]), multiple=True, default=TARGETS, show_default=True
)
@options.repetitions(5)
@options.count("--warmup", 1, "Untimed runs of each side.", at_least=0)
@options.clock
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, forms: tuple[str, ...], **given: Any) -> None:
    """Time whole builds of next tokens against the teacher's bare passes with its head, alternating in one run.

    All run the same batches. A build begins with a prepared job and ends with a finished cache; loading the teacher and
    tokenizing are outside.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    with quiet():
        teacher = language_teacher(work, given)
    document = write_document(cache_folder(work, teacher, given), teacher, given)
    jobs = {form: language_job(teacher, document, form, given) for form in forms}
    job = jobs[forms[0]]
    with tempfile.TemporaryDirectory(prefix="lm-extract-", dir=work) as folder:
        sides = {BARE: forward_alone(job)}
        sides |= {form: whole_build(one, Path(folder) / form.replace(":", "-")) for form, one in jobs.items()}
        times = take_turns("builds", sides, given["repetitions"], given["warmup"], given["clock"])
    num_tokens = len(job.rows.input_ids)
    rows = [[BARE, f"{times.median(BARE):.2f}", "1", f"{num_tokens / times.median(BARE):,.0f}"]]
    rows += [
        [form, f"{times.median(form):.2f}", ratio(times, form, BARE), f"{num_tokens / times.median(form):,.0f}"]
        for form in jobs
    ]
    targets = [
        report.Target(f"build of {form} / bare forward", times.ratio(form, BARE), 1.10)
        for form in jobs
        if form in TARGETS
    ]
    header = ("side", f"{given['clock']} s", "/ bare (quartiles)", "tokens/s")
    title = f"{teacher.info.name}, {num_tokens:,} tokens, float32, {about['device']}"
    facts = {"settings": given, "environment": about, "teacher": teacher.info.name, "num_tokens": num_tokens}
    report.conclude(facts | times.facts(), [report.table(title, header, rows)], targets, as_json)
