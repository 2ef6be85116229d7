"""Students of sparse teachers: StarK's levels on real tasks, against the dense teacher and plain pruning.

Every step is one of the commands a user would type; `hsktrain stark` does all levels of one seed.
"""

from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import click

from benchmarks.harness import commands, report
from benchmarks.harness.commands import run


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


def make_teacher(name: str, work: Path, glue: Path, given: dict[str, Any]) -> float:
    """Fine-tune the teacher of a task, or find it finished; its dev accuracy."""
    task = TASKS[name]
    rows = commands.write_head(glue / task.folder / "train.tsv", work / "teacher.tsv", given["teacher_rows"] + 1)
    result = run(
        "hsktrain", "finetune", "--model", commands.base_model(given["base_model"]), "--data", rows, "--task", name,
        "--eval-data", glue / task.folder / "dev.tsv", "--epochs", task.epochs, "--lr", task.learning_rate,
        "--max-length", task.max_length, "--out", work / "teacher", "--device", given["device"],
    )  # fmt: skip
    return float(result["best"]["metrics"]["accuracy"])


def make_student(work: Path, given: dict[str, Any]) -> Path:
    """A student of some layers of the teacher, equally far apart."""
    student = work / f"student-{given['layers']}"
    if not (student / "config.json").is_file():
        run(
            "hsktrain", "create", "--from", work / "teacher", "--layers", f"uniform:{given['layers']}", "--out", student
        )
    return student


def levels(name: str, seed: int, work: Path, glue: Path, given: dict[str, Any]) -> dict[str, Any]:
    """All levels of one seed: dev accuracy by what ranked and by percent, and the best of the method."""
    task = TASKS[name]
    changes = [f"epochs={given['epochs']}", f"learning_rate={given['lr']}", *MEASURED_WITH]
    rows = commands.write_head(glue / task.folder / "train.tsv", work / "train.tsv", given["rows"] + 1)
    compare = ["--compare", given["compare"]] if given["compare"] else []
    result = run(
        "hsktrain", "stark", "--teacher", work / "teacher", "--student", make_student(work, given), "--data", rows,
        "--eval-data", glue / task.folder / "dev.tsv", "--task", name, "--sparsity", given["sparsity"], *compare,
        "--balance", given["balance"], "--max-length", task.max_length, "--seed", seed,
        *(word for change in changes for word in ("--set", f"distillation.{change}")),
        "--out", work / f"seed-{seed}", "--device", given["device"],
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
    lines = [["0 (dense)", f"{mean(dense):.2f}", "", _spread(dense), *[""] * 3 * (len(methods) - 1)]]
    for percent in runs[0][methods[0]]:
        line = [percent]
        for method in methods:
            scores = [100 * one[method][percent] for one in runs]
            apart = [score - base for score, base in zip(scores, dense, strict=True)]
            line += [f"{mean(scores):.2f}", f"{mean(apart):+.2f}", _spread(apart)]
        lines.append(line)
    # The dense teacher is a level, too: to take the best of some figures is worth something even where they are chance.
    best = {method: [100 * max([*one[method].values(), one[DENSE]["0"]]) for one in runs] for method in methods}
    line = ["best of all"]
    for method in methods:
        apart = [score - base for score, base in zip(best[method], dense, strict=True)]
        line += [f"{mean(best[method]):.2f}", f"{mean(apart):+.2f}", _spread(apart)]
    return header, [*lines, line]


def _spread(values: list[float]) -> str:
    return f"{stdev(values):.2f}" if len(values) > 1 else "-"


def plot(tasks: dict[str, Any], path: Path) -> None:
    """A panel a task: mean dev accuracy over sparsity, a line for each way to rank, small dots for the seeds."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

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
@commands.work_option("stark")
@commands.glue_option
@commands.base_model_option
@click.option("--tasks", default="sst2,rte", show_default=True, help="Of sst2 and rte.")
@click.option("--rows", type=click.IntRange(min=2), default=4000, show_default=True, help="Of the student, at most.")
@click.option("--teacher-rows", type=click.IntRange(min=2), default=20_000, show_default=True, help="At most.")
@click.option("--layers", type=click.IntRange(min=1), default=2, show_default=True, help="Of the student.")
@click.option("--sparsity", default="0,10,30,50,70,90", show_default=True, help="As hsktrain stark takes it.")
@click.option("--compare", default="plain", show_default=True, help="As hsktrain stark takes it.")
@click.option("--balance", type=float, default=0.5, show_default=True)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True)
@click.option("--lr", default="5.0e-5", show_default=True, help="Of the student.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of everything.")
@report.device
@report.as_json
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
    tasks = commands.earlier_runs(work / "results.json", settings, "tasks")
    facts = {"settings": settings, "tasks": tasks}
    for seed in range(given["seeds"]):
        for name in names:
            folder = work / name
            folder.mkdir(exist_ok=True)
            if name not in tasks:
                tasks[name] = {"teacher": make_teacher(name, folder, glue, given), "seeds": {}}
            if str(seed) not in tasks[name]["seeds"]:
                tasks[name]["seeds"][str(seed)] = levels(name, seed, folder, glue, given)
            commands.write(work / "results.json", facts)
            commands.replace(work / "table.txt", "\n\n".join(tables(tasks, given)) + "\n")
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
