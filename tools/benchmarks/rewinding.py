"""Cost of levels of sparsity: StarK with a column of cached logits a level, against a teacher in the loop at each."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.folders import emptied
from benchmarks.harness.measure import environment, synchronise
from hskcache import console
from trainer.timing import Times

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.sparsity.scores import UnitScores
    from hskcache.teacher.load import Teacher
    from trainer.recipe import Losses
    from trainer.source.source import Slice, Source

CACHED, LIVE = "cached columns", "teacher in the loop"
AT_LEAST = 3.0


class Steps:
    """Steps that both ways have in common: the trial, the scores, and each level's student.

    Args:
        work: folder of the teacher, the rows and the runs.
        given: the command's options.
    """

    def __init__(self, work: Path, given: dict[str, Any]) -> None:
        from hskcache.sparsity.levels import parse_levels
        from trainer.recipe import load_recipe

        self.work, self.given = work, given
        self.levels = [percent for percent in parse_levels(given["sparsity"]) if percent]
        # Batches of 32, where the figures of the README are of before the recipe had the authors' 16.
        settings = (f"epochs={given['epochs']}", "batch_size=32", "patience=null")
        self.recipe = load_recipe("stark", [f"distillation.{setting}" for setting in settings])
        lengths = synthetic.fixed_lengths(given["rows"], given["length"])
        self.train = synthetic.write_rows(work / "train.tsv", lengths)
        self.dev = synthetic.write_rows(work / "dev.tsv", lengths[: given["dev_rows"]], seed=1)
        self.teacher_dir = work / "teacher"
        self.tokenizer = synthetic.write_tokenizer(work / "tokenizer")
        if not (self.teacher_dir / "config.json").is_file():
            made = synthetic.random_teacher(given["teacher"], work, "cpu")
            made.model.save_pretrained(self.teacher_dir)
            made.tokenizer.save_pretrained(self.teacher_dir)

    def teacher(self) -> "Teacher":
        """The dense teacher, loaded."""
        from hskcache.teacher.load import load_teacher

        return load_teacher(str(self.teacher_dir), self.given["device"])

    def job(self, teacher: "Teacher") -> "Job":
        """The training rows and the logits alone."""
        from hskcache.build.job import prepare_job
        from hskcache.spec import Spec
        from hskcache.text import tokenize

        examples = synthetic.read_rows(self.train)
        rows = tokenize(examples, teacher.tokenizer, self.given["length"])
        return prepare_job(teacher, examples, rows, Spec(hidden=None, max_length=self.given["length"]))

    def scores(self, teacher: "Teacher", trial: Path) -> "UnitScores":
        """One pass over as many training rows as there are to evaluate on."""
        from hskcache.sparsity.sample import Sample, draw_rows
        from hskcache.sparsity.scores import score
        from hskcache.sparsity.student import load_trial

        job = self.job(teacher)
        sample = Sample(job.rows, job.labels, index_N=draw_rows(len(job.rows), self.given["dev_rows"], 0))
        return score(teacher, load_trial(str(trial), teacher, None).model, sample, lambda _rows: None)

    def train_student(self, source: "Source", out: Path) -> dict[str, Any]:
        """The whole of ``fit``, from the one start that all levels have."""
        from hskcache.evaluation import evaluate
        from hskcache.metrics import metrics_for
        from hskcache.text import load_tokenizer, tokenize
        from trainer.run.fit import Fit, fit
        from trainer.run.request import Machine
        from trainer.student.create import create_student

        tokenizer, metrics = load_tokenizer(self.tokenizer), metrics_for("classification")
        examples = synthetic.read_rows(self.dev)
        rows = tokenize(examples, tokenizer, self.given["length"])
        student = create_student(self.given["student"], source.knowledge.interface(), 0)
        job = Fit(
            source=source,
            recipe=self.recipe,
            student=student,
            tokenizer=tokenizer,
            score=lambda model: evaluate(model, examples, rows, metrics),
            metric=next(iter(metrics)),
        )
        result: dict[str, Any] = fit(job, out, Machine(self.given["device"]))
        return result


def cached_steps(steps: Steps, out: Path) -> dict[str, Callable[[], Any]]:
    """Steps with the cache: the teacher runs over the rows once for each level, before any student trains."""
    from hskcache.build.addition import add_field, prepare_addition
    from hskcache.build.build import build
    from hskcache.cache import open_cache
    from hskcache.sparsity.levels import kept_at
    from hskcache.sparsity.masks import sparse
    from trainer.source.source import cached_source

    cache = out / "cache.hsk"

    def trial() -> Any:
        build(steps.job(steps.teacher()), cache)
        return steps.train_student(cached_source(cache), out / "s0")

    def scores() -> None:
        teacher = steps.teacher()
        importance = steps.scores(teacher, out / "s0").knowledgeable(0.5)
        for percent in steps.levels:
            with sparse(teacher, kept_at(importance, percent), f"s{percent}") as one:
                add_field(prepare_addition(one, open_cache(cache), "logits", f"s{percent}"))

    def level(name: str) -> Any:
        return steps.train_student(cached_source(cache, fields=(name,)), out / name)

    return {"trial": trial, "scores": scores} | {f"s{n}": partial(level, f"s{n}") for n in steps.levels}


def live_steps(steps: Steps, out: Path) -> dict[str, Callable[[], Any]]:
    """The published way: a teacher in the loop of every student, here loaded once and made sparse in memory."""
    from hskcache.sparsity.levels import kept_at
    from hskcache.sparsity.masks import sparse

    held: dict[str, Any] = {}

    def trial() -> Any:
        held["teacher"] = steps.teacher()
        return steps.train_student(live_source(steps, held["teacher"]), out / "s0")

    def scores() -> None:
        held["importance"] = steps.scores(held["teacher"], out / "s0").knowledgeable(0.5)

    def level(percent: int) -> Any:
        with sparse(held["teacher"], kept_at(held["importance"], percent), f"s{percent}") as teacher:
            return steps.train_student(live_source(steps, teacher), out / f"s{percent}")

    return {"trial": trial, "scores": scores} | {f"s{n}": partial(level, n) for n in steps.levels}


def live_source(steps: Steps, teacher: "Teacher") -> "Source":
    """A teacher in the loop over the rows of the cache, in its order."""
    from trainer.source.live import LiveLoader, live_knowledge
    from trainer.source.source import Source, fields_of

    job = steps.job(teacher)

    def loader(losses: "Losses", part: "Slice", seed: int) -> LiveLoader:
        return LiveLoader(job, fields=fields_of(losses), batch_size=part.batch_size, seed=seed)

    return Source(live_knowledge(job), loader, str(steps.tokenizer), job.request.digest)


def measured(steps: Steps, repetitions: int) -> tuple[dict[str, Times], dict[str, dict[str, float]]]:
    """Seconds of each step on both sides, which take turns, and the last losses of both sides' students."""
    seconds: dict[str, dict[str, list[float]]] = {}
    losses: dict[str, dict[str, float]] = {}
    with console.progress("steps") as bar:
        task = bar.add_task("rewinding", total=2 * repetitions * (2 + len(steps.levels)))
        for repetition in range(repetitions):
            sides = {
                CACHED: cached_steps(steps, emptied(steps.work / CACHED)),
                LIVE: live_steps(steps, emptied(steps.work / LIVE)),
            }
            for number, name in enumerate(sides[CACHED]):
                order = list(sides) if (number + repetition) % 2 == 0 else list(reversed(sides))
                for side in order:
                    start = perf_counter()
                    result = sides[side][name]()
                    synchronise(steps.given["device"])
                    seconds.setdefault(name, {}).setdefault(side, []).append(perf_counter() - start)
                    if result is not None:
                        losses.setdefault(name, {})[side] = sum(result["stages"][-1]["losses"].values())
                    bar.advance(task)
    return {name: Times(found) for name, found in seconds.items()}, losses


