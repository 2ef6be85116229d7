"""Students of sparse teachers: StarK's levels on real tasks, against the dense teacher and plain pruning.

Every step is one of the commands a user would type; `hsktrain stark` does all levels of one seed.
"""

from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import Study, earlier_runs, run, sets
from benchmarks.harness.folders import replace, write_head, write_json


class Task(NamedTuple):
    """A task of GLUE: its folder, how its teacher is fine-tuned, and the tokens of a row."""

    folder: str
    epochs: int
    learning_rate: str
    max_length: int


# Of the recipe, where the figures of the README are of before it had the settings of the authors' script.
MEASURED_WITH = ("batch_size=32", "warmup=0", "weight_decay=0", "max_grad_norm=1", "patience=null")
TASKS = {
    "sst2": Task("SST-2", 2, "5e-5", 64),
    "rte": Task("RTE", 5, "5e-5", 128),
}
DENSE = "dense"


def study_of(name: str, work: Path, glue: Path, given: dict[str, Any]) -> Study:
    """A task's own folder."""
    (work / name).mkdir(exist_ok=True)
    return Study(work / name, glue / TASKS[name].folder, name, given)


def make_teacher(study: Study) -> float:
    """Fine-tune the teacher of a task, or find it finished; its dev accuracy."""
    task = TASKS[study.task]
    rows = write_head(study.glue / "train.tsv", study.work / "teacher.tsv", study.given["teacher_rows"] + 1)
    result = study.finetune(rows, task.epochs, task.max_length, task.learning_rate)
    return float(result["best"]["metrics"]["accuracy"])


def make_student(study: Study) -> Path:
    """A student of some layers of the teacher, equally far apart."""
    layers = study.given["layers"]
    student = study.work / f"student-{layers}"
    if not (student / "config.json").is_file():
        run("hsktrain", "create", "--from", study.work / "teacher", "--layers", f"uniform:{layers}", "--out", student)
    return student


def levels(study: Study, seed: int) -> dict[str, Any]:
    """All levels of one seed: dev accuracy by what ranked and by percent, and the best of the method."""
    given, work = study.given, study.work
    changes = [f"epochs={given['epochs']}", f"learning_rate={given['lr']}", *MEASURED_WITH]
    rows = write_head(study.glue / "train.tsv", work / "train.tsv", given["rows"] + 1)
    compare = ["--compare", given["compare"]] if given["compare"] else []
    result = run(
        "hsktrain", "stark", "--teacher", work / "teacher", "--student", make_student(study), "--data", rows,
        *study.judged, "--sparsity", given["sparsity"], *compare, "--balance", given["balance"], "--max-length",
        TASKS[study.task].max_length, "--seed", seed, *sets(f"distillation.{change}" for change in changes),
        "--out", work / f"seed-{seed}", *study.place,
    )  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for row in result["rows"]:
        method = DENSE if row["percent"] == 0 else row["method"]
        found.setdefault(method, {})[str(row["percent"])] = row["metrics"]["accuracy"]
    return {"accuracy": found, "best": result["best"]["percent"]}


