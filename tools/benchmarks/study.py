"""Cost of the study ``joint``, 12 points x 3 seeds from one cache, against each point by itself with its teacher.

Steps of two points, the least and the most that the grid keeps, take turns with steps of the published way, which has
the teacher in the loop, with builds, evaluations and checkpoints; the sums are of all rows, points and seeds.
"""

from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import built, make_job, make_spec
from benchmarks.harness.measure import environment, take_turns
from benchmarks.harness.sides import Side, learning
from benchmarks.job import (
    BUILD,
    CHECKPOINT,
    EVALUATION,
    LOOP_HIDDEN,
    LOOP_PREDICTION,
    PREDICTION,
    ROWS,
    beside_the_steps,
    in_the_loop,
    sample,
    steps,
)
from trainer.timing import Times

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.cache import Cache
    from hskcache.teacher.load import Teacher
    from hskcache.text import Examples

POINTS, SEEDS = 12, 3
LEAST, MOST = "1l_5t_0.05h", "2l_20t_0.1h"
OWN_BUILD = "build of one point"
_STEPS = (LOOP_HIDDEN, LOOP_PREDICTION, LEAST, MOST, PREDICTION)


class Material(NamedTuple):
    """A random teacher, rows of two sizes, the cache of the study, and the job that built it."""

    teacher: "Teacher"
    examples: "Examples"
    part: "Examples"
    job: "Job"
    cache: "Cache"


def prepare(work: Path, given: dict[str, Any]) -> Material:
    """Draw the rows, and run the teacher over them once, for all that any point of the grid keeps."""
    folder = work / f"study_{given['teacher']}_{given['rows']}x{given['length']}"
    examples, part = (
        sample(given["glue"], folder / f"{size}.tsv", size) for size in (given["rows"], given["build_rows"])
    )
    tokenizer = synthetic.train_tokenizer(folder / "tokenizer", list(examples.texts))
    teacher = synthetic.random_teacher(given["teacher"], work, given["device"], tokenizer=tokenizer)
    job = make_job(teacher, examples, _wide(given))
    return Material(teacher, examples, part, job, built(job, folder / f"wide_{given['encoding']}.hsk"))


def _wide(given: dict[str, Any]) -> Any:
    return make_spec(f"2l_{given['length']}t", given["encoding"], max_length=given["length"])


def sides_of(material: Material, given: dict[str, Any]) -> dict[str, Side]:
    """Students of both points, of the prediction that all points have, and of the published way."""
    from trainer.loading import KnowledgeLoader
    from trainer.recipe import load_recipe

    hidden, prediction = load_recipe("mud").stages
    shared = {"batch_size": given["batch_size"], "device": given["device"]}

    def learner(keep: str) -> Side:
        job = make_job(material.teacher, material.examples, _narrow(keep, given))
        loader = KnowledgeLoader(material.cache.view(keep), fields=("hidden",), **shared)
        return learning(job, hidden.losses, loader, given)

    answers = KnowledgeLoader(material.cache, fields=("logits",), **shared)
    return {
        LOOP_HIDDEN: in_the_loop(material.job, "hidden", given),
        LOOP_PREDICTION: in_the_loop(material.job, "prediction", given),
        LEAST: learner(LEAST),
        MOST: learner(MOST),
        PREDICTION: learning(material.job, prediction.losses, answers, given),
    }


def _narrow(keep: str, given: dict[str, Any]) -> Any:
    return make_spec(keep, given["encoding"], max_length=given["length"])


def in_a_turn(name: str, given: dict[str, Any]) -> int:
    """Steps timed together: of a cache, whose batches differ in length, a whole epoch of the sample."""
    steps: int = given["block"] if name in (LOOP_HIDDEN, LOOP_PREDICTION) else ceil(given["rows"] / given["batch_size"])
    return steps


class StudyCost(NamedTuple):
    """Seconds of all points and seeds: of builds, of steps, and of evaluations and checkpoints."""

    builds: float
    trained: float
    saved: float

    @property
    def whole(self) -> float:
        """Seconds of all."""
        return self.builds + self.trained + self.saved


