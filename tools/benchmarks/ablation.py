"""Worth of each part of TinyBERT's distillation: the ablations of its paper (sections 4.4 and 4.5) on SST-2.

Every variant trains from one cache of the augmented task data and one cache of a corpus; each step is one of the
commands a user would type.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import click

from benchmarks.harness import commands, masked_lm, report
from benchmarks.harness.commands import run

TASK = ("--task", "sst2")
INTERMEDIATE = "intermediate.losses."


class Variant(NamedTuple):
    """Differences of a variant from the full method: settings of the recipe, the start, the rows and the layer map."""

    changes: tuple[str, ...] = ()
    general: bool = True
    augmented: bool = True
    layer_map: str | None = None
    recipe: str = "tinybert-task"


VARIANTS = {
    "all of it": Variant(),
    "without attention": Variant((f"{INTERMEDIATE}attention=null",)),
    "without hidden states": Variant((f"{INTERMEDIATE}hidden=null",)),
    "without attention and hidden states": Variant((f"{INTERMEDIATE}attention=null", f"{INTERMEDIATE}hidden=null")),
    "without embedding": Variant((f"{INTERMEDIATE}embedding=null",)),
    "without prediction (labels instead)": Variant(
        ("prediction.losses.soft=null", "prediction.losses.label.weight=1.0")
    ),
    "without augmentation": Variant(augmented=False),
    "without general distillation": Variant(general=False),
    # A student of general distillation has learned by the uniform map: maps are compared without it.
    "without general, layer map top": Variant(general=False, layer_map="top"),
    "without general, layer map bottom": Variant(general=False, layer_map="bottom"),
    "labels alone": Variant(general=False, augmented=False, recipe="labels"),
}


class Setting(NamedTuple):
    """Folders of a run, and the options that the user gave."""

    work: Path
    dev: Path
    given: dict[str, Any]

    @property
    def place(self) -> tuple[str, ...]:
        """Options that say where to compute."""
        return ("--device", self.given["device"])


def make_teacher(setting: Setting, glue: Path) -> dict[str, Any]:
    """Fine-tune the teacher, or find it finished."""
    given = setting.given
    rows = commands.write_head(glue / "SST-2" / "train.tsv", setting.work / "teacher.tsv", given["teacher_rows"] + 1)
    result: dict[str, Any] = run(
        "hsktrain", "finetune", "--model", commands.base_model(given["base_model"]), "--data", rows, *TASK,
        "--eval-data", setting.dev, "--epochs", given["teacher_epochs"], "--lr", "5e-5", "--max-length", 64,
        "--out", setting.work / "teacher", *setting.place,
    )  # fmt: skip
    return result


def make_task_cache(setting: Setting, glue: Path) -> dict[str, Any]:
    """Augment the task's rows and run the teacher over them once: all layers, positions, columns, heads, and logits."""
    given, work = setting.given, setting.work
    rows = commands.write_head(glue / "SST-2" / "train.tsv", work / "train.tsv", given["rows"] + 1)
    model = given["masked_lm"] or masked_lm.make(
        commands.base_model(given["base_model"]), given["corpus"] / "wiki.train.tokens", work / "masked-lm", 400
    )
    augmented = run(
        "hskcache", "augment", "--data", rows, *TASK, "--masked-lm", model, "--vectors", given["vectors"],
        "--copies", given["copies"], "--out", work / "augmented.tsv", *setting.place,
    )  # fmt: skip
    built = run(
        "hskcache", "build", "--teacher", work / "teacher", "--data", work / "augmented.tsv", *TASK, "--max-length", 64,
        "--keep", "full", "--attention", "full", "--student-layers", given["layers"], "--store-layers", "all",
        "--out", work / "task.hsk", *setting.place,
    )  # fmt: skip
    return {"augmented": augmented, "num_rows": built["num_rows"], "num_bytes": built["num_bytes"]}


def make_corpus_cache(setting: Setting) -> dict[str, Any]:
    """Run the pre-trained encoder over the corpus once."""
    given, work = setting.given, setting.work
    text = commands.write_head(given["corpus"] / "wiki.train.tokens", work / "corpus.txt", given["corpus_lines"])
    built = run(
        "hskcache", "build", "--teacher", commands.base_model(given["base_model"]), "--corpus", text,
        "--pairs", "none", "--max-length", 64, "--keep", "full", "--attention", "full", "--student-layers",
        given["layers"], "--out", work / "corpus.hsk", *setting.place,
    )  # fmt: skip
    return {"num_rows": built["num_rows"], "num_bytes": built["num_bytes"]}


