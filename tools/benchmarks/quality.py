"""Quality of a student, by the knowledge it learns from: SST-2, every step one of the commands a user would type."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import click

from benchmarks.harness import commands, report
from benchmarks.harness.commands import run
from hskcache import console

TASK = ("--task", "sst2")


class Variant(NamedTuple):
    """One way to teach a student: its recipe, its cache, and which of the cache's fields it reads beside the rows."""

    recipe: str
    cache: str
    fields: tuple[str, ...]
    changes: tuple[str, ...] = ()


VARIANTS = {
    "labels": Variant("labels", "small", ()),
    "logits": Variant("logits", "small", ("logits",)),
    "full HSK": Variant("mud", "full", ("hidden", "logits")),
    "{keep} zero": Variant("mud", "small", ("hidden", "logits")),
    "{keep} ignore": Variant("mud", "small", ("hidden", "logits"), ("hidden.losses.hidden.missing=ignore",)),
}


class Setting(NamedTuple):
    """Folders of a run, and the options that the user gave."""

    work: Path
    train: Path
    dev: Path
    given: dict[str, Any]

    @property
    def place(self) -> tuple[str, ...]:
        """Options that say where to compute."""
        return ("--device", self.given["device"], *(("--bf16",) if self.given["bf16"] else ()))


def make_teacher(setting: Setting) -> dict[str, Any]:
    """Fine-tune the teacher, or find it finished."""
    given = setting.given
    result: dict[str, Any] = run(
        "hsktrain", "finetune", "--model", commands.base_model(given["base_model"]), "--data", setting.train,
        "--eval-data", setting.dev, *TASK, "--epochs", given["teacher_epochs"], "--lr", given["teacher_lr"],
        "--max-length", given["max_length"], "--out", setting.work / "teacher", *setting.place,
    )  # fmt: skip
    return result


def make_student(setting: Setting) -> tuple[str, str]:
    """A name for the student and what ``hsktrain fit`` takes for it; cut from the teacher where layers are given."""
    student: str = setting.given["student"]
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(student).name)
    if not student.replace(",", "").isdigit() and not student.startswith(("uniform:", "bottom:")):
        return name, student
    out = setting.work / "students" / name / "start"
    if not (out / "model.safetensors").is_file():
        run("hsktrain", "create", "--from", setting.work / "teacher", "--layers", student, "--out", out)
    return name, str(out)


def num_layers(student: str) -> int:
    """Layers of a student: of a named one, or as its configuration says."""
    from trainer.student.origin import STUDENTS

    if student in STUDENTS:
        return STUDENTS[student]["num_hidden_layers"]
    path = Path(student)
    config = json.loads((path / "config.json" if path.is_dir() else path).read_text(encoding="utf-8"))
    return int(config["num_hidden_layers"])


def make_caches(setting: Setting, layers: int) -> dict[str, dict[str, int]]:
    """Build both caches, or find them finished; bytes on disk of every field."""
    given = setting.given
    wanted = {"full": ("full", given["full_encoding"]), "small": (given["keep"], "int8")}
    sizes = {}
    for name, (keep, encoding) in wanted.items():
        built = run(
            "hskcache", "build", "--teacher", setting.work / "teacher", "--data", setting.train, *TASK,
            "--max-length", given["max_length"], "--student-layers", layers, "--keep", keep, "--encoding", encoding,
            "--device", given["device"], "--out", cache_path(setting, name, layers),
        )  # fmt: skip
        sizes[name] = built["num_bytes"]
    return sizes


def cache_path(setting: Setting, name: str, layers: int) -> Path:
    """Folder of a cache for students of so many layers."""
    kind = {"full": setting.given["full_encoding"], "small": setting.given["keep"]}[name]
    return setting.work / "caches" / f"{name}_{kind}_{layers}.hsk"