@click.command()
@options.count("--rows", 192, "Of the training data.")
@options.count("--dev-rows", 32, "To score and evaluate on.")
@options.length("Tokens of every row.")
@click.option("--sparsity", default="0,60", show_default=True, help="As hsktrain stark takes it.")
@options.count("--epochs", 10, "Of each student.")
@options.teacher_shape
@click.option("--student", default="tinybert4", show_default=True, help="What hsktrain takes.")
@options.repetitions(1, "Of both ways.")
@options.work
@options.resolved_device
@options.as_json
def main(work: Path, as_json: bool, repetitions: int, **given: Any) -> None:
    """Time StarK from the trial to the last level both ways, step by step in turns, with the same students.

    Loading the teacher, tokenizing, building the cache, adding the columns, scoring, and the whole of each student's
    training with its evaluations and checkpoints are inside.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    with quiet():
        steps = Steps(work / f"rewinding_{given['teacher']}_{given['rows']}x{given['length']}", given)
        times, losses = measured(steps, repetitions)
    whole = Times(
        {
            side: [sum(parts) for parts in zip(*(one.seconds[side] for one in times.values()), strict=True)]
            for side in (CACHED, LIVE)
        }
    )
    apart = max(abs(one[CACHED] - one[LIVE]) / one[LIVE] for one in losses.values())
    rows = [
        [name, *(f"{one.median(side):.1f}" for side in (CACHED, LIVE)), f"{one.ratio(LIVE, CACHED):.2f}"]
        for name, one in {**times, "all": whole}.items()
    ]
    title = (
        f"{given['student']} of {given['teacher']}, {given['rows']} rows of {given['length']} tokens, "
        f"{given['epochs']} epochs, {about['device']}; losses at the end differ by at most {apart:.1e}"
    )
    targets = [report.Target(f"{LIVE} / {CACHED}", whole.ratio(LIVE, CACHED), AT_LEAST, at_least=True)]
    facts = {"settings": given | {"repetitions": repetitions}, "environment": about, "losses": losses}
    facts |= {"steps": {name: one.facts() for name, one in times.items()}, "all": whole.facts()}
    report.conclude(
        facts, [report.table(title, ("step", "cached s", "in the loop s", "ratio"), rows)], targets, as_json
    )