def summary(seeds: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: by sparsity, each method's mean dev accuracy and its mean distance to the dense teacher's."""
    runs = [one["accuracy"] for one in seeds.values()]
    dense = [100 * one[DENSE]["0"] for one in runs]
    methods = [method for method in runs[0] if method != DENSE]
    header = ["sparsity", *(word for method in methods for word in (method, "to dense", "std"))]
    lines = [["0 (dense)", f"{mean(dense):.2f}", "", report.deviation(dense), *[""] * 3 * (len(methods) - 1)]]
    for percent in runs[0][methods[0]]:
        line = [percent]
        for method in methods:
            scores = [100 * one[method][percent] for one in runs]
            apart = [score - base for score, base in zip(scores, dense, strict=True)]
            line += [f"{mean(scores):.2f}", f"{mean(apart):+.2f}", report.deviation(apart)]
        lines.append(line)
    # The dense teacher is a level, too: to take the best of some figures is worth something even where they are chance.
    best = {method: [100 * max([*one[method].values(), one[DENSE]["0"]]) for one in runs] for method in methods}
    line = ["best of all"]
    for method in methods:
        apart = [score - base for score, base in zip(best[method], dense, strict=True)]
        line += [f"{mean(best[method]):.2f}", f"{mean(apart):+.2f}", report.deviation(apart)]
    return header, [*lines, line]


def plot(tasks: dict[str, Any], path: Path) -> None:
    """A panel a task: mean dev accuracy over sparsity, a line for each way to rank, small dots for the seeds."""
    plt = report.pyplot()
    figure, panels = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), layout="constrained", squeeze=False)
    for axes, (name, facts) in zip(panels[0], tasks.items(), strict=True):
        runs = [one["accuracy"] for one in facts["seeds"].values()]
        dense = [100 * one[DENSE]["0"] for one in runs]
        axes.axhline(mean(dense), color="grey", linewidth=1, label=f"dense teacher {mean(dense):.1f}")
        for number, method in enumerate(method for method in runs[0] if method != DENSE):
            percents = sorted(map(int, runs[0][method]))
            scores = [[100 * one[method][str(percent)] for one in runs] for percent in percents]
            color = f"C{number}"
            axes.plot([0, *percents], [mean(dense), *map(mean, scores)], "o-", color=color, label=method)
            for percent, found in zip(percents, scores, strict=True):
                axes.plot([percent] * len(found), found, ".", color=color, markersize=4, alpha=0.6)
        axes.set_title(f"{name}: teacher {100 * facts['teacher']:.1f}, {len(runs)} seeds", fontsize=10)
        axes.set_xlabel("heads and neurons removed from the teacher, %")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("student, dev accuracy, %")
    figure.savefig(path, dpi=150)
    plt.close(figure)


@click.command()
@options.work_of("stark")
@options.glue
@options.base_model
@click.option("--tasks", default="sst2,rte", show_default=True, help="Of sst2 and rte.")
@options.count("--rows", 4000, "Of the student, at most.", at_least=2)
@options.count("--teacher-rows", 20_000, "At most.", at_least=2)
@options.count("--layers", 2, "Of the student.")
@click.option("--sparsity", default="0,10,30,50,70,90", show_default=True, help="As hsktrain stark takes it.")
@click.option("--compare", default="plain", show_default=True, help="As hsktrain stark takes it.")
@click.option("--balance", type=float, default=0.5, show_default=True)
@options.amount("--epochs", 3.0)
@click.option("--lr", default="5.0e-5", show_default=True, help="Of the student.")
@options.count("--seeds", 3, "Runs of everything.")
@options.device
@options.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Train a student from teachers of rising sparsity and compare it with the one of the dense teacher.

    Writes WORK/results.json, WORK/table.txt and WORK/stark.png after every seed; the same command goes on where a
    cut-off one stopped.
    """
    names = given["tasks"].split(",")
    if unknown := [name for name in names if name not in TASKS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(TASKS)}", param_hint="--tasks")
    work, glue = work.resolve(), glue.resolve()
    work.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in given.items() if name not in {"tasks", "device"}}
    tasks = earlier_runs(work / "results.json", settings, "tasks")
    facts = {"settings": settings, "tasks": tasks}
    for seed in range(given["seeds"]):
        for name in names:
            study = study_of(name, work, glue, given)
            if name not in tasks:
                tasks[name] = {"teacher": make_teacher(study), "seeds": {}}
            if str(seed) not in tasks[name]["seeds"]:
                tasks[name]["seeds"][str(seed)] = levels(study, seed)
            write_json(work / "results.json", facts)
            replace(work / "table.txt", "\n\n".join(tables(tasks, given)) + "\n")
            plot(tasks, work / "stark.png")
    report.conclude(facts, tables(tasks, given), [], as_json)


def tables(tasks: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """A table a task."""
    found = []
    for name, facts in tasks.items():
        best = ", ".join(f"{one['best']} %" for one in facts["seeds"].values())
        title = (
            f"{name}: teacher {100 * facts['teacher']:.2f}, student of {given['layers']} of its layers, "
            f"{len(facts['seeds'])} seeds; best levels {best}"
        )
        found.append(report.table(title, *summary(facts["seeds"])))
    return found