def student_config(setting: Setting) -> Path:
    """The student's shape, as many heads as the teacher."""
    teacher = json.loads((setting.work / "teacher" / "config.json").read_text(encoding="utf-8"))
    heads, pieces = teacher["num_attention_heads"], teacher["vocab_size"]
    return commands.student_config(setting.work / "student.json", setting.given, heads, pieces)


def general(setting: Setting, student: Path, seed: int) -> Path:
    """General distillation: the student that all variants but one begin from."""
    given, out = setting.given, setting.work / "students" / f"general_{seed}"
    changes = {"epochs": given["general_epochs"], "learning_rate": given["general_lr"], "batch_size": 32}
    run(
        "hsktrain", "fit", "--cache", setting.work / "corpus.hsk", "--student", student, "--recipe", "tinybert-general",
        *(word for key, value in changes.items() for word in ("--set", f"general.{key}={value}")),
        "--seed", seed, "--out", out, *setting.place,
    )  # fmt: skip
    return out


def schedule(setting: Setting, variant: Variant, num_rows: int) -> list[str]:
    """Epochs and rates of a variant, so that all take as many steps, whatever rows they see.

    Args:
        setting: what the user asked for.
        variant: which.
        num_rows: of the augmented data.
    """
    given = setting.given
    repeated = 1.0 if variant.augmented else num_rows / given["rows"]
    stages = {
        "intermediate": (given["epochs"], given["lr"]),
        "prediction": (given["prediction_epochs"], given["prediction_lr"]),
    }
    if variant.recipe == "labels":
        stages = {"labels": (given["epochs"] + given["prediction_epochs"], given["prediction_lr"])}
    changes = [f"{stage}.epochs={repeated * epochs:.4g}" for stage, (epochs, _) in stages.items()]
    return changes + [f"{stage}.learning_rate={rate}" for stage, (_, rate) in stages.items()]


def train(setting: Setting, variant: Variant, start: Path, out: Path, run_of: tuple[int, int]) -> dict[str, Any]:
    """One student: dev accuracy and minutes of training; ``run_of`` is the seed and the rows of the augmented data."""
    given, (seed, num_rows) = setting.given, run_of
    changes = schedule(setting, variant, num_rows)
    options = [word for change in (*changes, *variant.changes) for word in ("--set", change)]
    options += ["--layer-map", variant.layer_map] if variant.layer_map else []
    options += [] if variant.augmented else ["--rows", given["rows"]]
    result = run(
        "hsktrain", "fit", "--cache", setting.work / "task.hsk", "--student", start, "--eval-data", setting.dev, *TASK,
        "--recipe", variant.recipe, *options, "--seed", seed, "--out", out, *setting.place,
    )  # fmt: skip
    done = [(stage["steps"], stage["seconds_per_step"] or 0.0) for stage in result["stages"]]
    return {
        "accuracy": result["scores"]["accuracy"],
        "steps": sum(steps for steps, _ in done),
        "minutes": sum(steps * seconds for steps, seconds in done) / 60,
    }


def summary(runs: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A line of the table for every variant that has a run; the distance to the full method is over the same seeds."""
    whole = {seed: 100 * one["accuracy"] for seed, one in runs.get("all of it", {}).items()}
    lines = []
    for name in VARIANTS:
        if not (found := {seed: 100 * one["accuracy"] for seed, one in runs.get(name, {}).items()}):
            continue
        distances = [score - whole[seed] for seed, score in found.items() if seed in whole]
        distance = f"{mean(distances):+.2f}" if distances and name != "all of it" else ""
        spread = f"{stdev(found.values()):.2f}" if len(found) > 1 else "-"
        steps = f"{mean(one['steps'] for one in runs[name].values()):,.0f}"
        minutes = f"{mean(one['minutes'] for one in runs[name].values()):.1f}"
        lines.append([name, f"{mean(found.values()):.2f}", distance, spread, str(len(found)), steps, minutes])
    return lines


def plot(runs: dict[str, dict[str, Any]], teacher: float, path: Path) -> None:
    """A dot for the mean dev accuracy of every variant, small ones for its runs, lines for whole and teacher."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    names = [name for name in reversed(VARIANTS) if runs.get(name)]
    scores = [[100 * one["accuracy"] for one in runs[name].values()] for name in names]
    means = [mean(found) for found in scores]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 1.3), layout="constrained")
    axes.hlines(range(len(names)), means[-1], means, color="lightsteelblue", linewidth=2)
    axes.axvline(means[-1], color="tab:blue", linewidth=1, label=f"{names[-1]} {means[-1]:.1f}")
    axes.axvline(teacher, color="tab:orange", linewidth=1, label=f"teacher {teacher:.1f}")
    for place, found in enumerate(scores):
        axes.plot(found, [place] * len(found), ".", color="grey", markersize=4)
        axes.annotate(f"{means[place]:.1f}", (means[place], place + 0.18), ha="center", fontsize=8)
    axes.plot(means, range(len(names)), "o", color="tab:blue", markersize=6)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.2)
    axes.set_xlabel("SST-2 dev accuracy, %")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)
    plt.close(figure)


