"""Answers from the flags of ``hsktrain predict``; needs torch, so the command imports it when it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from hskcache import console, runtime
from hskcache.cache import Cache, LogitsField
from hskcache.classes import class_names, is_other, problem_of, require_one_score, require_outputs
from hskcache.counted import counted
from hskcache.cut import tell_beyond, tell_cut
from hskcache.disk import writing_to
from hskcache.encoder import trained_length
from hskcache.errors import DataError, MismatchError, SpecError, TeacherError
from hskcache.inference import predict
from hskcache.model.adapter import tokenizer_of
from hskcache.ragged import ragged_places
from hskcache.store.fields import LOGITS
from hskcache.store.files import write_atomic
from hskcache.text import Examples, load_tokenizer, tokenized
from hskcache.text.class_values import separator_for
from hskcache.text.first_pieces import FirstPieces
from hskcache.text.layout import Layout
from hskcache.text.remembered import of_model
from hskcache.text.rows import has_hub_layout
from hskcache.text.tasks import task_names
from hskcache.text.tokenize import reach_of
from trainer.cli import options
from trainer.fidelity import beside, fidelity, words_of
from trainer.loading.choice import parse_choice
from trainer.predictions import Predictions, require_cells, require_separator, written
from trainer.source.gate import check_tokenizer
from trainer.source.knowledge import Knowledge, cached_knowledge
from trainer.source.source import opened_cache
from trainer.student.create import load_classifier
from trainer.student.head import keep_meaning
from trainer.student.vocabulary import own_vocabulary

if TYPE_CHECKING:
    from trainer.cli.predict import PredictRequest


def of_data(request: "PredictRequest", data: str) -> None:
    """Answer the rows of a data file."""
    model, out = request.model, request.out
    assert out is not None
    memory = of_model(model)
    columns = _as_tested(replace(request.layout, label="").recalling(memory, data), data)
    if request.glue and (columns.task is None or columns.task.name not in task_names()):
        raise SpecError("--glue writes the labels of one of GLUE's tasks; say which with --task")
    columns.check(data)
    max_length = request.max_length or memory.length(columns.task)
    device = runtime.resolve_device(request.device)
    with runtime.quiet():
        tokenizer = load_tokenizer(tokenizer_of(model))
        classifier = load_classifier(model)
    # Rows without labels do not tell what classes are called; the user may.
    examples = replace(columns, classes=None).read_for(model, classifier.config, data)
    names = columns.names_of(examples.label_names, examples.problem) or ()
    is_multilabel = examples.problem == "multilabel"
    require_cells(names, _suffix(out))
    if is_multilabel:
        require_separator(names, _suffix(out))
    rows = tokenized(examples, tokenizer, max_length)
    tell_cut(rows.cut, len(rows), data, reach_of(classifier, model, max_length))
    tell_beyond(int(rows.lengths.max(initial=0)), trained_length(classifier), data, model)
    pad = classifier.config.pad_token_id or 0
    with console.advancing("predict", len(rows)) as advance:
        logits_NC = predict(classifier.to(device), rows, pad_token_id=pad, bf16=request.bf16, on_rows=advance)
    _require_finite(model, logits_NC)
    predictions = Predictions(_places(examples), logits_NC, names, is_multilabel=is_multilabel)
    if rows.words is not None:
        assert examples.words is not None
        require_cells([word for words in examples.words for word in words], _suffix(out), "the word")
        predictions = _of_words(predictions, rows.words, examples.words)
    _write(_for_glue(predictions, examples) if request.glue else predictions.columns(), out, names)
    _tell(predictions, out, request.as_json, {"model": model, "data": data, "max_length": max_length})


def of_cache(request: "PredictRequest", source: str) -> None:
    """Answer the rows of a cache and compare with the teacher's logits there."""
    model, out, cache = request.model, request.out, opened_cache(source)
    field = request.field or LOGITS
    knowledge = _knowledge(cache, field)
    device = runtime.resolve_device(request.device)
    with runtime.quiet():
        vocabulary = load_tokenizer(str(cache.tokenizer_path)).get_vocab()
        if (theirs := own_vocabulary(model)) is not None:
            check_tokenizer(knowledge, theirs, vocabulary, model)
        classifier = _classifier(model, knowledge).to(device)
    is_multilabel = knowledge.request.data.problem == "multilabel"
    if out is not None:
        require_cells(knowledge.label_names, _suffix(out))
        if is_multilabel:
            require_separator(knowledge.label_names, _suffix(out))
    with console.advancing("predict", cache.num_rows) as advance:
        sides = beside(classifier, cache, field, request.bf16, advance)
    _require_finite(model, sides[0])
    index_N, words = np.arange(cache.num_rows), None
    if (counts := words_of(cache)) is not None:
        index_N, words = np.repeat(index_N, counts), {"word": ragged_places(np.zeros_like(counts), counts).tolist()}
    predictions = Predictions(index_N, sides[0], knowledge.label_names, sides[1], words, is_multilabel)
    if out is not None:
        _write(predictions.columns(), out, knowledge.label_names)
    facts = {"model": model, "cache": source, "cache_id": cache.id, "field": field}
    _tell(predictions, out, request.as_json, facts)


