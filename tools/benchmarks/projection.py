"""Worth of keeping a student's projection between TinyBERT's two stages, as the authors' release does.

General distillation on a corpus, then task distillation on SST-2 with the projection kept and drawn afresh, from the
same general student and over the same batches; each step is one of the commands a user would type.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import click

from benchmarks.harness import commands, report
from benchmarks.harness.commands import run

TASK = ("--task", "sst2")
WAYS = ("keep", "fresh")
# Losses are logged every 25 steps.
STEPS = (0, 25, 100)
BATCH_SIZE = 32
# One step over many rows that moves nothing: its loss is that of what the run begins with.
STILL = {"intermediate.batch_size": 512, "intermediate.epochs": 1, "intermediate.learning_rate": "1.0e-12"}


class Setting(NamedTuple):
    """Folders of a run, and the options that the user gave."""

    work: Path
    glue: Path
    given: dict[str, Any]

    @property
    def place(self) -> tuple[str, ...]:
        """Options that say where to compute."""
        return ("--device", self.given["device"])

    @property
    def base_model(self) -> str:
        """The pre-trained encoder, teacher of the corpus and start of the task's teacher."""
        return commands.base_model(self.given["base_model"])


def make_caches(setting: Setting) -> dict[str, Any]:
    """The knowledge of a pre-trained encoder about the corpus, and of one that is fine-tuned about the task."""
    given, work = setting.given, setting.work
    keep = ("--max-length", 64, "--keep", "full", "--attention", "16t", "--student-layers", given["layers"])
    text = commands.write_head(given["corpus"] / "wiki.train.tokens", work / "corpus.txt", given["corpus_lines"])
    corpus = run(
        "hskcache", "build", "--teacher", setting.base_model, "--corpus", text, *keep, "--out",
        work / "corpus.hsk", *setting.place,
    )  # fmt: skip
    rows = commands.write_head(setting.glue / "train.tsv", work / "teacher.tsv", given["teacher_rows"] + 1)
    teacher = run(
        "hsktrain", "finetune", "--model", setting.base_model, "--data", rows, *TASK, "--eval-data",
        setting.glue / "dev.tsv", "--epochs", 1, "--lr", "5e-5", "--max-length", 64, "--out", work / "teacher",
        *setting.place,
    )  # fmt: skip
    rows = commands.write_head(setting.glue / "train.tsv", work / "train.tsv", given["rows"] + 1)
    task = run(
        "hskcache", "build", "--teacher", work / "teacher", "--data", rows, *TASK, *keep, "--out", work / "task.hsk",
        *setting.place,
    )  # fmt: skip
    sizes = {
        name: {key: built[key] for key in ("num_rows", "num_bytes")}
        for name, built in {"corpus": corpus, "task": task}.items()
    }
    return {"teacher": teacher["best"]["metrics"], **sizes}


def student_config(setting: Setting) -> Path:
    """The student's shape, as many heads as the teacher."""
    teacher = json.loads((setting.work / "teacher" / "config.json").read_text(encoding="utf-8"))
    heads, pieces = teacher["num_attention_heads"], teacher["vocab_size"]
    return commands.student_config(setting.work / "student.json", setting.given, heads, pieces)


def settings_of(changes: dict[str, Any]) -> list[str]:
    """Changes of a recipe as options."""
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def general(setting: Setting, seed: int) -> Path:
    """General distillation: the student that both ways begin from."""
    given, out = setting.given, setting.work / "students" / f"general_{seed}"
    changes = {"epochs": given["general_epochs"], "learning_rate": given["general_lr"], "batch_size": BATCH_SIZE}
    run(
        "hsktrain", "fit", "--cache", setting.work / "corpus.hsk", "--student", student_config(setting), "--recipe",
        "tinybert-general", *settings_of({f"general.{key}": value for key, value in changes.items()}), "--seed", seed,
        "--out", out, *setting.place,
    )  # fmt: skip
    return out


