"""Scores of causal language models from the flags of ``hsktrain evaluate``; needs torch."""

from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel

from hskcache import console, runtime
from hskcache.counted import counted
from hskcache.cut import tell_beyond, tell_cut
from hskcache.encoder import trained_length
from hskcache.errors import MismatchError, SpecError
from hskcache.model.adapter import tokenizer_of
from hskcache.model.causal import load_causal
from hskcache.store.kinds.vocabulary import NextTokens, VocabularyField
from hskcache.text import load_tokenizer
from hskcache.text.language.rows import LanguageRows, longest_row
from hskcache.text.language.sources import check_language, read_language
from hskcache.text.remembered import of_model
from hskcache.text.tokenize import reach_of
from trainer.cli import options
from trainer.fidelity import said_beside
from trainer.likelihood import answers_of, scores_of
from trainer.source.gate import check_tokenizer
from trainer.source.knowledge import cached_knowledge
from trainer.source.source import opened_cache
from trainer.student.vocabulary import own_vocabulary

if TYPE_CHECKING:
    from trainer.cli.evaluate import EvaluateRequest


def evaluated(request: "EvaluateRequest", as_json: bool) -> None:
    """Print how well a causal language model says some texts, or the rows of a cache."""
    texts = [*([request.corpus] if request.corpus is not None else []), *request.sources]
    if (request.cache is None) == (not texts):
        raise SpecError(
            f"{request.model} is a causal language model: give the texts that it is to say with --corpus FILE, or "
            "--data FILE with --text COLUMN; or --cache PATH_OR_URL, whose rows it is to say"
        )
    if request.stride is not None:
        raise SpecError(f"--stride {request.stride} is for classifiers; long texts are read in windows anyway")
    results = _of_texts(request, texts) if request.cache is None else [_of_cache(request, request.cache)]
    if as_json:
        plain = results[0] if len(results) == 1 else {"evaluations": results}
        console.print_json({"model": request.model, **plain})
        return
    options.print_scores({str(one.get("data", one.get("cache"))): one["metrics"] for one in results})
    for one in results:
        where = f"{counted(one['num_rows'], 'row')}, {counted(one['num_targets'], 'token')}"
        beside = ", ".join(f"{name} {value:.4f}" for name, value in one.get("teacher", {}).items())
        console.say(f"{where}{f'; the teacher: {beside}' if beside else ''}{_at_kept(one.get('kept'))}")


def _at_kept(kept: dict[str, Any] | None) -> str:
    """Words on the tokens that a cache keeps and the teacher's scores are of, where these are not all."""
    if kept is None:
        return ""
    ours = ", ".join(f"{name} {value:.4f}" for name, value in kept["metrics"].items())
    return f" at the {counted(kept['num_targets'], 'token')} that are kept of it; the model there: {ours}"


def _of_texts(request: "EvaluateRequest", sources: list[str]) -> list[dict[str, Any]]:
    """Scores on each source."""
    if request.field is not None:
        raise SpecError(f"--field {request.field} belongs to --cache; leave it out")
    for source in sources:
        check_language(source, request.layout, request.one_document and source == request.corpus)
    with runtime.quiet():
        tokenizer = load_tokenizer(tokenizer_of(request.model))
    model = _loaded(request)
    max_length = request.max_length or of_model(request.model).max_length or longest_row(model.config)
    results = []
    for source in sources:
        one_document = request.one_document and source == request.corpus
        made = read_language(source, request.layout, tokenizer, max_length, one_document)
        results.append({"data": source, "max_length": max_length, **_scored(request, model, made, max_length)})
    return results


def _scored(request: "EvaluateRequest", model: PreTrainedModel, made: LanguageRows, max_length: int) -> dict[str, Any]:
    rows = made.rows
    tell_cut(rows.cut, len(rows), made.source, reach_of(model, request.model, max_length))
    tell_beyond(int(rows.lengths.max(initial=0)), trained_length(model), made.source, request.model)
    with console.advancing("evaluate", len(rows)) as advance:
        logp_T = answers_of(model, rows, bf16=request.bf16, on_rows=advance).logp_T
    sizes = {"num_rows": len(rows), "num_targets": len(logp_T), "num_bytes": rows.num_bytes}
    return {**sizes, "metrics": scores_of(logp_T, rows.num_bytes)}


def _of_cache(request: "EvaluateRequest", source: str) -> dict[str, Any]:
    """Scores on the rows of a cache, and those of its teacher."""
    if not request.layout.is_empty or request.max_length is not None or request.one_document:
        raise SpecError("a cache holds its rows as tokens; leave out --one-document, --max-length and the columns")
    cache, name = opened_cache(source), request.field or NextTokens.name
    field = cache.fields.get(name)
    if not isinstance(field, VocabularyField):
        raise MismatchError(f"the cache {cache.name} has no next tokens called {name}; give --field the name of some")
    knowledge = cached_knowledge(cache)
    with runtime.quiet():
        ours = load_tokenizer(str(cache.tokenizer_path)).get_vocab()
        if (theirs := own_vocabulary(request.model)) is not None:
            check_tokenizer(knowledge, theirs, ours, request.model)
    model = _loaded(request)
    with console.advancing("evaluate", cache.num_rows) as advance:
        said = said_beside(model, cache, name, request.bf16, advance)
    is_known_T = ~np.isnan(said.theirs_T)
    alike = {"agreement": said.num_alike / said.num_compared} if said.num_compared else {}
    kept = {"num_targets": int(is_known_T.sum()), "metrics": scores_of(said.ours_T[is_known_T], None)}
    return {
        "cache": source,
        "cache_id": cache.id,
        "field": name,
        "num_rows": cache.num_rows,
        "num_targets": len(said.ours_T),
        "metrics": {**scores_of(said.ours_T, None), **alike},
        "teacher": scores_of(said.theirs_T[is_known_T], None),
        **({} if is_known_T.all() else {"kept": kept}),
    }


def _loaded(request: "EvaluateRequest") -> PreTrainedModel:
    device = runtime.resolve_device(request.device)
    with runtime.quiet():
        model = load_causal(request.model, "a model")
    return model.to(device)
