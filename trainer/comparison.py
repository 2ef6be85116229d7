"""The same student from labels alone, from logits, and from all that a cache holds: what distillation is worth here.

Every side and seed is a run of its own below one folder, made as ``hsktrain fit`` makes it; what is finished is not run
again. Of a teacher in the loop only some steps are taken, for their time: it learns what the cache teaches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from hskcache import console
from hskcache.cache import Cache
from hskcache.store.fields import INPUTS, LOGITS, InputsField
from hskcache.text.layout import Layout
from trainer.recipe import Recipe
from trainer.run.checkpoints import write_json
from trainer.run.request import FitRequest, FromCache, FromTeacher, Machine
from trainer.study.beside import LABELS, SOFT, check_changes, recipe_for, recipes_beside
from trainer.study.intervals import interval_of

CACHE, LOOP = "cache", "teacher in the loop"
RESULTS = "results.json"
LOOP_ROWS = 640
"""Rows of the evaluation data at most that the teacher in the loop takes steps over."""


@dataclass(frozen=True)
class CompareRequest:
    """A comparison.

    Attributes:
        cache: what is learned from.
        student: where every side begins, as :attr:`FitRequest.student`.
        recipe: that the cache is learned by, as ``--recipe`` names it.
        changes: of its stages and of those of the recipes ``labels`` and ``logits``, as ``--set`` takes them.
        eval_data: rows that score every student.
        layout: which columns of them are read.
        metric: that is compared; None: the task's first.
        num_seeds: runs of each side.
        teacher: of the cache, to be put in the loop for some steps; None: it is left out.
    """

    cache: FromCache
    student: str
    eval_data: str
    recipe: str = "mud"
    changes: tuple[str, ...] = ()
    layout: Layout = field(default_factory=Layout)
    metric: str | None = None
    num_seeds: int = 1
    teacher: str | None = None


@dataclass(frozen=True)
class Compared:
    """Results of one side.

    Attributes:
        scores: the metric of the student of each seed; empty of the teacher in the loop.
        standard_error: of the first of them, as a draw of so many rows; None where that is not known.
        step_s: seconds of a step, the median of each stage weighted by its steps.
        num_bytes: of the knowledge that it learns from.
    """

    scores: tuple[float, ...]
    standard_error: float | None
    step_s: float
    num_bytes: int

    @property
    def interval(self) -> float | None:
        """Half the width of the 95 % interval: over seeds by Student's t, of one seed over draws of the rows."""
        interval = interval_of(self.scores, self.standard_error)
        return None if interval is None else interval.half_width


@dataclass(frozen=True)
class Comparison:
    """Results of all sides by name, the metric, and its value of the teacher and of the most frequent class."""

    metric: str
    sides: Mapping[str, Compared]
    baselines: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """The same as JSON values."""
        sides = {
            name: {
                "scores": list(one.scores),
                "mean": fmean(one.scores) if one.scores else None,
                "interval": one.interval,
                "seconds_per_step": one.step_s,
                "num_bytes": one.num_bytes,
            }
            for name, one in self.sides.items()
        }
        return {"metric": self.metric, "sides": sides, "baselines": dict(self.baselines)}


def compare(request: CompareRequest, out: Path, machine: Machine) -> Comparison:
    """Train the sides of a comparison that are not done yet, and compare.

    Args:
        request: of the comparison.
        out: its folder; the runs stand below it, ``results.json`` in it.
        machine: how to compute.

    Raises:
        CacheError: something is missing, damaged or does not fit; told before the first run begins where it can be.
        Interrupted: by SIGINT or SIGTERM; the same request goes on.
    """
    from trainer.run.requested import fit
    from trainer.source.source import Local, opened_cache

    source = request.cache
    cache = opened_cache(source.cache, Local(source.local_dir, source.local_bytes)).view(source.view)
    sizes = _num_bytes(cache)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, seed, asked in _runs(request, cache):
        console.say(f"{name}, seed {seed}")
        results.setdefault(name, []).append(fit(asked, out / name.replace(" ", "-") / f"seed-{seed}", machine))
    first = results[CACHE][0]
    comparison = Comparison(
        first["metric"],
        {name: _compared(first["metric"], some, sizes[name], name != LOOP) for name, some in results.items()},
        {
            name: scores[first["metric"]]
            for name, scores in (first.get("baselines") or {}).items()
            if first["metric"] in scores
        },
    )
    write_json(out / RESULTS, comparison.record())
    return comparison


def _runs(request: CompareRequest, cache: Cache) -> Iterator[tuple[str, int, FitRequest]]:
    """Runs in order, seed by seed, so that what is cut off can be compared; the teacher in the loop once."""
    recipes = _recipes(request)
    for seed in range(request.num_seeds):
        for name, recipe in recipes.items():
            asked = FitRequest(
                request.cache, request.student, recipe, (request.eval_data,), request.layout, request.metric, seed=seed
            )
            yield name, seed, asked
    if request.teacher is not None:
        rows = len(request.layout.read(request.eval_data).texts)
        source = FromTeacher(request.teacher, request.eval_data, cache.manifest.request.spec)
        stages = [
            stage.model_copy(update={"epochs": min(1.0, LOOP_ROWS / rows), "epochs_by_task": {}, "select": "last"})
            for stage in recipes[CACHE].stages
        ]
        recipe = recipes[CACHE].model_copy(update={"stages": tuple(stages)})
        asked = FitRequest(source, request.student, recipe, (request.eval_data,), request.layout, request.metric)
        yield LOOP, 0, asked


def _recipes(request: CompareRequest) -> dict[str, Recipe]:
    """The recipe of each side; labels and logits are learned from for as many epochs as the cache is.

    Raises:
        SpecError: a change is of a stage that no side has.
    """
    check_changes(request.changes, [request.recipe], "side")
    task = request.layout.task_name
    beside = recipes_beside(request.recipe, request.changes, task)
    return {**beside, CACHE: recipe_for(request.recipe, request.changes, task)}


def _num_bytes(cache: Cache) -> dict[str, int]:
    """Bytes of the knowledge of each side; of the teacher in the loop those of all its hidden states in float32."""
    teacher = cache.manifest.request.teacher
    kinds = {name: cache.num_bytes(name) for name in cache.fields if name != INPUTS}
    inputs = cache.fields[INPUTS]
    assert isinstance(inputs, InputsField)
    tokens = cache.manifest.shards[INPUTS].array_bytes["input_ids"] // (2 if inputs.id_dtype == "uint16" else 4)
    whole = tokens * teacher.width * (teacher.num_layers + 1) * 4
    return {LABELS: 0, SOFT: kinds.get(LOGITS, 0), CACHE: sum(kinds.values()), LOOP: whole}


def _compared(metric: str, results: Sequence[dict[str, Any]], num_bytes: int, has_learned: bool) -> Compared:
    stages = [stage for result in results for stage in result["stages"] if stage["seconds_per_step"]]
    steps = sum(stage["steps"] for stage in stages)
    step_s = sum(stage["steps"] * stage["seconds_per_step"] for stage in stages) / max(steps, 1)
    if not has_learned:
        return Compared((), None, step_s, num_bytes)
    error = (results[0].get("standard_errors") or {}).get(metric)
    return Compared(tuple(result["scores"][metric] for result in results), error, step_s, num_bytes)