def task_run(setting: Setting, start: Path, way: str, seed: int) -> dict[str, Any]:
    """Task distillation: the loss of embedding and hidden states on its way, and the dev accuracy at the end."""
    given, students = setting.given, setting.work / "students"
    common = (
        "fit", "--cache", setting.work / "task.hsk", "--student", start, "--recipe", "tinybert-task",
        "--eval-data", setting.glue / "dev.tsv", *TASK, "--projection", way, "--seed", seed, *setting.place,
    )  # fmt: skip
    still = students / f"still_{way}_{seed}"
    run("hsktrain", *common, *settings_of(STILL | {"prediction.epochs": 0.01}), "--rows", 512, "--out", still)
    changes = {
        "intermediate.epochs": given["epochs"],
        "intermediate.learning_rate": given["lr"],
        "prediction.epochs": given["prediction_epochs"],
        "prediction.learning_rate": given["prediction_lr"],
    }
    out = students / f"{way}_{seed}"
    result = run("hsktrain", *common, *settings_of(changes), "--out", out)
    losses = states_loss(out / "logs" / "intermediate")
    (begun,) = states_loss(still / "logs" / "intermediate").values()
    return {
        "losses": {"0": begun} | {str(step): loss for step, loss in losses.items() if step in STEPS},
        "accuracy": result["scores"]["accuracy"],
    }


def states_loss(logs: Path) -> dict[int, float]:
    """By step, the loss of embedding and hidden states together, each a mean over the steps since the one before."""
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
@commands.work_option("projection")
@commands.glue_option
@commands.base_model_option
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: commands.shared("HSKCACHE_CORPUS", "corpus"),
    help="Folder with wiki.train.tokens.  [default: $HSKCACHE_CORPUS, else ../shared/corpus]",
)
@click.option("--rows", type=click.IntRange(min=512), default=3200, show_default=True, help="Of the student.")
@click.option("--teacher-rows", type=click.IntRange(min=2), default=4000, show_default=True)
@click.option("--corpus-lines", type=click.IntRange(min=1), default=1200, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=3, show_default=True, help="Of the student.")
@click.option("--width", type=click.IntRange(min=12), default=192, show_default=True, help="Of the student.")
@click.option("--general-epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--general-lr", default="5.0e-4", show_default=True)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--lr", default="5.0e-5", show_default=True, help="Of the intermediate phase; the release's.")
@click.option("--prediction-epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--prediction-lr", default="5.0e-4", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of each way.")
@report.device
@report.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Distil a task with the projection that general distillation ended with, and with one drawn afresh.

    Writes WORK/results.json after every run; the same command goes on where a cut-off one stopped.
    """
    if given["rows"] * given["epochs"] < STEPS[-1] * BATCH_SIZE:
        raise click.UsageError(f"{STEPS[-1]} steps of {BATCH_SIZE} rows are looked at; give more --rows or --epochs")
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    given["corpus"] = Path(given["corpus"]).resolve()
    setting = Setting(work, glue.resolve() / "SST-2", given)
    caches = make_caches(setting)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    runs = commands.earlier_runs(work / "results.json", settings)
    facts = {"settings": settings, "caches": caches, "runs": runs}
    # Seeds outermost: a run that is cut off has both ways for the seeds it got to.
    for seed in range(given["seeds"]):
        for way in WAYS:
            done = runs.setdefault(way, {})
            if str(seed) not in done:
                done[str(seed)] = task_run(setting, general(setting, seed), way, seed)
                commands.write(work / "results.json", facts)
    title = (
        f"SST-2, {given['rows']:,} rows, student {given['layers']} x {given['width']}, {given['seeds']} seeds; teacher "
        f"{100 * caches['teacher']['accuracy']:.2f}; loss of embedding and hidden states at the start and over steps "
        "1-25 and 76-100"
    )
    header = ("projection", "at step 0", "to step 25", "to step 100", "dev accuracy")
    report.conclude(facts, [report.table(title, header, summary(runs))], [], as_json)
