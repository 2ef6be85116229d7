"""Jobs over rows of a cache that stands already: its own, to be computed again, or more of the same kind."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hskcache.build.language import make_language_job, reads_language
from hskcache.build.prepare import make_corpus_part, make_job, packed
from hskcache.build.request import BuildRequest, Texts
from hskcache.disk import spool_folder
from hskcache.errors import MismatchError
from hskcache.recall import of_cache
from hskcache.text.compressed import format_of
from hskcache.text.layout import Layout
from hskcache.text.memory import Source

if TYPE_CHECKING:
    from hskcache.build.job import Job
    from hskcache.cache import Cache
    from hskcache.store.manifest import Request
    from hskcache.text.remembered import Remembered


def make_part_job(cache: "Cache", teacher: str, device: str, texts: Texts, spool: Path) -> "Job":
    """Load a teacher and tokenize rows as those of a cache were: what is kept, and how, is the cache's.

    ``cache``: that the rows belong to, or will. ``texts``: a data file or a corpus; where no column is named, they are
    read as those of the cache. ``spool``: folder for the rows of a corpus; those of a task are kept beside
    the cache, in files without a name. Raises MismatchError if rows of a task are given for a corpus, or the other way
    round; CacheError for whatever else is at fault.
    """
    request = cache.manifest.request
    if request.data.problem == "language":
        return _language_job(request, BuildRequest(teacher, texts, request.spec, device), cache.root)
    if texts.for_language_models:
        raise MismatchError(f"{cache.name} holds no next tokens; leave out {', '.join(texts.for_language_models)}")
    is_corpus = request.data.problem == "text"
    if is_corpus != (texts.corpus is not None):
        has, option = ("a corpus", "--corpus") if is_corpus else ("rows of a task", "--data")
        raise MismatchError(f"{cache.name} holds {has}; give {option} FILE")
    texts.check()
    spec = request.spec.model_copy(update={"shard_rows": request.shard_rows})
    if texts.data is None:
        return packed(make_corpus_part(BuildRequest(teacher, texts, spec, device)), spool)
    layout = _layout(texts.layout, of_cache(f"the cache {cache.name}", request, str(texts.data)), request, texts.data)
    texts = replace(texts, layout=layout, copy=_copy_column(texts, request), keep_text=request.data.has_text)
    asked = BuildRequest(teacher, texts, spec, device)
    return make_job(asked, "a cache built with --max-length", spool_folder(cache.root))


def _language_job(request: "Request", asked: BuildRequest, root: Path) -> "Job":
    """Rows of a language model as those of a cache were made: its columns, and how a file is divided, where not told.

    Raises MismatchError if the teacher is no language model.
    """
    if not reads_language(asked):
        raise MismatchError(f"{root} holds next tokens of texts, and {asked.teacher} is no causal language model")
    spec = request.spec.model_copy(update={"shard_rows": request.shard_rows})
    return make_language_job(replace(asked, spec=spec, texts=_as_before(asked.texts, request)), spool_folder(root))


def _as_before(texts: Texts, request: "Request") -> Texts:
    """Texts read as those of a cache, as far as nothing else is said."""
    source = texts.chat or texts.corpus or texts.data
    part = next((part for part in reversed(request.parts) if part.name == str(source)), request.data)
    known = part.provenance
    if known is None or known.language is None:
        return texts
    layout, columns = texts.layout, known.columns
    has_columns = texts.data is not None or (texts.corpus is not None and format_of(texts.corpus) == ".jsonl")
    if layout.is_empty and has_columns and columns is not None:
        pair = None if columns.text_pair is None else str(columns.text_pair)
        layout = Layout(text=str(columns.text), text_pair=pair, header=columns.header, bad_rows=known.bad_rows)
    one_document = texts.one_document or (texts.corpus is not None and known.language.one_document)
    roles = texts.roles if texts.chat is None else texts.roles or tuple(known.language.roles) or None
    if texts.chat is not None and layout.bad_rows is None:
        layout = replace(layout, bad_rows=known.bad_rows)
    return replace(texts, layout=layout, one_document=one_document, roles=roles)


def _copy_column(texts: Texts, request: "Request") -> str | None:
    """Column of the numbers of copies as given, or of the cache; none where the cache knows of no copies."""
    if texts.copy is not None or not request.data.copies:
        return texts.copy if request.data.copies else ""
    column = None if request.data.provenance is None else request.data.provenance.copy_column
    return str(column) if isinstance(column, int) else None


def _layout(given: Layout, memory: "Remembered", request: "Request", source: Source) -> Layout:
    """Columns as given, or of the cache; classes and what becomes of odd rows as they were in the build."""
    given, data = given.recalling(memory, source), request.data
    if given.classes is None and given.has_label and len(data.label_names) > 1:
        # Even where these rows have none of some class.
        given = replace(given, classes=tuple(data.label_names))
    part = next((part for part in reversed(request.parts) if part.name == str(source)), data)
    if (known := part.provenance) is None:
        return given
    return replace(given, unlabelled=given.unlabelled or known.unlabelled, bad_rows=given.bad_rows or known.bad_rows)