def train(setting: Setting, variant: Variant, student: str, out: Path, seed: int) -> dict[str, Any]:
    """One student: score, optimiser steps and minutes of training."""
    given = setting.given
    stages = {"hidden": (given["hidden_epochs"], given["hidden_lr"])}
    stages |= dict.fromkeys(("prediction", "labels"), (given["epochs"], given["lr"]))
    used = {"mud": ("hidden", "prediction"), "logits": ("prediction",), "labels": ("labels",)}[variant.recipe]
    changes = [f"{stage}.epochs={stages[stage][0]}" for stage in used]
    changes += [f"{stage}.learning_rate={stages[stage][1]}" for stage in used]
    # What the figures of the README were measured with, before the recipe mud had one.
    changes += [f"{stage}.weight_decay=0" for stage in used]
    options = [word for change in (*changes, *variant.changes) for word in ("--set", change)]
    cache = cache_path(setting, variant.cache, num_layers(student))
    result = run(
        "hsktrain", "fit", "--cache", cache, "--student", student, "--eval-data", setting.dev, *TASK,
        "--recipe", variant.recipe, *options, "--seed", seed, "--out", out, *setting.place,
    )  # fmt: skip
    done = [(stage["steps"], stage["seconds_per_step"] or 0.0) for stage in result["stages"]]
    return {
        "accuracy": result["scores"]["accuracy"],
        "steps": sum(steps for steps, _ in done),
        # Steps times the median step: a run that was cut off and went on, or waited for the machine, counts the same.
        "minutes": sum(steps * seconds for steps, seconds in done) / 60,
    }


def summary(runs: dict[str, dict[str, Any]], sizes: dict[str, dict[str, int]], keep: str) -> list[list[str]]:
    """A line of the table for every variant that has a run."""
    lines = []
    for pattern, variant in VARIANTS.items():
        name = pattern.format(keep=keep)
        found = list(runs.get(name, {}).values())
        if not found:
            continue
        scores = [100 * one["accuracy"] for one in found]
        spread = f"{stdev(scores):.2f}" if len(scores) > 1 else "-"
        size = console.human_bytes(sum(sizes[variant.cache][field] for field in variant.fields))
        minutes = f"{mean(one['minutes'] for one in found):.1f}"
        lines.append([name, f"{mean(scores):.2f}", spread, str(len(scores)), size, minutes])
    return lines


@click.command()
@commands.work_option("quality")
@commands.glue_option
@commands.base_model_option
@click.option("--rows", type=click.IntRange(min=2), default=20_000, show_default=True, help="Training rows.")
@click.option("--max-length", type=click.IntRange(min=3), default=64, show_default=True, help="Tokens of a row.")
@click.option("--teacher-epochs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--teacher-lr", default="5e-5", show_default=True)
@click.option(
    "--student", default="uniform:3", show_default=True, help="Layers of the teacher, tinybert4, a config or a folder."
)
@click.option("--keep", default="1l_10t_0.1h", show_default=True, help="What the small cache keeps, in int8.")
@click.option("--full-encoding", default="float16", show_default=True, help="How the full cache stores values.")
@click.option("--hidden-epochs", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--hidden-lr", default="5.0e-5", show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="Prediction or label epochs.")
@click.option("--lr", default="5.0e-5", show_default=True, help="Of the prediction or label epochs.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each variant.")
@click.option("--bf16", is_flag=True, help="Train in bfloat16 where that is safe.")
@report.device
@report.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Fine-tune a teacher on SST-2, cache its knowledge, and compare students that learn from more or less of it.

    Writes WORK/results.json after every run; the same command goes on where a cut-off one stopped.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    source = glue.resolve() / "SST-2"
    setting = Setting(
        work,
        commands.write_head(source / "train.tsv", work / "train.tsv", given["rows"] + 1),
        source / "dev.tsv",
        given,
    )
    teacher = make_teacher(setting)
    name, student = make_student(setting)
    sizes = make_caches(setting, num_layers(student))
    results = work / "results.json"
    runs = commands.earlier_runs(results, given)
    facts = {"settings": given, "teacher": teacher["best"]["metrics"], "cache_bytes": sizes, "runs": runs}
    # Seeds outermost: a run that is cut off has every variant for the seeds it got to.
    for seed in range(given["seeds"]):
        for pattern, variant in VARIANTS.items():
            label = pattern.format(keep=given["keep"])
            done = runs.setdefault(label, {})
            if str(seed) not in done:
                out = work / "students" / name / f"{label.replace(' ', '_')}_{seed}"
                done[str(seed)] = train(setting, variant, student, out, seed)
                commands.write(results, facts)
    header = ("learns from", "dev accuracy", "std", "runs", "knowledge on disk", "minutes")
    title = (
        f"SST-2, {given['rows']:,} rows, student {given['student']}; teacher {100 * facts['teacher']['accuracy']:.2f}"
    )
    report.conclude(facts, [report.table(title, header, summary(runs, sizes, given["keep"]))], [], as_json)
