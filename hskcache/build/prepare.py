"""Jobs of the teacher from what a cache is asked for with; the teacher is loaded, and torch imported, when they run."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from hskcache import console
from hskcache.build.language import make_language_job, reads_language, row_tokens
from hskcache.build.request import AdditionRequest, BuildRequest
from hskcache.counted import counted
from hskcache.cut import tell_cut
from hskcache.errors import SpecError
from hskcache.model.sentence import sentence_modules
from hskcache.runtime import require_teacher_extra
from hskcache.spec import Packing, Spec
from hskcache.strict import first_problem
from hskcache.text import tokenized
from hskcache.text.copies import in_order_of_copies
from hskcache.text.regular import check_corpus
from hskcache.text.remembered import of_model
from hskcache.text.singles import prompted
from hskcache.text.strings import spooling
from hskcache.text.tokenize import reach_of

if TYPE_CHECKING:
    from hskcache.build.addition import Addition
    from hskcache.build.corpus import CorpusBuild
    from hskcache.build.job import Job
    from hskcache.store.manifest import Request

_PAIR_DEFAULTS = {"pairs": "mixed", "short_rows": 0.1}
"""Packing of a corpus for a teacher with two token types where nothing is said: that of BERT's pre-training data."""


class BegunCache(NamedTuple):
    """A cache that a build goes on with, finished or not: its place in messages, and what was asked for."""

    name: str
    request: "Request"


def prepare_build(request: BuildRequest, spool: Path) -> "Job":
    """Load the teacher, tokenize what it is to run over and lay out the cache, whatever stands where it will be.

    Args:
        request: the cache.
        spool: folder for the rows of a corpus.

    Raises:
        CacheError: whichever of it is at fault.
    """
    is_language = reads_language(request)
    request = with_length(request, is_language)
    if is_language:
        return make_language_job(request, spool)
    if request.texts.corpus is not None:
        return packed(make_corpus_build(request), spool)
    return make_job(request)


def with_length(request: BuildRequest, is_language: bool, begun: BegunCache | None = None) -> BuildRequest:
    """The request with the tokens of a row at most where it does not say.

    Rows of a task are as long as those of the cache that is gone on with, those that the teacher was trained on, or
    those of the task, the first of these that is known, which one line says.

    Args:
        request: the cache.
        is_language: whether its teacher is a language model, see :func:`~hskcache.build.language.reads_language`.
        begun: what is gone on with; None where nothing is.

    Raises:
        CacheError: what is remembered beside the teacher cannot be read.
    """
    spec = request.spec
    if "max_length" in spec.model_fields_set:
        return request
    if is_language:
        most = row_tokens(request.teacher) if begun is None else begun.request.spec.max_length
        console.say(f"rows of at most {counted(most, 'token')}; --max-length says otherwise")
        return replace(request, spec=spec.model_copy(update={"max_length": most}))
    if request.texts.corpus is not None:
        return request
    length, where = _known_length(request, begun)
    if length is None or length == spec.max_length:
        return request
    console.say(f"rows of at most {counted(length, 'token')}, as in {where}; --max-length says otherwise")
    try:
        return replace(request, spec=Spec.model_validate(spec.model_dump() | {"max_length": length}))
    except ValidationError as error:
        raise SpecError(f"what to keep: {first_problem(error, Spec)}") from None


def with_copies(request: BuildRequest, begun: BegunCache | None) -> BuildRequest:
    """The request with rows as they stand in the data, where a cache was begun so that is gone on with."""
    if request.texts.copy is not None or begun is None or begun.request.data.copies:
        return request
    return replace(request, texts=replace(request.texts, copy=""))


def _known_length(request: BuildRequest, begun: BegunCache | None) -> tuple[int | None, str]:
    """Tokens of a row at most, and where that is from; None where it is not known."""
    if begun is not None:
        return begun.request.spec.max_length, f"the cache {begun.name}"
    memory, task = of_model(request.teacher), request.texts.layout.task
    if request.spec.embedding is not None and (modules := sentence_modules(request.teacher)) is not None:
        return modules.max_length, request.teacher
    if memory.max_length is None and task is not None:
        return task.max_length, f"the task {task.name}"
    return memory.max_length, memory.where


