"""Worth of each part of TinyBERT's distillation: the ablations of its paper (sections 4.4 and 4.5) on SST-2.

Every variant trains from one cache of the augmented task data and one cache of a corpus; each step is one of the
commands a user would type.
"""

from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import click

from benchmarks.harness import masked_lm, options, report
from benchmarks.harness.commands import Study, complete, earlier_runs, outcome, plain, run, sets
from benchmarks.harness.folders import replace, shared, write_head, write_json

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


def make_teacher(study: Study) -> dict[str, Any]:
    """Fine-tune the teacher, or find it finished."""
    rows = write_head(study.glue / "train.tsv", study.work / "teacher.tsv", study.given["teacher_rows"] + 1)
    return study.finetune(rows, study.given["teacher_epochs"], 64)


def make_task_cache(study: Study) -> dict[str, Any]:
    """Augment the task's rows and run the teacher over them once: all layers, positions, columns, heads, and logits."""
    given, work = study.given, study.work
    rows = write_head(study.glue / "train.tsv", work / "train.tsv", given["rows"] + 1)
    model = given["masked_lm"] or masked_lm.make(
        study.base_model, given["corpus"] / "wiki.train.tokens", work / "masked-lm", 400
    )
    augmented = run(
        "hskcache", "augment", *study.data(rows), "--masked-lm", model, "--vectors", given["vectors"],
        "--copies", given["copies"], "--out", work / "augmented.tsv", *study.place,
    )  # fmt: skip
    built = run(
        "hskcache", "build", "--teacher", work / "teacher", *study.data(work / "augmented.tsv"), "--max-length", 64,
        "--keep", "full", "--attention", "full", "--student-layers", given["layers"], "--store-layers", "all",
        "--out", work / "task.hsk", *study.place,
    )  # fmt: skip
    return {"augmented": augmented, "num_rows": built["num_rows"], "num_bytes": built["num_bytes"]}


def make_corpus_cache(study: Study) -> dict[str, Any]:
    """Run the pre-trained encoder over the corpus once."""
    given, work = study.given, study.work
    text = write_head(given["corpus"] / "wiki.train.tokens", work / "corpus.txt", given["corpus_lines"])
    built = run(
        "hskcache", "build", "--teacher", study.base_model, "--corpus", text,
        "--pairs", "none", "--max-length", 64, "--keep", "full", "--attention", "full", "--student-layers",
        given["layers"], "--out", work / "corpus.hsk", *study.place,
    )  # fmt: skip
    return {"num_rows": built["num_rows"], "num_bytes": built["num_bytes"]}


def general(study: Study, student: Path, seed: int) -> Path:
    """General distillation: the student that all variants but one begin from."""
    given, out = study.given, study.work / "students" / f"general_{seed}"
    changes = {"epochs": given["general_epochs"], "learning_rate": given["general_lr"], "batch_size": 32}
    run(
        "hsktrain", "fit", "--cache", study.work / "corpus.hsk", "--student", student, "--recipe", "tinybert-general",
        *sets(f"general.{key}={value}" for key, value in changes.items()),
        "--seed", seed, "--out", out, *study.place,
    )  # fmt: skip
    return out


def schedule(study: Study, variant: Variant, num_rows: int) -> list[str]:
    """Epochs and rates of a variant, so that all take as many steps, whatever rows they see.

    Args:
        study: the options of the user.
        variant: which.
        num_rows: of the augmented data.
    """
    given = study.given
    repeated = 1.0 if variant.augmented else num_rows / given["rows"]
    stages = {
        "intermediate": (given["epochs"], given["lr"]),
        "prediction": (given["prediction_epochs"], given["prediction_lr"]),
    }
    if variant.recipe == "labels":
        stages = {"labels": (given["epochs"] + given["prediction_epochs"], given["prediction_lr"])}
    changes = [f"{stage}.epochs={repeated * epochs:.4g}" for stage, (epochs, _) in stages.items()]
    return changes + [f"{stage}.learning_rate={rate}" for stage, (_, rate) in stages.items()]


def train(study: Study, variant: Variant, start: Path, out: Path, run_of: tuple[int, int]) -> dict[str, Any]:
    """One student: dev accuracy and minutes of training; ``run_of`` is the seed and the rows of the augmented data."""
    given, (seed, num_rows) = study.given, run_of
    changes = schedule(study, variant, num_rows)
    flags = ["--layer-map", variant.layer_map] if variant.layer_map else []
    flags += [] if variant.augmented else ["--rows", given["rows"]]
    result = run(
        "hsktrain", "fit", "--cache", study.work / "task.hsk", "--student", start, *study.judged,
        "--recipe", variant.recipe, *sets((*changes, *variant.changes)), *flags, "--seed", seed,
        "--out", out, *study.place,
    )  # fmt: skip
    return outcome(result)


