"""Builds over rows of a causal language model, which is asked for the next tokens of texts."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hskcache import console
from hskcache.build.request import BuildRequest, Texts
from hskcache.cut import tell_cut
from hskcache.errors import SpecError, TeacherError
from hskcache.runtime import require_teacher_extra
from hskcache.spec import Packing
from hskcache.text.compressed import format_of
from hskcache.text.language.chat import check_chat, conversations
from hskcache.text.language.rows import LanguageRows, longest_row
from hskcache.text.language.sources import check_columns, rows_of_data, rows_of_file
from hskcache.text.language.turns import ASSISTANT, Turns
from hskcache.text.regular import check_corpus
from hskcache.text.strings import spooling
from hskcache.text.tokenize import reach_of

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.teacher.load import Teacher


def reads_language(request: BuildRequest) -> bool:
    """True if the teacher of a build is a causal language model that is to say next tokens.

    One whose embeddings are asked for is none, nor is one that cannot be read: whoever loads it tells why.

    Raises:
        SpecError, TeacherError: it is none, and rows are asked for that only one can have; or it is an encoder with a
            decoder that writes texts.
    """
    only = request.texts.for_language_models
    if request.spec.embedding is not None:
        if only:
            raise SpecError(f"{only[0]} makes rows of next tokens, of which there are no embeddings; leave one out")
        return False
    require_teacher_extra()
    from hskcache.model.causal import is_causal, refuse_encoder_decoder, require_causal
    from hskcache.model.load import load_config
    from hskcache.model.sentence import encoder_of, sentence_modules

    name = request.teacher
    try:
        config = load_config(encoder_of(name, sentence_modules(name)), "a teacher")
    except TeacherError:
        if only:
            raise
        return False
    if is_causal(config):
        return True
    if only:
        require_causal(name, config, "a teacher")
        raise TeacherError(f"{name} is a model without a head that says next tokens, which {only[0]} needs")
    refuse_encoder_decoder(name, config)
    return False


def row_tokens(teacher: str) -> int:
    """Tokens of a row at most where nobody says it.

    Raises:
        TeacherError: the teacher's configuration cannot be read.
    """
    from hskcache.model.load import load_config

    return longest_row(load_config(teacher, "a teacher"))


def make_language_job(request: BuildRequest, spool: Path | None = None) -> "Job":
    """Load a causal language model, make rows of texts, and lay out the cache.

    Args:
        request: the cache.
        spool: folder on whose disk texts and tokens are kept; None keeps them in memory.

    Raises:
        CacheError: whichever of it is at fault.
    """
    require_teacher_extra()
    from hskcache.build.job import prepare_language_job
    from hskcache.build.resolving import resolve_for
    from hskcache.teacher.load import load_language_model

    _refuse_idle(request)
    texts, spec = as_documents(request.texts), request.spec
    if texts.data is not None:
        check_columns(texts.layout)
        texts.layout.check(texts.data)
    elif texts.corpus is not None:
        check_corpus(texts.corpus)
    elif texts.chat is not None:
        check_chat(texts.chat)
    loaded = load_language_model(request.teacher, request.device, spec.compute_dtype).called(request.called)
    # What is wrong with the spec is said before the rows are read, which may take minutes.
    spec = resolve_for(loaded, spec)
    with nullcontext() if spool is None else spooling(spool):
        made = _rows(texts, loaded, spec.max_length)
    reach = reach_of(loaded.model, loaded.info.name, spec.max_length)
    tell_cut(made.rows.cut, len(made.rows), made.source, reach)
    return prepare_language_job(loaded, made, spec)


def as_documents(texts: Texts) -> Texts:
    """Texts with a corpus of one JSON object a line as what it is: rows of a data file, each a document."""
    if texts.corpus is None or format_of(texts.corpus) != ".jsonl":
        return texts
    if texts.one_document:
        raise SpecError(f"--one-document reads a text file as one, and {texts.corpus} has a document a line")
    layout = replace(texts.layout, text="text" if texts.layout.text is None else texts.layout.text)
    return replace(texts, data=str(texts.corpus), corpus=None, layout=layout)


def _refuse_idle(request: BuildRequest) -> None:
    """Raise SpecError if something is asked for that rows of a language model do not have."""
    texts, packing = request.texts, request.spec.packing
    if packing.model_fields_set and packing.resolved != Packing():
        raise SpecError(
            "--pairs, --short-rows, --copies and --mask make rows for an encoder, and "
            f"{request.teacher} is a causal language model, whose rows are parts of documents; leave them out"
        )
    if texts.keep_text:
        raise SpecError(
            "--keep-text keeps texts of whole rows, and rows of a language model are parts of documents; leave it out"
        )
    if texts.copy:
        raise SpecError("--copy numbers the copies of rows of a task, and next tokens are none; leave it out")
    if request.eval_data:
        raise SpecError(
            f"--eval-data {request.eval_data[0]} scores a classifier, and {request.teacher} is a language model; leave "
            "it out"
        )


def _rows(texts: Texts, teacher: "Teacher", max_length: int) -> LanguageRows:
    """Rows of a source, with a progress bar."""
    tokenizer = teacher.tokenizer
    if texts.chat is not None:
        turns = Turns(tokenizer, texts.roles or (ASSISTANT,), teacher.info.name)
        with console.advancing("tokenize", texts.chat.stat().st_size, "bytes") as advance:
            return conversations(texts.chat, turns, max_length, texts.layout.bad_rows or "fail", advance)
    if texts.corpus is not None:
        return rows_of_file(texts.corpus, tokenizer, max_length, texts.one_document)
    assert texts.data is not None
    return rows_of_data(texts.data, texts.layout, tokenizer, max_length)
