"""A build before the teacher runs: a spec resolved against the teacher, rows that fit it, and every shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hskcache.build.layout import ONLY_TOKENS, BesideTokens, ShardLayout, id_dtype, plan
from hskcache.build.resolving import check_corpus_spec, resolve_for, tell_surprises
from hskcache.build.windows import check_singles, resolve_windows, tell_unused
from hskcache.classes import has_gold, of_words
from hskcache.encoder import trained_length
from hskcache.errors import MismatchError, SpecError
from hskcache.recall import provenance_of, provenance_of_language
from hskcache.resolved import layer_pairs, resolve_spec
from hskcache.runtime import environment
from hskcache.spec import Packing, Spec
from hskcache.store.fields import INPUTS, InputsField, StoredField
from hskcache.store.manifest import DataInfo, Request, TokenizerInfo
from hskcache.teacher.inputs import SavedTokenizer, fit_rows, save_tokenizer
from hskcache.teacher.load import Teacher
from hskcache.text import Corpus, Examples, TokenizedRows
from hskcache.text.copies import Copies
from hskcache.text.labels import Labels
from hskcache.text.language.rows import LanguageRows
from hskcache.text.tagged import rows_of
from hskcache.text.windows import Windowing, windowing_of


@dataclass(frozen=True, eq=False)
class Job:
    """Everything a build needs; made by :func:`prepare_job` or :func:`prepare_corpus_job`.

    Attributes:
        teacher: the model and its tokenizer.
        data: the rows, as the manifest describes them.
        labels: [N] class indices or scores, [N, C] a value for each class, of rows of words those of each word that has
            a first piece, or None.
        rows: tokens, as the teacher reads them.
        spec: what to keep, resolved.
        layout: shards and sizes.
        copies: which rows are copies of which; None where that is not known.
        texts: of the rows and, of pairs, the second ones, as they are kept; None where they are not.
        beside: sizes of what is stored of rows beside their tokens.
    """

    teacher: Teacher
    data: DataInfo
    labels: Labels | None
    rows: TokenizedRows
    spec: Spec
    layout: ShardLayout
    copies: Copies | None = None
    texts: tuple[Sequence[str], Sequence[str] | None] | None = None
    beside: BesideTokens = ONLY_TOKENS

    @cached_property
    def tokenizer(self) -> SavedTokenizer:
        """The tokenizer's files as they stand in the cache."""
        return save_tokenizer(self.teacher.tokenizer, self.rows.token_type_ids is not None)

    @cached_property
    def request(self) -> Request:
        """Request of a cache of this job."""
        tokenizer = (self.tokenizer.sha256, self.rows.token_type_ids is not None)
        return request_of(self.teacher, (self.spec, self.layout.shard_rows), self.data, tokenizer)

    @cached_property
    def windowing(self) -> Windowing | None:
        """Way of reading rows that are longer than the teacher reads at once; None where all rows are read whole."""
        windows = self.spec.windows
        if windows is None:
            return None
        assert windows.length is not None
        return windowing_of(windows.length, windows.overlap, self.teacher.tokenizer)

    @property
    def inputs(self) -> InputsField:
        """The rows, as they will be stored."""
        return InputsField(
            id_dtype=id_dtype(self.teacher.info.vocab_size),
            has_token_types=self.rows.token_type_ids is not None,
            has_labels=self.labels is not None,
            has_unlabelled=self.labels is not None and not has_gold(of_words(self.labels)).all(),
            has_copies=self.copies is not None,
            has_words=self.rows.words is not None,
            has_targets=self.rows.targets is not None,
            has_documents=self.rows.documents is not None,
            text=None if self.texts is None else "single" if self.texts[1] is None else "pair",
            num_label_values=None if self.labels is None or self.labels.ndim < 2 else self.labels.shape[1],
        )

    @property
    def environment(self) -> dict[str, str]:
        """Environment of what is computed, and whether rows are longer than those that the teacher was trained on."""
        longest, trained = int(self.rows.lengths.max(initial=0)), trained_length(self.teacher.model)
        known = environment(self.teacher.device)
        if trained is None or longest <= trained or self.spec.windows is not None:
            return known
        return known | {"rows": f"of up to {longest:,} tokens where the teacher was trained on at most {trained:,}"}

    @property
    def fields(self) -> dict[str, StoredField]:
        """Fields that the cache will hold, as the manifest names them."""
        return {INPUTS: self.inputs, **self.layout.fields}


