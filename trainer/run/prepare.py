"""Preparation of a run from what it is asked for with: everything is opened and fits, nothing is written."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from hskcache import runtime
from hskcache.counted import counted
from hskcache.cut import tell_beyond, tell_cut
from hskcache.encoder import trained_length, weights_digest
from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.evaluation import Metric, check_labels, evaluate, metrics_for
from hskcache.inference import check_fit
from hskcache.recall import of_cache, tell_cut_of
from hskcache.remarks import remark
from hskcache.store.fields import KINDS, LOGITS, EmbeddingField
from hskcache.store.kinds.embedding import Embeddings
from hskcache.text import Examples, load_tokenizer, tokenized
from hskcache.text.layout import Layout
from hskcache.text.memory import InMemory
from hskcache.text.remembered import of_examples
from hskcache.text.singles import prompted, singles
from hskcache.text.tokenize import reach_of
from hskcache.views import View, parse_view
from trainer.recipe import Recipe
from trainer.run.baselines import Baselines, baselines_of
from trainer.run.card import Account, lines_of
from trainer.run.distill import Score
from trainer.run.fit import Fit
from trainer.run.learner import Projecting, left_behind, projections_of, take_up
from trainer.run.request import FitRequest, FromCache, Machine
from trainer.similarity import PairScore, SentenceWay, pair_metrics, read_scored_pairs
from trainer.source import projections
from trainer.source.gate import check_recipe, check_student, check_tokenizer
from trainer.source.knowledge import Knowledge
from trainer.source.reduced import Directions, check_dims, principal_directions, reduced_source
from trainer.source.source import Local, Source, cached_source, in_tokens_of, opened_cache
from trainer.student.create import create_encoder, create_student
from trainer.student.origin import has_no_weights
from trainer.student.token_types import token_types_after
from trainer.student.vocabulary import own_vocabulary

# Of a recipe, by whose task the epochs are chosen already.
_RESOLVED: Any = {"stages": {"__all__": {"epochs_by_task"}}}
_KEEP = "a cache built with --max-length"
_NO_EVALUATION = "give --eval-data FILE: labelled rows that score the student and pick its best epoch"


def _require_evaluation(recipe: Recipe) -> None:
    """Raise SpecError for a recipe that keeps the best evaluation of a stage, where nothing is to evaluate on."""
    if best := [f"--set {stage.name}.select=last" for stage in recipe.stages if stage.select == "best"]:
        raise SpecError(f"{_NO_EVALUATION}; where there are none, {' '.join(best)} keeps the end and scores nothing")


class Scoring(NamedTuple):
    """Scoring of a student; of a corpus without a task there is nothing to score.

    ``score``: the task's metrics of a student. ``metric``: the one that picks the best epoch; None without a task.
    ``fingerprint``: of the rows it is scored on; None without a task. ``baselines``: makes what others have on them.
    """

    score: Score
    metric: str | None
    fingerprint: str | None
    baselines: Callable[[], Baselines]


def prepare_fit(request: FitRequest, machine: Machine, tells: bool = True) -> Fit:
    """Open what there is to learn from, create the student and see that everything fits; nothing is written.

    ``tells``: whether to say which rows were cut. Raises CacheError for whichever of them is at fault.
    """
    source, directions = _reduced(request, _source(request, machine), tells)
    knowledge = source.knowledge
    embedded = knowledge.embedded(request.recipe.kinds)
    check_recipe(knowledge, request.recipe, machine.slices)
    memory, max_length = of_cache(knowledge.where, knowledge.request), knowledge.request.spec.max_length
    data, others = next(iter(request.eval_data), None), request.eval_data[1:]
    # The columns that the user named, or those that the rows of the knowledge were read with; not of an embedder: what
    # it learned from are texts, and what scores it are pairs.
    layout = request.layout
    if data is not None and embedded is None:
        layout = layout.recalling(memory, data, labelled=True)
    if data is None and (knowledge.has_task or embedded is not None):
        _require_evaluation(request.recipe)
        examples = None
    else:
        examples = evaluation_rows(data, layout, knowledge, embedded)
    further = {str(rows): evaluation_rows(rows, layout, knowledge, embedded) for rows in others}
    metrics = _metrics(request.metric, layout, knowledge, None if embedded is None else examples)
    with runtime.quiet():
        tokenizer = load_tokenizer(source.tokenizer)
        student = _student(request, knowledge, tokenizer.get_vocab())
        projecting = _projecting(request, knowledge, student, tells)
    if directions is not None and directions.basis_VN.shape[0] == student.config.hidden_size:
        # As wide as the teacher: what leads its vectors on leads the student's, to begin with.
        initial = projections.linear(directions.basis_VN.T.contiguous(), torch.zeros(directions.basis_VN.shape[1]))
        projecting = replace(projecting, initial={projections.OF_ROWS: initial})
    reach = reach_of(student, request.origin, max_length, _KEEP)
    if tells:
        tell_cut_of(knowledge.request, knowledge.where, reach)

    def scoring_on(examples: Examples | None, data: str) -> Scoring:
        if examples is None:
            return Scoring(lambda _student: {}, None, None, Baselines)
        read = examples if embedded is None else prompted(singles(examples), knowledge.request.spec)
        rows = tokenized(read, tokenizer, max_length)
        check_fit(student, rows)
        if tells:
            tell_cut(rows.cut, len(rows), data, reach)
            tell_beyond(int(rows.lengths.max(initial=0)), trained_length(student), data, request.origin)
        if embedded is not None:
            way = SentenceWay(embedded.pooling, None, embedded.is_normalized)
            pairs = PairScore(examples, rows, pair_metrics(examples, layout.task, request.metric), way, machine.bf16)
            return Scoring(pairs, next(iter(pairs.metrics)), examples.fingerprint, Baselines)
        score = partial(evaluate, examples=examples, rows=rows, metrics=metrics, bf16=machine.bf16)
        live = None if source.teacher is None else partial(score, source.teacher)
        beside = partial(baselines_of, knowledge, examples, metrics, live)
        return Scoring(score, next(iter(metrics)), examples.fingerprint, beside)

    scoring = scoring_on(examples, str(data))
    recipe = request.recipe.for_task(memory.task if (task := layout.task) is None else task.name)
    if embedded is not None and examples is not None:
        recipe = recipe.scored()
    types = token_types_after(request.student, knowledge.has_task, knowledge.reads_pairs)
    return Fit(
        source=source,
        recipe=recipe,
        student=student,
        tokenizer=tokenizer,
        score=scoring.score,
        metric=scoring.metric,
        seed=request.seed,
        layer_map=request.layer_map,
        run={"student": weights_digest(student), "eval": scoring.fingerprint, **_seen(request)},
        rows=replace(
            memory if examples is None or embedded else of_examples(examples, max_length, memory.cut), token_types=types
        ),
        origin=request.student,
        called=request.called,
        projecting=projecting,
        others={name: scoring_on(rows, name).score for name, rows in further.items()},
        baselines=scoring.baselines,
        account=partial(_account, replace(request, recipe=recipe), source),
        tells=tells,
    )


def _account(request: FitRequest, source: Source) -> Account:
    """Origin of the student for its card."""
    knowledge, asked, data = source.knowledge, request.source, next(map(str, request.eval_data), None)
    learned = [kind for kind in KINDS if any(kind in stage.losses.kinds for stage in request.recipe.stages)]
    names = [name for kind in learned for name in knowledge.choice.of(kind) or (kind,)]
    chosen = {name: getattr(request, name) for name in ("seed", "layer_map", "projection", "student_dims")}
    settings = {"recipe": request.recipe.model_dump(mode="json", exclude_none=True, exclude=_RESOLVED)} | {
        name: value for name, value in chosen.items() if value is not None
    }
    view = asked.view if isinstance(asked, FromCache) else ""
    taught = knowledge.request_for(LOGITS)
    lines = lines_of(taught, source.cache_id, names, view)
    if isinstance(asked, FromCache) and asked.tokenizer is not None:
        lines.append("- tokens: of the student's own tokenizer, made of the texts that the cache keeps")
    if isinstance(asked, FromCache) and asked.num_rows is not None:
        lines.append(f"- learned from: the first {counted(asked.num_rows, 'row')} alone")
    random_weights = has_no_weights(request.student)
    return Account(request.origin, random_weights, taught.teacher, lines, settings, data)


def _seen(request: FitRequest) -> dict[str, str]:
    """The view of the cache as a run keeps it; nothing where all is seen, as in runs from before there were views."""
    view = parse_view(request.source.view if isinstance(request.source, FromCache) else "")
    return {} if view == View() else {"cache_view": str(view)}


def _source(request: FitRequest, machine: Machine) -> Source:
    asked = request.source
    if isinstance(asked, FromCache):
        whole = opened_cache(asked.cache, Local(asked.local_dir, asked.local_bytes))
        seen = whole.view(asked.view)
        if asked.tokenizer is not None:
            seen = in_tokens_of(asked.tokenizer, seen, request.recipe)
        learned = cached_source(seen, asked.residency, asked.num_rows, asked.fields)
        return replace(learned, cache_id=whole.id)
    # The rows of an embedder's student need not be scored: its recipe keeps the end.
    if not request.eval_data and asked.spec.embedding is None:
        raise SpecError(_NO_EVALUATION)
    for source in (asked.data, *request.eval_data[:1]):
        if request.layout.names_columns:
            request.layout.check(source)
    from trainer.source.live import live_source

    return live_source(asked.teacher, asked.data, request.layout, asked.spec, runtime.own_device(machine.device))


def _reduced(request: FitRequest, source: Source, tells: bool) -> tuple[Source, Directions | None]:
    """The source with embeddings of as many values as the student is to give, and how it comes to these.

    Raises SpecError if there are no such, or none in a cache.
    """
    num_dims, knowledge, asked = request.student_dims, source.knowledge, request.source
    if num_dims is None:
        return source, None
    field = knowledge.embedded(request.recipe.kinds)
    check_dims(num_dims, field, knowledge.where)
    if not isinstance(asked, FromCache):
        raise SpecError(f"--student-dims {num_dims} follows from the vectors of a cache; give --cache")
    if field is None or num_dims == field.num_dims:
        return source, None
    cache = opened_cache(asked.cache, Local(asked.local_dir, asked.local_bytes)).view(asked.view)
    name = next(iter(knowledge.choice.of(Embeddings.name)), Embeddings.name)
    found = principal_directions(cache, name, num_dims, asked.num_rows)
    if tells:
        remark(
            f"the student gives {num_dims} values, along the principal directions of the teacher's vectors, which hold "
            f"{100 * found.share:.1f} % of their squares"
        )
    return reduced_source(source, found), found


def _student(request: FitRequest, knowledge: Knowledge, vocabulary: Mapping[str, int]) -> PreTrainedModel:
    """The student at its start, once it is known to fit what there is to learn from."""
    create = create_student if knowledge.has_task else create_encoder
    student = create(request.student, knowledge.interface(1 + max(vocabulary.values())), request.seed)
    check_student(knowledge, request.recipe, student, request.layer_map)
    if (theirs := own_vocabulary(request.student)) is not None:
        check_tokenizer(knowledge, theirs, vocabulary, request.origin)
    return student


def _projecting(request: FitRequest, knowledge: Knowledge, student: PreTrainedModel, tells: bool) -> Projecting:
    name, recipe, fresh = request.student, request.recipe, request.projection == "fresh"
    matches = knowledge.matches_for(int(student.config.num_hidden_layers), request.layer_map)
    is_projected = any(stage.losses.projected for stage in recipe.stages)
    held = projections_of(name) if is_projected and not fresh else {}
    taken = take_up(name, held, recipe, matches, student)
    if not taken and tells and (line := left_behind(name, held, recipe, matches, student)) is not None:
        remark(line)
    return Projecting(taken, fresh, exported=request.exports_projection)


def _metrics(
    chosen: str | None, layout: Layout, knowledge: Knowledge, pairs: Examples | None = None
) -> dict[str, Metric]:
    """Metrics of the task, the one that was chosen first; none of a corpus.

    ``pairs``: that score an embedder; None: there are none.
    """
    if pairs is not None:
        return pair_metrics(pairs, layout.task, chosen)
    if not knowledge.has_task:
        if chosen is not None:
            raise SpecError(
                f"--metric {chosen} scores a classifier, and {knowledge.where} holds a corpus; leave it out"
            )
        return {}
    return metrics_for(knowledge.request.data.problem, layout.task.metrics if layout.task else None, chosen)


def evaluation_rows(
    data: str | InMemory | None, layout: Layout, knowledge: Knowledge, embedded: EmbeddingField | None = None
) -> Examples | None:
    """Labelled rows, their classes in the order of the knowledge; None for a corpus, which has nothing to score.

    ``embedded``: embeddings that a student learns to give, which pairs score; None where it does not.
    """
    if embedded is not None and data is not None:
        return read_scored_pairs(data, layout)
    if not knowledge.has_task:
        if data is not None:
            raise SpecError(
                f"--eval-data {data} scores a classifier, and {knowledge.where} holds {knowledge.rows}; leave it out"
            )
        if not layout.is_empty:
            raise SpecError(f"{knowledge.where} holds {knowledge.rows}; leave out --task, --text and --label")
        return None
    if data is None:
        raise SpecError(_NO_EVALUATION)
    task = layout.task
    if task is not None and (1 if task.problem == "regression" else len(task.labels)) != knowledge.num_labels:
        raise MismatchError(
            f"--task {task.name} has {counted(len(task.labels) or 1, 'output')} and {knowledge.where} has "
            f"{knowledge.num_labels} "
            "(1 is a score); evaluate on the task that the teacher was trained for"
        )
    examples = layout.of_labelled_rows().read(data, knowledge.label_names, knowledge.request.data.problem)
    examples.require_gold("to score the student on")
    if examples.labels is None:
        raise DataError(f"--eval-data {data} is read without labels to score the student on; give --task or --label")
    check_labels(examples)
    return examples