def costs(times: Times, epochs: tuple[float, float], given: dict[str, Any]) -> tuple[StudyCost, StudyCost]:
    """Cost of the study from one cache, and of each point by itself; nothing is saved or scored in the latter."""
    runs, num_steps, rows_built = POINTS * SEEDS, ceil(ROWS / given["batch_size"]), ROWS / given["build_rows"]
    step = {name: times.median(name) / in_a_turn(name, given) for name in _STEPS}

    def trained(hidden: float, prediction: float) -> float:
        return float(runs * num_steps * (epochs[0] * hidden + epochs[1] * prediction))

    point = (step[LEAST] + step[MOST]) / 2
    saved = runs * (sum(epochs) * times.median(CHECKPOINT) + (epochs[1] + 1) * times.median(EVALUATION))
    ours = StudyCost(rows_built * times.median(BUILD), trained(point, step[PREDICTION]), saved)
    theirs = StudyCost(
        POINTS * rows_built * times.median(OWN_BUILD),
        trained(step[LOOP_HIDDEN], step[LOOP_PREDICTION]),
        0.0,
    )
    return ours, theirs


@click.command()
@options.glue
@options.count("--rows", 512, "Rows of the sample.")
@options.count("--build-rows", 256, "Rows of a timed build.")
@options.length("Tokens of a row at most, to which the published way pads every row.", 64)
@options.batch_size
@options.count("--block", 4, "Steps with the teacher in the loop that are timed together.")
@options.encoding
@options.teacher_shape
@options.student_of_4
@options.repetitions(5)
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Time steps of two points of the study joint beside those with a teacher in the loop, on SST-2's real text.

    The sums are of 12 points, 3 seeds, all 67,349 rows and the epochs of the paper. The teacher has random weights:
    time does not tell.
    """
    from hskcache.build.build import build
    from hskcache.runtime import quiet
    from trainer.recipe import load_recipe

    work.mkdir(parents=True, exist_ok=True)
    about, recipe = environment(given["device"]), load_recipe("mud").for_task("sst2")
    epochs = recipe.stages[0].epochs, recipe.stages[1].epochs
    with quiet(), TemporaryDirectory(prefix="study-", dir=work) as folder:
        material = prepare(work, given)
        sides = sides_of(material, given)
        part = make_job(material.teacher, material.part, _wide(given))
        narrow = make_job(material.teacher, material.part, _narrow(MOST, given))
        turns: dict[str, Any] = {name: steps(side, in_a_turn(name, given), given) for name, side in sides.items()}
        turns |= beside_the_steps(material.job, part, sides[LEAST], Path(folder), given)
        turns[OWN_BUILD] = lambda: build(narrow, Path(folder) / f"own-{len(list(Path(folder).iterdir()))}.hsk")
        times = take_turns("study", turns, given["repetitions"])
    conclude(times, epochs, about, given, as_json)


def conclude(
    times: Times, epochs: tuple[float, float], about: dict[str, Any], given: dict[str, Any], as_json: bool
) -> None:
    """Print times a step and the sums, and judge them."""
    ours, theirs = costs(times, epochs, given)
    targets = [
        report.Target("study / each point by itself", ours.whole / theirs.whole, 0.35),
        report.Target("study / the same without their builds", ours.whole / theirs.trained, 0.35),
    ]
    turns = {name: in_a_turn(name, given) if name in _STEPS else 1 for name in times.seconds}
    timed = [[name, f"{times.median(name) / count:.4f}"] for name, count in turns.items()]
    rows = {"study, from one cache": ours, "each point by itself": theirs}
    header = ("seconds of 12 points x 3 seeds", "builds", "steps", "saving, scoring", "whole")
    sums = [[name, *(f"{value:,.0f}" for value in (*cost, cost.whole))] for name, cost in rows.items()]
    title = f"{given['teacher']} to {given['student']}, B={given['batch_size']}, {about['device']}"
    facts = {
        "settings": given,
        "environment": about,
        **times.facts(),
        "costs": {name: cost._asdict() for name, cost in rows.items()},
    }
    texts = [
        report.table(title, (f"a step, or {given['build_rows']} rows built", "s"), timed),
        report.table(f"{ROWS:,} rows, {epochs[0]:g} + {epochs[1]:g} epochs", header, sums),
    ]
    report.conclude(facts, texts, targets, as_json)