def prepare_job(
    teacher: Teacher, examples: Examples, rows: TokenizedRows, spec: Spec, task: str | None = None, further: str = ""
) -> Job:
    """Resolve a spec against a teacher and the rows of a task.

    Args:
        teacher: runs over the rows.
        examples: the rows.
        rows: ``examples`` through the teacher's tokenizer, at most ``spec.max_length`` tokens each.
        spec: what to keep.
        task: what to call the task, where the rows do not tell it themselves.
        further: as in :func:`fit_rows`.

    Raises:
        SpecError: the spec contradicts itself, asks for layers that do not exist, or for shards that are too large.
        TeacherError: the teacher cannot read the rows.
    """
    # A file of the spec may come from a corpus.
    spec = spec.model_copy(update={"packing": Packing()})
    check_singles(spec, examples.pairs is not None, rows.words is not None)
    has_task = teacher.num_labels is not None
    data = DataInfo(
        name=examples.source,
        split=examples.split,
        fingerprint=examples.fingerprint,
        num_rows=len(examples),
        task=task if examples.reading.task is None else examples.reading.task.name,
        problem=examples.problem if has_task else "none",
        label_names=list(examples.label_names) if has_task else [],
        provenance=provenance_of(examples, rows.cut),
        copies=[] if examples.copies is None else examples.copies.counts,
    )
    labels = examples.labels
    if labels is not None and rows.words is not None:
        # Of words that no token stands for nothing is learned.
        labels = rows_of(of_words(labels)[rows.words.among_words()], rows.words.counts)
    # The number of a copy, and its origin.
    beside = ONLY_TOKENS if examples.copies is None else ONLY_TOKENS.with_more(12, 2)
    spec, rows = _fitted(teacher, rows, spec, data.name, further)
    layout = plan(spec, teacher.info, teacher.num_labels, rows, beside)
    return Job(teacher, data, labels, rows, spec, layout, copies=examples.copies, beside=beside)


def with_texts(job: Job, examples: Examples) -> Job:
    """The same job, whose cache keeps the texts of the rows, too.

    Raises:
        SpecError: rows are words, each of which is answered for at a token of the teacher's.
    """
    if job.rows.words is not None:
        raise SpecError("--keep-text keeps the texts of whole rows, and these are words; leave it out")
    columns = [examples.texts] if examples.pairs is None else [examples.texts, examples.pairs]
    lengths = [np.fromiter((len(text.encode()) for text in texts), np.int64) for texts in columns]
    # The texts, where they begin, and where the second one does.
    beside = job.beside.with_more(np.sum(lengths, axis=0) + 12, 3)
    data = job.data.model_copy(update={"has_text": True})
    return respecified(replace(job, data=data, texts=(examples.texts, examples.pairs), beside=beside), job.spec)


def prepare_corpus_job(teacher: Teacher, corpus: Corpus, spec: Spec) -> Job:
    """Resolve a spec against an encoder without a classifier and the packed rows of a corpus.

    Raises:
        SpecError: nothing is to be kept, or as :func:`prepare_job`.
        TeacherError: the teacher cannot read the rows.
    """
    data = corpus_info(corpus.source, corpus.fingerprint, len(corpus.rows))
    spec, rows = _fitted(teacher, corpus.rows, spec, data.name)
    return Job(teacher, data, None, rows, spec, plan(spec, teacher.info, teacher.num_labels, rows))