def _knowledge(cache: Cache, field: str) -> Knowledge:
    """Knowledge of a cache with a field of logits. Raises MismatchError without it, SpecError if it is none."""
    knowledge = cached_knowledge(cache, parse_choice(cache, [field]))
    if not knowledge.has_task or not isinstance(cache.fields.get(field), LogitsField):
        held = "no logits there" if knowledge.has_task else knowledge.rows
        raise SpecError(f"--field {field}: {knowledge.where} holds {held}; give the name of a field of logits")
    return knowledge


def _classifier(model: str, knowledge: Knowledge) -> PreTrainedModel:
    """A model whose classes stand in the order of the cached logits. Raises MismatchError if it answers for others."""
    classifier = load_classifier(model)
    require_one_score(model, classifier.config)
    asked = knowledge.request.data.problem
    if is_other(problem_of(classifier.config), asked):
        raise MismatchError(
            f"{model} has the problem_type {classifier.config.problem_type} and {knowledge.where} holds rows of a "
            f"{asked} task; give a student of this task"
        )
    require_outputs(model, classifier.config, knowledge.where, knowledge.num_labels, "a student of this task")
    if knowledge.label_names:
        keep_meaning(classifier, model, (class_names(classifier.config), knowledge.label_names))
    return classifier


def _as_tested(layout: Layout, source: str) -> Layout:
    """The layout of test rows: GLUE hands out CoLA's with a header, where its other files have numbers alone."""
    task = layout.task
    if (
        task is None
        or task.hub is None
        or task.problem == "tagging"
        or layout.text is not None
        or isinstance(task.text, str)
    ):
        return layout
    if has_hub_layout(source):
        return layout
    named = replace(layout, text=task.hub.text, text_pair=task.hub.text_pair or "", header=True)
    try:
        named.check(source)
    except DataError:
        return layout
    return named


def _places(examples: Examples) -> NDArray[np.int64]:
    """The place of each row in its source, counted from 0; rows that were left out have one, too."""
    numbers = np.array(examples.reading.numbers, np.int64)
    left_out = np.array([number for number, _ in examples.reading.bad], np.int64)
    return np.searchsorted(np.sort(np.concatenate([numbers, left_out])), numbers).astype(np.int64)


def _of_words(predictions: Predictions, words: FirstPieces, texts: Sequence[Sequence[str]]) -> Predictions:
    """The answers of words, out of those of first pieces, as answers of all words: NaN of those that have none."""
    counts = words.num_words_N
    logits_NC = np.full((int(counts.sum()), predictions.logits_NC.shape[1]), np.nan, np.float32)
    logits_NC[words.among_words()] = predictions.logits_NC
    numbers = ragged_places(np.zeros_like(counts), counts).tolist()
    columns = {"word": numbers, "text": [word for row in texts for word in row]}
    return replace(predictions, index_N=np.repeat(predictions.index_N, counts), logits_NC=logits_NC, words=columns)


def _for_glue(predictions: Predictions, examples: Examples) -> dict[str, list[Any]]:
    """The table for GLUE's server, which wants an answer for rows that cannot be used, too."""
    num_left_out = len(examples.reading.bad)
    if num_left_out:
        answer = "most frequent answer" if predictions.label_names else "mean score"
        console.say(f"rows that could not be used: {num_left_out:,}; GLUE wants an answer for each, the {answer} is it")
    return predictions.glue_columns(len(examples) + num_left_out)


def _suffix(out: Path) -> str:
    return ".tsv" if str(out) == "-" else out.suffix.lower()


def _require_finite(model: str, logits_NC: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits_NC).all(axis=1))
    if len(bad):
        raise TeacherError(
            f"{model} answers {counted(len(bad), 'row')} with values that are not finite, first row {bad[0]} "
            "(counted from 0); "
            "give another checkpoint, or leave out --bf16"
        )


def _write(columns: Mapping[str, list[Any]], out: Path, names: Sequence[str]) -> None:
    text = written(dict(columns), _suffix(out), separator_for(names))
    if str(out) == "-":
        click.echo(text, nl=False)
        return
    with writing_to(out, "the beginning"):
        write_atomic(out, text.encode())


def _tell(predictions: Predictions, out: Path | None, as_json: bool, facts: Mapping[str, Any]) -> None:
    num_rows, summary = len(predictions.index_N), predictions.summary()
    teacher_NC = predictions.teacher_NC
    alike = None if teacher_NC is None else fidelity(predictions.logits_NC, teacher_NC, predictions.is_multilabel)
    if as_json:
        place = {"out": None if out is None else str(out)}
        compared = {} if alike is None else {"fidelity": alike}
        number = "num_rows" if predictions.words is None else "num_words"
        console.print_json({**facts, **place, number: num_rows, **summary, **compared})
    elif alike:
        if out is not None and str(out) == "-":
            console.say(", ".join(f"{name} {value:.4f}" for name, value in alike.items()))
        else:
            options.print_scores({facts["cache"]: alike})
    where = "" if out is None or str(out) == "-" else f"{out}: "
    if "counts" in summary:
        told = [f"{count:,} of {name}" for name, count in summary["counts"].items()]
    else:
        told = [f"{name} {value:.4g}" for name, value in summary.items()]
    unit = "row" if predictions.words is None else "word"
    console.say(f"{where}{counted(num_rows, unit)}; {', '.join(told)}")
