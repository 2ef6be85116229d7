"""Worth of keeping a student's projection between TinyBERT's two stages, as the authors' release does.

General distillation on a corpus, then task distillation on SST-2 with the projection kept and drawn afresh, from the
same general student and over the same batches; each step is one of the commands a user would type.
"""

from pathlib import Path
from statistics import mean
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import Study, complete, earlier_runs, plain, run, sets
from benchmarks.harness.folders import write_head, write_json

WAYS = ("keep", "fresh")
# Losses are logged every 25 steps.
STEPS = (0, 25, 100)
BATCH_SIZE = 32
# One step over many rows that moves nothing: its loss is that of what the run begins with.
STILL = ("intermediate.batch_size=512", "intermediate.epochs=1", "intermediate.learning_rate=1.0e-12")


def make_caches(study: Study) -> dict[str, Any]:
    """The knowledge of a pre-trained encoder about the corpus, and of one that is fine-tuned about the task."""
    given, work = study.given, study.work
    keep = ("--max-length", 64, "--keep", "full", "--attention", "16t", "--student-layers", given["layers"])
    text = write_head(given["corpus"] / "wiki.train.tokens", work / "corpus.txt", given["corpus_lines"])
    corpus = run(
        "hskcache", "build", "--teacher", study.base_model, "--corpus", text, *keep, "--out",
        work / "corpus.hsk", *study.place,
    )  # fmt: skip
    rows = write_head(study.glue / "train.tsv", work / "teacher.tsv", given["teacher_rows"] + 1)
    teacher = study.finetune(rows, 1, 64)
    rows = write_head(study.glue / "train.tsv", work / "train.tsv", given["rows"] + 1)
    task = run(
        "hskcache", "build", "--teacher", work / "teacher", *study.data(rows), *keep, "--out", work / "task.hsk",
        *study.place,
    )  # fmt: skip
    sizes = {
        name: {key: built[key] for key in ("num_rows", "num_bytes")}
        for name, built in {"corpus": corpus, "task": task}.items()
    }
    return {"teacher": teacher["best"]["metrics"], **sizes}


def general(study: Study, seed: int) -> Path:
    """General distillation: the student that both ways begin from."""
    given, out = study.given, study.work / "students" / f"general_{seed}"
    changes = {"epochs": given["general_epochs"], "learning_rate": given["general_lr"], "batch_size": BATCH_SIZE}
    run(
        "hsktrain", "fit", "--cache", study.work / "corpus.hsk", "--student", study.student_config(), "--recipe",
        "tinybert-general", *sets(f"general.{key}={value}" for key, value in changes.items()), "--seed", seed,
        "--out", out, *study.place,
    )  # fmt: skip
    return out


def task_run(study: Study, start: Path, way: str, seed: int) -> dict[str, Any]:
    """Task distillation: the loss of embedding and hidden states on its way, and the dev accuracy at the end."""
    given, students = study.given, study.work / "students"
    common = (
        "fit", "--cache", study.work / "task.hsk", "--student", start, "--recipe", "tinybert-task",
        *study.judged, "--projection", way, "--seed", seed, *study.place,
    )  # fmt: skip
    still = students / f"still_{way}_{seed}"
    run("hsktrain", *common, *sets((*STILL, "prediction.epochs=0.01")), "--rows", 512, "--out", still)
    changes = {
        "intermediate.epochs": given["epochs"],
        "intermediate.learning_rate": given["lr"],
        "prediction.epochs": given["prediction_epochs"],
        "prediction.learning_rate": given["prediction_lr"],
    }
    out = students / f"{way}_{seed}"
    result = run("hsktrain", *common, *sets(f"{key}={value}" for key, value in changes.items()), "--out", out)
    losses = states_loss(out / "logs" / "intermediate")
    (begun,) = states_loss(still / "logs" / "intermediate").values()
    return {
        "losses": {"0": begun} | {str(step): loss for step, loss in losses.items() if step in STEPS},
        "accuracy": result["scores"]["accuracy"],
    }


def states_loss(logs: Path) -> dict[int, float]:
    """Loss of embedding and hidden states together by step, each a mean over the steps since the one before."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs))
    events.Reload()
    terms = [events.Scalars(f"train/loss_{term}") for term in ("embedding", "hidden")]
    return {one.step: one.value + other.value for one, other in zip(*terms, strict=True)}


def summary(runs: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A line of the table for every way, one for the distance between them; means over the seeds that have both."""
    seeds = [seed for seed in runs["keep"] if seed in runs["fresh"]]
    if not seeds:
        return []
    found = {
        way: [mean(runs[way][seed]["losses"][str(step)] for seed in seeds) for step in STEPS]
        + [100 * mean(runs[way][seed]["accuracy"] for seed in seeds)]
        for way in WAYS
    }
    lines = [[way, *(f"{value:.4f}" for value in found[way][:-1]), f"{found[way][-1]:.2f}"] for way in WAYS]
    *losses, accuracy = zip(found["fresh"], found["keep"], strict=True)
    ratios = [f"{fresh / kept:.2f}" for fresh, kept in losses]
    return [*lines, ["fresh to keep", *(f"x {ratio}" for ratio in ratios), f"{accuracy[0] - accuracy[1]:+.2f}"]]


@click.command()
@options.work_of("projection")
@options.glue
@options.base_model
@options.corpus
@options.count("--rows", 3200, "Of the student.", at_least=512)
@options.count("--teacher-rows", 4000, at_least=2)
@options.count("--corpus-lines", 1200)
@options.count("--layers", 3, "Of the student.")
@options.count("--width", 192, "Of the student.", at_least=12)
@options.amount("--general-epochs", 2.0)
@click.option("--general-lr", default="5.0e-4", show_default=True)
@options.amount("--epochs", 1.0)
@click.option("--lr", default="5.0e-5", show_default=True, help="Of the intermediate phase; the release's.")
@options.amount("--prediction-epochs", 2.0)
@click.option("--prediction-lr", default="5.0e-4", show_default=True)
@options.count("--seeds", 2, "Runs of each way.")
@options.device
@options.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Distil a task with the projection that general distillation ended with, and with one drawn afresh.

    Writes WORK/results.json after every run; the same command goes on where a cut-off one stopped.
    """
    if given["rows"] * given["epochs"] < STEPS[-1] * BATCH_SIZE:
        raise click.UsageError(f"{STEPS[-1]} steps of {BATCH_SIZE} rows are looked at; give more --rows or --epochs")
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    given["corpus"] = Path(given["corpus"]).resolve()
    study = Study(work, glue.resolve() / "SST-2", "sst2", given)
    caches = make_caches(study)
    settings = plain(given)
    runs = earlier_runs(work / "results.json", settings)
    facts = {"settings": settings, "caches": caches, "runs": runs}
    for _ in complete(runs, WAYS, given["seeds"], lambda way, seed: task_run(study, general(study, seed), way, seed)):
        write_json(work / "results.json", facts)
    title = (
        f"SST-2, {given['rows']:,} rows, student {given['layers']} x {given['width']}, {given['seeds']} seeds; teacher "
        f"{100 * caches['teacher']['accuracy']:.2f}; loss of embedding and hidden states at the start and over steps "
        "1-25 and 76-100"
    )
    header = ("projection", "at step 0", "to step 25", "to step 100", "dev accuracy")
    report.conclude(facts, [report.table(title, header, summary(runs))], [], as_json)
