"""Preparation of a study: its points, and whether the cache can serve every one; nothing is written or trained."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel

from hskcache import console
from hskcache.cache import Cache
from hskcache.counted import counted
from hskcache.errors import CacheError, MismatchError
from hskcache.store.kinds.embedding import Embeddings
from trainer.loading.choice import parse_choice
from trainer.loading.loader import first_shards
from trainer.run.prepare import prepare_fit
from trainer.run.request import Machine
from trainer.run.scorers import scorer_of
from trainer.run.scoring import NoScorer
from trainer.source.gate import check_recipe, check_student
from trainer.source.knowledge import cached_knowledge
from trainer.source.source import opened_cache
from trainer.study.cells import CELLS, Making, StudyCell, StudyScoring
from trainer.study.outcome import Study
from trainer.study.plan import StudyPlan
from trainer.study.points import Basis, Point, baseline_of, labels_point, points_of
from trainer.study.request import StudyRequest
from trainer.study.size import KnowledgeSizes


def prepared(request: StudyRequest, out: Path, machine: Machine) -> Study:
    """The study with the cells of all points.

    Args:
        request: of the study.
        out: its folder; nothing is written.
        machine: how to compute.

    Raises:
        CacheError: something of it is missing or does not fit; of points that the cache cannot serve a list is said
            before, unless they are to be left out.
    """
    cache = opened_cache(request.cache)
    first_shards(cache, request.num_rows)
    request = replace(request, plan=_fitting(request.plan, cache))
    scored, num_eval_rows = _scored(request, cache)
    task = scored.layout.task
    basis = Basis(request.plan, cache, request.student, request.changes, task.name if task else None, request.num_rows)
    points, labels = points_of(basis), labels_point(basis)
    baseline = baseline_of(request.plan, points, labels)
    making = Making(cache, scored, machine, request.cells or out / CELLS)
    cells = _served(making, [*([labels] if labels else []), *points], request)
    if baseline not in cells:
        raise MismatchError(
            f"the baseline {baseline!r} is among the points that the cache cannot serve; give another with --baseline"
        )
    served_labels = labels if labels is not None and labels.name in cells else None
    seeds = range(request.plan.seeds)
    return Study(
        request.plan.name, scored.metric, cells, served_labels, baseline, seeds, num_eval_rows, KnowledgeSizes(cache)
    )


def _fitting(plan: StudyPlan, cache: Cache) -> StudyPlan:
    """The plan for a cache; without a task no gold labels are learned from, and a recipe that is not named embeds."""
    if cached_knowledge(cache).has_task:
        return plan
    own = {} if "recipe" in plan.model_fields_set else {"recipe": Embeddings.name}
    return plan.model_copy(update={**own, "labels": False})


def _scored(request: StudyRequest, cache: Cache) -> tuple[StudyScoring, int]:
    """Rows that score every cell, and how many they are."""
    knowledge, layout = cached_knowledge(cache), replace(request.layout, most_rows=request.eval_rows)
    scorer = scorer_of(knowledge, (Embeddings.name,), layout, request.eval_data, request.metric)
    if isinstance(scorer, NoScorer):
        raise MismatchError(
            f"{knowledge.where} holds {knowledge.rows}, and a study compares scores; give a cache of a task or of "
            "embeddings"
        )
    examples, metrics = scorer.read(request.eval_data)
    metric = next(iter(metrics))
    return StudyScoring(request.eval_data, scorer.layout, metric, examples.fingerprint), len(examples)


def _served(making: Making, points: Sequence[Point], request: StudyRequest) -> Mapping[str, Sequence[StudyCell]]:
    """The cells of the points that the cache can serve, by name.

    Raises:
        MismatchError: it cannot serve some, and these are not to be left out.
    """
    cells: dict[str, Sequence[StudyCell]] = {}
    reasons: dict[str, str] = {}
    students: dict[str, PreTrainedModel] = {}
    for point in points:
        try:
            own = making.cells(point, range(request.plan.seeds))
            if not all(cell.is_done for cell in own):
                _check(own[0], making, students)
            cells[point.name] = own
        except CacheError as error:
            reasons[point.name] = str(error)
    if not reasons:
        return cells
    for name, reason in reasons.items():
        console.say(f"{name}: {reason}")
    count = f"{len(reasons)} of {counted(len(points), 'point')}"
    if not request.skips_missing or not cells:
        raise MismatchError(
            f"{count} of the study {request.plan.name} cannot be run from {making.cache.name}, for the reasons above; "
            "nothing was run: build a cache that keeps more, or leave them out"
            + (" with --skip-missing" if cells else "")
        )
    console.say(f"{count} are left out")
    return cells


def _check(cell: StudyCell, making: Making, students: dict[str, PreTrainedModel]) -> None:
    """Raise CacheError unless a cell can be run; ``students``: those that are known to read the rows, by source."""
    point = cell.point
    if point.student not in students:
        students[point.student] = prepare_fit(cell.request, making.machine, tells=False).student
        return
    seen = making.cache.view(point.view)
    first_shards(seen, point.num_rows)
    knowledge = cached_knowledge(seen, parse_choice(seen, point.fields))
    check_recipe(knowledge, point.recipe, making.machine.slices)
    check_student(knowledge, point.recipe, students[point.student], point.layer_map)