def summary(runs: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A line of the table for every variant that has a run; the distance to the full method is over the same seeds."""
    whole = {seed: 100 * one["accuracy"] for seed, one in runs.get("all of it", {}).items()}
    lines = []
    for name in VARIANTS:
        if not (found := {seed: 100 * one["accuracy"] for seed, one in runs.get(name, {}).items()}):
            continue
        distances = [score - whole[seed] for seed, score in found.items() if seed in whole]
        distance = f"{mean(distances):+.2f}" if distances and name != "all of it" else ""
        steps = f"{mean(one['steps'] for one in runs[name].values()):,.0f}"
        minutes = f"{mean(one['minutes'] for one in runs[name].values()):.1f}"
        lines.append(
            [
                name,
                f"{mean(found.values()):.2f}",
                distance,
                report.deviation(list(found.values())),
                str(len(found)),
                steps,
                minutes,
            ]
        )
    return lines


def plot(runs: dict[str, dict[str, Any]], teacher: float, path: Path) -> None:
    """A dot for the mean dev accuracy of every variant, small ones for its runs, lines for whole and teacher."""
    plt = report.pyplot()
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
@options.work_of("ablation")
@options.glue
@options.base_model
@options.corpus
@click.option(
    "--vectors",
    type=click.Path(path_type=Path, dir_okay=False),
    default=lambda: shared("HSKCACHE_VECTORS", "vectors") / "glove.6B.50d.5k.txt",
    help="Word vectors.  [default: glove.6B.50d.5k.txt in $HSKCACHE_VECTORS, else ../shared/vectors]",
)
@click.option("--masked-lm", metavar="DIR_OR_ID", help="[default: one trained on the corpus for 400 steps]")
@options.count("--rows", 4000, "Of the student.", at_least=2)
@options.count("--copies", 3, "Augmented copies of a row.")
@options.count("--teacher-rows", 20_000, at_least=2)
@options.count("--teacher-epochs", 2)
@options.count("--corpus-lines", 12_000)
@options.count("--layers", 3, "Of the student.")
@options.count("--width", 192, "Of the student.", at_least=12)
@options.amount("--general-epochs", 2.0)
@click.option("--general-lr", default="5.0e-4", show_default=True)
@options.amount("--epochs", 2.0)
@click.option("--lr", default="3.0e-4", show_default=True, help="Of the intermediate phase.")
@options.amount("--prediction-epochs", 2.0)
@click.option("--prediction-lr", default="1.0e-4", show_default=True)
@options.count("--seeds", 1, "Runs of each variant.")
@options.device
@options.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Leave out one part of TinyBERT's method after the other and see what the student loses.

    All variants take as many steps: on fewer rows more epochs.

    Writes WORK/results.json, WORK/table.txt and WORK/ablation.png after every run; the same command goes on where a
    cut-off one stopped.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    given |= {name: Path(given[name]).resolve() for name in ("corpus", "vectors")}
    study = Study(work, glue.resolve() / "SST-2", "sst2", given)
    teacher = make_teacher(study)
    caches = {"task": make_task_cache(study), "corpus": make_corpus_cache(study)}
    settings = plain(given)
    runs = earlier_runs(work / "results.json", settings)
    score = 100 * teacher["best"]["metrics"]["accuracy"]
    facts = {"settings": settings, "teacher": teacher["best"]["metrics"], "caches": caches, "runs": runs}
    header = ("variant", "dev accuracy", "to all", "std", "runs", "steps", "minutes")
    title = (
        f"SST-2, {given['rows']:,} rows and {given['copies']} copies, student {given['layers']} x {given['width']}; "
        f"teacher {score:.2f}"
    )
    student = study.student_config()

    def one(name: str, seed: int) -> dict[str, Any]:
        variant = VARIANTS[name]
        start = general(study, student, seed) if variant.general else student
        out = work / "students" / f"{name.replace(' ', '_')}_{seed}"
        return train(study, variant, start, out, (seed, caches["task"]["num_rows"]))

    for _ in complete(runs, VARIANTS, given["seeds"], one):
        write_json(work / "results.json", facts)
        replace(work / "table.txt", report.table(title, header, summary(runs)) + "\n")
        plot(runs, score, work / "ablation.png")
    report.conclude(facts, [report.table(title, header, summary(runs))], [], as_json)