@click.command()
@commands.work_option("ablation")
@commands.glue_option
@commands.base_model_option
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: commands.shared("HSKCACHE_CORPUS", "corpus"),
    help="Folder with wiki.train.tokens.  [default: $HSKCACHE_CORPUS, else ../shared/corpus]",
)
@click.option(
    "--vectors",
    type=click.Path(path_type=Path, dir_okay=False),
    default=lambda: commands.shared("HSKCACHE_VECTORS", "vectors") / "glove.6B.50d.5k.txt",
    help="Word vectors.  [default: glove.6B.50d.5k.txt in $HSKCACHE_VECTORS, else ../shared/vectors]",
)
@click.option("--masked-lm", metavar="DIR_OR_ID", help="[default: one trained on the corpus for 400 steps]")
@click.option("--rows", type=click.IntRange(min=2), default=4000, show_default=True, help="Of the student.")
@click.option("--copies", type=click.IntRange(min=1), default=3, show_default=True, help="Augmented copies of a row.")
@click.option("--teacher-rows", type=click.IntRange(min=2), default=20_000, show_default=True)
@click.option("--teacher-epochs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--corpus-lines", type=click.IntRange(min=1), default=12_000, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=3, show_default=True, help="Of the student.")
@click.option("--width", type=click.IntRange(min=12), default=192, show_default=True, help="Of the student.")
@click.option("--general-epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--general-lr", default="5.0e-4", show_default=True)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--lr", default="3.0e-4", show_default=True, help="Of the intermediate phase.")
@click.option("--prediction-epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--prediction-lr", default="1.0e-4", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each variant.")
@report.device
@report.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Leave out one part of TinyBERT's method after the other and see what the student loses.

    All variants take as many steps: on fewer rows more epochs.

    Writes WORK/results.json, WORK/table.txt and WORK/ablation.png after every run; the same command goes on where a
    cut-off one stopped.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    given |= {name: Path(given[name]).resolve() for name in ("corpus", "vectors")}
    setting = Setting(work, glue.resolve() / "SST-2" / "dev.tsv", given)
    teacher = make_teacher(setting, glue.resolve())
    caches = {"task": make_task_cache(setting, glue.resolve()), "corpus": make_corpus_cache(setting)}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    runs = commands.earlier_runs(work / "results.json", settings)
    score = 100 * teacher["best"]["metrics"]["accuracy"]
    facts = {"settings": settings, "teacher": teacher["best"]["metrics"], "caches": caches, "runs": runs}
    header = ("variant", "dev accuracy", "to all", "std", "runs", "steps", "minutes")
    title = (
        f"SST-2, {given['rows']:,} rows and {given['copies']} copies, student {given['layers']} x {given['width']}; "
        f"teacher {score:.2f}"
    )
    student = student_config(setting)
    # Seeds outermost: a run that is cut off has every variant for the seeds it got to.
    for seed in range(given["seeds"]):
        for name, variant in VARIANTS.items():
            done = runs.setdefault(name, {})
            if str(seed) not in done:
                start = general(setting, student, seed) if variant.general else student
                out = work / "students" / f"{name.replace(' ', '_')}_{seed}"
                done[str(seed)] = train(setting, variant, start, out, (seed, caches["task"]["num_rows"]))
            commands.write(work / "results.json", facts)
            commands.replace(work / "table.txt", report.table(title, header, summary(runs)) + "\n")
            plot(runs, score, work / "ablation.png")
    report.conclude(facts, [report.table(title, header, summary(runs))], [], as_json)