def make_job(request: BuildRequest, keep: str | None = None, spool: Path | None = None) -> "Job":
    """Load the teacher, read and tokenize the rows of a task, and lay out the cache.

    Columns that neither the request nor a cache tells are those that the teacher was trained on.

    Args:
        request: the cache.
        keep: what to do in order to cut no row, see :class:`~hskcache.cut.Reach`, where it is no option of a build, nor
            can rows be read in windows; None: both are so.
        spool: folder on whose disk texts and tokens are kept; None keeps them in memory.

    Raises:
        CacheError: whichever of it is at fault.
    """
    require_teacher_extra()
    from hskcache.build.job import prepare_job, with_texts
    from hskcache.build.resolving import check_prompt, resolve_for
    from hskcache.build.windows import told_windows
    from hskcache.teacher.load import is_classifier, load_embedder, load_teacher

    data, layout, spec = request.texts.data, request.texts.layout, request.spec
    assert data is not None
    if layout.memory is None:
        layout = layout.recalling(of_model(request.teacher), data)
    layout.check(data)
    has_task = spec.embedding is None or is_classifier(request.teacher)
    load = load_teacher if has_task else load_embedder
    loaded = load(request.teacher, request.device, spec.compute_dtype).called(request.called)
    # What is wrong with the spec is said before the rows are read, which may take minutes.
    spec = resolve_for(loaded, spec)
    if has_task:
        check_prompt(spec, "pairs and texts of a task are read as they are")
    with nullcontext() if spool is None else spooling(spool):
        if has_task:
            examples = layout.read_for(loaded.info.name, loaded.model.config, data)
            examples = in_order_of_copies(examples, data, request.texts.copy)
            tokens = tokenized(examples, loaded.tokenizer, spec.max_length)
        else:
            _refuse_scores(request)
            examples = in_order_of_copies(layout.read_texts(data), data, request.texts.copy)
            tokens = tokenized(prompted(examples, spec), loaded.tokenizer, spec.max_length)
    reach = reach_of(loaded.model, loaded.info.name, spec.max_length, keep or "--max-length")
    further = told_windows(loaded, examples.pairs is None and examples.words is None and keep is None)
    if spec.windows is not None:
        reach = replace(reach, most=None)
    elif further:
        reach = replace(reach, beyond="with --stride it reads more in windows")
    tell_cut(tokens.cut, len(tokens), str(data), reach)
    job = prepare_job(loaded, examples, tokens, spec, further=further)
    return with_texts(job, examples) if request.texts.keep_text else job


def _refuse_scores(request: BuildRequest) -> None:
    """Raise SpecError if a teacher without a classifier is to be scored."""
    if request.eval_data:
        raise SpecError(
            f"--eval-data {request.eval_data[0]} scores a classifier, and {request.teacher} has none; leave it out"
        )


def make_corpus_build(request: BuildRequest, begun: BegunCache | None = None) -> "CorpusBuild":
    """Load an encoder without its task head, to run over a corpus.

    Where the request does not say how the corpus is packed, it is as in the cache that is there already, or as the
    teacher was pre-trained: pairs, if it tells two texts apart.

    Args:
        request: the cache.
        begun: what is gone on with; None where nothing is.

    Raises:
        CacheError: it cannot be loaded.
    """
    found = None if begun is None else begun.request
    build, spec = make_corpus_part(request), request.spec
    said = spec.packing.model_dump(exclude_unset=True)
    if found is not None and found.data.problem == "text" and "pairs" not in said:
        defaults = found.spec.packing.model_dump()
    else:
        is_pairs = said["pairs"] != "none" if "pairs" in said else build.has_token_types
        defaults = _PAIR_DEFAULTS if is_pairs else {}
    return replace(build, spec=spec.model_copy(update={"packing": Packing.model_validate(defaults | said)}))


def make_corpus_part(request: BuildRequest) -> "CorpusBuild":
    """Load an encoder without its task head, to run over a corpus that is packed as the spec says.

    Raises:
        CacheError: it cannot be loaded.
    """
    require_teacher_extra()
    corpus = request.texts.corpus
    assert corpus is not None
    check_corpus(corpus)
    from hskcache.build.corpus import CorpusBuild
    from hskcache.teacher.load import load_embedder, load_encoder

    load = load_encoder if request.spec.embedding is None else load_embedder
    loaded = load(request.teacher, request.device, request.spec.compute_dtype).called(request.called)
    return CorpusBuild(loaded, corpus, request.spec)


def packed(build: "CorpusBuild", spool: Path) -> "Job":
    """Tokenize and pack a corpus, with a progress bar over its bytes."""
    with console.progress("bytes") as bar:
        task = bar.add_task("tokenize", total=build.path.stat().st_size if build.path.is_file() else None)
        return build.job(spool, lambda count: bar.advance(task, count))


def make_addition(request: AdditionRequest) -> "Addition":
    """Open a cache and load the teacher of a field that is to be added to it.

    Raises:
        CacheError: whichever of them is at fault.
    """
    require_teacher_extra()
    from hskcache.build.addition import prepare_addition
    from hskcache.cache import open_cache
    from hskcache.teacher.load import load_for

    cache, spec = open_cache(request.cache), request.spec
    if "token_budget" not in spec.model_fields_set:
        # Grouped as the cache's own rows, the same teacher gives the same bits.
        spec = spec.model_copy(update={"token_budget": cache.manifest.request.spec.token_budget})
    asked = cache.manifest.request.model_copy(update={"spec": spec})
    loaded = load_for(request.teacher, request.device, asked).called(request.called)
    return prepare_addition(loaded, cache, request.kind, request.name, spec)
