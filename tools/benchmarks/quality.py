"""Quality of a student, by the knowledge it learns from: SST-2, every step one of the commands a user would type."""

import json
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import Study, complete, earlier_runs, outcome, run, sets
from benchmarks.harness.folders import write_head, write_json
from hskcache import units


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


def make_student(study: Study) -> tuple[str, str]:
    """A name for the student and what ``hsktrain fit`` takes for it; cut from the teacher where layers are given."""
    student: str = study.given["student"]
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(student).name)
    if not student.replace(",", "").isdigit() and not student.startswith(("uniform:", "bottom:")):
        return name, student
    out = study.work / "students" / name / "start"
    if not (out / "model.safetensors").is_file():
        run("hsktrain", "create", "--from", study.work / "teacher", "--layers", student, "--out", out)
    return name, str(out)


def num_layers(student: str) -> int:
    """Layers of a student: of a named one, or as its configuration says."""
    from trainer.student.origin import STUDENTS

    if student in STUDENTS:
        return STUDENTS[student]["num_hidden_layers"]
    path = Path(student)
    config = json.loads((path / "config.json" if path.is_dir() else path).read_text(encoding="utf-8"))
    return int(config["num_hidden_layers"])


def make_caches(study: Study, rows: Path, layers: int) -> dict[str, dict[str, int]]:
    """Build both caches, or find them finished; bytes on disk of every field."""
    given = study.given
    wanted = {"full": ("full", given["full_encoding"]), "small": (given["keep"], "int8")}
    sizes = {}
    for name, (keep, encoding) in wanted.items():
        built = run(
            "hskcache", "build", "--teacher", study.work / "teacher", *study.data(rows),
            "--max-length", given["max_length"], "--student-layers", layers, "--keep", keep, "--encoding", encoding,
            "--device", given["device"], "--out", cache_path(study, name, layers),
        )  # fmt: skip
        sizes[name] = built["num_bytes"]
    return sizes


def cache_path(study: Study, name: str, layers: int) -> Path:
    """Folder of a cache for students of so many layers."""
    kind = {"full": study.given["full_encoding"], "small": study.given["keep"]}[name]
    return study.work / "caches" / f"{name}_{kind}_{layers}.hsk"


def train(study: Study, variant: Variant, student: str, out: Path, seed: int) -> dict[str, Any]:
    """One student: score, optimiser steps and minutes of training."""
    given = study.given
    stages = {"hidden": (given["hidden_epochs"], given["hidden_lr"])}
    stages |= dict.fromkeys(("prediction", "labels"), (given["epochs"], given["lr"]))
    used = {"mud": ("hidden", "prediction"), "logits": ("prediction",), "labels": ("labels",)}[variant.recipe]
    changes = [f"{stage}.epochs={stages[stage][0]}" for stage in used]
    changes += [f"{stage}.learning_rate={stages[stage][1]}" for stage in used]
    # What the figures of the README were measured with, before the recipe mud had one.
    changes += [f"{stage}.weight_decay=0" for stage in used]
    cache = cache_path(study, variant.cache, num_layers(student))
    result = run(
        "hsktrain", "fit", "--cache", cache, "--student", student, *study.judged,
        "--recipe", variant.recipe, *sets((*changes, *variant.changes)), "--seed", seed, "--out", out, *study.place,
    )  # fmt: skip
    return outcome(result)


def summary(runs: dict[str, dict[str, Any]], sizes: dict[str, dict[str, int]], keep: str) -> list[list[str]]:
    """A line of the table for every variant that has a run."""
    lines = []
    for pattern, variant in VARIANTS.items():
        name = pattern.format(keep=keep)
        found = list(runs.get(name, {}).values())
        if not found:
            continue
        scores = [100 * one["accuracy"] for one in found]
        size = units.human_bytes(sum(sizes[variant.cache][field] for field in variant.fields))
        minutes = f"{mean(one['minutes'] for one in found):.1f}"
        lines.append([name, f"{mean(scores):.2f}", report.deviation(scores), str(len(scores)), size, minutes])
    return lines


@click.command()
@options.work_of("quality")
@options.glue
@options.base_model
@options.count("--rows", 20_000, "Training rows.", at_least=2)
@options.count("--max-length", 64, "Tokens of a row.", at_least=3)
@options.count("--teacher-epochs", 2)
@click.option("--teacher-lr", default="5e-5", show_default=True)
@click.option(
    "--student", default="uniform:3", show_default=True, help="Layers of the teacher, tinybert4, a config or a folder."
)
@click.option("--keep", default="1l_10t_0.1h", show_default=True, help="What the small cache keeps, in int8.")
@click.option("--full-encoding", default="float16", show_default=True, help="How the full cache stores values.")
@options.count("--hidden-epochs", 3)
@click.option("--hidden-lr", default="5.0e-5", show_default=True)
@options.count("--epochs", 3, "Prediction or label epochs.")
@click.option("--lr", default="5.0e-5", show_default=True, help="Of the prediction or label epochs.")
@options.count("--seeds", 3, "Runs of each variant.")
@click.option("--bf16", is_flag=True, help="Train in bfloat16 where that is safe.")
@options.device
@options.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Fine-tune a teacher on SST-2, cache its knowledge, and compare students that learn from more or less of it.

    Writes WORK/results.json after every run; the same command goes on where a cut-off one stopped.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    study = Study(work, glue.resolve() / "SST-2", "sst2", given)
    rows = write_head(study.glue / "train.tsv", work / "train.tsv", given["rows"] + 1)
    teacher = study.finetune(rows, given["teacher_epochs"], given["max_length"], given["teacher_lr"])
    name, student = make_student(study)
    sizes = make_caches(study, rows, num_layers(student))
    results = work / "results.json"
    runs = earlier_runs(results, given)
    facts = {"settings": given, "teacher": teacher["best"]["metrics"], "cache_bytes": sizes, "runs": runs}
    variants = {pattern.format(keep=given["keep"]): variant for pattern, variant in VARIANTS.items()}

    def one(label: str, seed: int) -> dict[str, Any]:
        out = work / "students" / name / f"{label.replace(' ', '_')}_{seed}"
        return train(study, variants[label], student, out, seed)

    for _ in complete(runs, variants, given["seeds"], one):
        write_json(results, facts)
    header = ("learns from", "dev accuracy", "std", "runs", "knowledge on disk", "minutes")
    title = (
        f"SST-2, {given['rows']:,} rows, student {given['student']}; teacher {100 * facts['teacher']['accuracy']:.2f}"
    )
    report.conclude(facts, [report.table(title, header, summary(runs, sizes, given["keep"]))], [], as_json)