def prepare_language_job(teacher: Teacher, made: LanguageRows, spec: Spec) -> Job:
    """Resolve a spec against a causal language model and its rows.

    Raises:
        SpecError, TeacherError: as :func:`prepare_job`.
    """
    spec = spec.model_copy(update={"packing": Packing()})
    data = DataInfo(
        name=made.source,
        split=made.split,
        fingerprint=made.fingerprint,
        num_rows=len(made.rows),
        problem="language",
        label_names=[],
        provenance=provenance_of_language(made.made, made.rows.cut, made.reading),
    )
    spec, rows = _fitted(teacher, made.rows, spec, data.name)
    return Job(teacher, data, None, rows, spec, plan(spec, teacher.info, None, rows))


def respecified(job: Job, spec: Spec) -> Job:
    """The same rows and teacher with another spec; tokens are at most as many as before.

    Raises SpecError as :func:`prepare_job` and, where nothing would be kept of a corpus, :func:`check_corpus_spec`.
    """
    if job.data.problem == "text":
        spec = check_corpus_spec(spec, job.teacher)
    spec = resolve_windows(resolve_spec(spec, job.teacher.info), job.teacher)
    layout = plan(spec, job.teacher.info, job.teacher.num_labels, job.rows, job.beside)
    return replace(job, spec=spec, layout=layout)


def corpus_info(source: str, fingerprint: str, num_rows: int) -> DataInfo:
    """A corpus as the manifest describes it."""
    return DataInfo(name=source, fingerprint=fingerprint, num_rows=num_rows, problem="text", label_names=[])


def request_of(teacher: Teacher, what: tuple[Spec, int], data: DataInfo, tokenizer: tuple[str, bool]) -> Request:
    """Request of a cache.

    Args:
        teacher: that runs.
        what: the resolved spec, and rows of a shard.
        data: the rows.
        tokenizer: digest of its files, and whether it gives token types.
    """
    spec, shard_rows = what
    sha256, has_token_types = tokenizer
    return Request(
        spec=spec,
        teacher=teacher.info,
        tokenizer=TokenizerInfo(
            sha256=sha256,
            vocab_size=len(teacher.tokenizer),
            pad_token_id=teacher.pad_token_id,
            has_token_types=has_token_types,
        ),
        data=data,
        shard_rows=shard_rows,
        layers=layer_pairs(spec.hidden, teacher.info),
        attention_layers=[pair for pair in layer_pairs(spec.attention, teacher.info) if pair.teacher > 0],
    )


def describe_job(job: Job) -> tuple[Request, dict[str, StoredField]]:
    """Request of a cache of this job, and its fields; nothing is written or run."""
    return job.request, job.fields


def _fitted(
    teacher: Teacher, rows: TokenizedRows, spec: Spec, source: str, further: str = ""
) -> tuple[Spec, TokenizedRows]:
    """A spec resolved against a teacher, and rows as that reads them; ``source``: what to call these."""
    spec = resolve_for(teacher, spec)
    tell_surprises(teacher, spec)
    rows = fit_rows(teacher.model, rows, (teacher.info.name, source), spec.windows is not None, further)
    tell_unused(spec, rows, source)
    return spec, rows


def check_same(job: Job, request: Request, part: DataInfo, root: Path) -> None:
    """Raise unless a job asks for what a cache, or a part of its rows, was asked for with.

    Args:
        job: with the cache's spec and rows of a shard.
        request: of the cache.
        part: the rows.
        root: of the cache, for the message.

    Raises:
        MismatchError: it does not.
    """
    # The spec may leave the rows of a shard open; the job was told them.
    spec = job.request.spec.model_copy(update={"shard_rows": request.spec.shard_rows})
    asked = job.request.model_copy(update={"spec": spec})
    wanted = request.model_copy(update={"data": part, "appended": []})
    if asked.digest != wanted.digest:
        path, here, there = wanted.difference(asked) or ("the request", "one", "another")
        raise MismatchError(
            f"{root} was built with {path} = {here!s:.80}, and the teacher and rows that were given have "
            f"{there!s:.80}; give those it was built with"
        )
