"""Preparation of a run from what it is asked for with: everything is opened and fits, nothing is written."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache import runtime
from hskcache.counted import counted
from hskcache.cut import tell_beyond, tell_cut
from hskcache.encoder import trained_length, weights_digest
from hskcache.errors import SpecError
from hskcache.inference import check_fit
from hskcache.recall import of_cache, tell_cut_of
from hskcache.remarks import remark
from hskcache.store.fields import KINDS, LOGITS
from hskcache.store.kinds.embedding import Embeddings
from hskcache.text import load_tokenizer
from hskcache.text.tokenize import reach_of
from hskcache.views import View, parse_view
from trainer.run.card import Account, lines_of
from trainer.run.fit import Fit
from trainer.run.learner import Projecting, left_behind, projections_of, take_up
from trainer.run.request import FitRequest, FromCache, Machine
from trainer.run.scorers import scorer_of
from trainer.run.scoring import NO_EVALUATION, NOTHING, Scoring
from trainer.source import projections
from trainer.source.gate import check_recipe, check_student, check_template, check_tokenizer
from trainer.source.knowledge import Knowledge
from trainer.source.reduced import Directions, check_dims, principal_directions, reduced_source
from trainer.source.source import Local, Source, cached_source, in_tokens_of, opened_cache
from trainer.student.causal import LanguageInterface, create_causal
from trainer.student.create import create_encoder, create_student
from trainer.student.origin import has_no_weights
from trainer.student.packing import check_packing
from trainer.student.recomputation import recompute_layers
from trainer.student.token_types import token_types_after
from trainer.student.vocabulary import own_tokenizer

# Of a recipe, by whose task the epochs are chosen already.
_RESOLVED: Any = {"stages": {"__all__": {"epochs_by_task"}}}
_KEEP = "a cache built with --max-length"


def prepare_fit(request: FitRequest, machine: Machine, tells: bool = True) -> Fit:
    """Open what there is to learn from, create the student and see that everything fits; nothing is written.

    ``tells``: whether to say which rows were cut. Raises CacheError for whichever of them is at fault.
    """
    source, directions = _reduced(request, _source(request, machine), tells)
    knowledge = source.knowledge
    check_recipe(knowledge, request.recipe, machine.slices)
    memory, max_length = of_cache(knowledge.where, knowledge.request), knowledge.request.spec.max_length
    data, others = next(iter(request.eval_data), None), request.eval_data[1:]
    scorer = scorer_of(knowledge, request.recipe.kinds, request.layout, data, request.metric)
    if data is None:
        scorer.check_without(request.recipe)
    found = None if data is None else scorer.read(data)
    further = {str(rows): scorer.read(rows) for rows in others}
    with runtime.quiet():
        tokenizer = load_tokenizer(source.tokenizer)
        student = _student(request, knowledge, tokenizer)
        if machine.pack is not None:
            check_packing(student, request.origin)
        if machine.gradient_checkpointing:
            recompute_layers(student, request.origin)
        projecting = _projecting(request, knowledge, student, tells)
    if directions is not None and directions.basis_VN.shape[0] == student.config.hidden_size:
        # As wide as the teacher: what leads its vectors on leads the student's, to begin with.
        initial = projections.linear(directions.basis_VN.T.contiguous(), torch.zeros(directions.basis_VN.shape[1]))
        projecting = replace(projecting, initial={projections.OF_ROWS: initial})
    reach = reach_of(student, request.origin, max_length, _KEEP)
    if tells:
        tell_cut_of(knowledge.request, knowledge.where, reach)

    def scoring_on(found: Any, data: str) -> Scoring:
        rows = scorer.tokenized(found, tokenizer, max_length)
        check_fit(student, rows)
        if tells:
            tell_cut(rows.cut, len(rows), data, reach)
            tell_beyond(int(rows.lengths.max(initial=0)), trained_length(student), data, request.origin)
        return scorer.scoring(found, rows, source.teacher, machine.bf16)

    scoring = NOTHING if found is None else scoring_on(found, str(data))
    recipe = request.recipe.for_task(memory.task if (task := scorer.layout.task) is None else task.name)
    recipe = recipe if found is None else scorer.recipe(recipe)
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
        rows=replace(scorer.remembered(found, memory, max_length), token_types=types),
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
        learned = cached_source(seen, asked.residency, asked.num_rows, asked.fields, pack=machine.pack)
        return replace(learned, cache_id=whole.id)
    if machine.pack is not None:
        raise SpecError(f"--pack {machine.pack} lays out rows of a cache; leave it out with --teacher")
    # The rows of an embedder's student, or a language model's, need not be scored: its recipe keeps the end.
    if not request.eval_data and asked.spec.embedding is None and asked.spec.vocabulary is None:
        raise SpecError(NO_EVALUATION)
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


def _student(request: FitRequest, knowledge: Knowledge, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The student at its start, once it is known to fit what there is to learn from."""
    vocabulary = tokenizer.get_vocab()
    if knowledge.has_language:
        ids = LanguageInterface.of(tokenizer, knowledge.request.teacher.vocab_size)
        student = create_causal(request.student, ids, request.seed)
    else:
        create = create_student if knowledge.has_task else create_encoder
        student = create(request.student, knowledge.interface(1 + max(vocabulary.values())), request.seed)
    check_student(knowledge, request.recipe, student, request.layer_map)
    if (own := own_tokenizer(request.student)) is not None:
        check_tokenizer(knowledge, own.get_vocab(), vocabulary, request.origin)
        check_template(knowledge, own.chat_template, tokenizer.chat_template, request.origin)
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
