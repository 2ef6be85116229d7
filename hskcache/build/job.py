"""A build before the teacher runs: a spec resolved against the teacher, rows that fit it, and every shape."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hskcache.build.layout import Layout, attention_field, hidden_field, id_dtype, plan
from hskcache.classes import has_gold
from hskcache.errors import MismatchError, SpecError
from hskcache.recall import provenance_of
from hskcache.selection.depth import kept_layers, stored_layers
from hskcache.spec import Attention, Depth, Hidden, Packing, Spec
from hskcache.store.manifest import (
    AttentionField,
    DataInfo,
    Field,
    HiddenField,
    InputsField,
    LayerKept,
    LogitsField,
    Request,
    TeacherInfo,
    TokenizerInfo,
)
from hskcache.teacher.inputs import SavedTokenizer, fit_rows, most_tokens, save_tokenizer
from hskcache.teacher.load import Teacher
from hskcache.text import Corpus, Examples, TokenizedRows
from hskcache.text.labels import Labels


@dataclass(frozen=True)
class Fields:
    """The fields of a cache, by kind; None where one is not kept."""

    inputs: InputsField
    logits: LogitsField | None
    hidden: HiddenField | None
    attention: AttentionField | None

    def stored(self) -> dict[str, Field]:
        """As the manifest names them."""
        fields: dict[str, Field | None] = {
            "inputs": self.inputs,
            "logits": self.logits,
            "hidden": self.hidden,
            "attention": self.attention,
        }
        return {name: field for name, field in fields.items() if field is not None}


@dataclass(frozen=True, eq=False)
class Job:
    """Everything a build needs; made by :func:`prepare_job` or :func:`prepare_corpus_job`.

    Attributes:
        teacher: the model and its tokenizer.
        data: the rows, as the manifest describes them.
        labels: [N] class indices or scores, or None.
        rows: tokens, as the teacher reads them.
        spec: what to keep, resolved.
        layout: shards and sizes.
    """

    teacher: Teacher
    data: DataInfo
    labels: Labels | None
    rows: TokenizedRows
    spec: Spec
    layout: Layout

    @cached_property
    def tokenizer(self) -> SavedTokenizer:
        """The tokenizer's files as they stand in the cache."""
        return save_tokenizer(self.teacher.tokenizer, self.rows.token_type_ids is not None)

    @cached_property
    def request(self) -> Request:
        """What a cache of this job is asked for with."""
        tokenizer = (self.tokenizer.sha256, self.rows.token_type_ids is not None)
        return request_of(self.teacher, (self.spec, self.layout.shard_rows), self.data, tokenizer)

    @property
    def fields(self) -> Fields:
        """What the cache will hold."""
        inputs = InputsField(
            id_dtype=id_dtype(self.teacher.info.vocab_size),
            has_token_types=self.rows.token_type_ids is not None,
            has_labels=self.labels is not None,
            has_unlabelled=self.labels is not None and not has_gold(self.labels).all(),
        )
        num_labels = self.teacher.num_labels
        logits = None if num_labels is None else LogitsField(num_labels=num_labels)
        return Fields(inputs, logits, self.layout.hidden, self.layout.attention)


def prepare_job(teacher: Teacher, examples: Examples, rows: TokenizedRows, spec: Spec, task: str | None = None) -> Job:
    """Resolve a spec against a teacher and the rows of a task.

    Args:
        teacher: runs over the rows.
        examples: the rows.
        rows: ``examples`` through the teacher's tokenizer, at most ``spec.max_length`` tokens each.
        spec: what to keep.
        task: what to call the task, where the rows do not tell it themselves.

    Raises:
        SpecError: the spec contradicts itself, asks for layers that do not exist, or for shards that are too large.
        TeacherError: the teacher cannot read the rows.
    """
    # A file of the spec may come from a corpus.
    spec = spec.model_copy(update={"packing": Packing()})
    data = DataInfo(
        name=examples.source,
        split=examples.split,
        fingerprint=examples.fingerprint,
        num_rows=len(examples),
        task=task if examples.reading.task is None else examples.reading.task.name,
        problem=examples.problem,
        label_names=list(examples.label_names),
        provenance=provenance_of(examples, rows.cut),
    )
    return _prepare(teacher, data, examples.labels, rows, spec)


def prepare_corpus_job(teacher: Teacher, corpus: Corpus, spec: Spec) -> Job:
    """Resolve a spec against an encoder without a classifier and the packed rows of a corpus.

    Raises:
        SpecError: nothing is to be kept, or as :func:`prepare_job`.
        TeacherError: the teacher cannot read the rows.
    """
    return _prepare(teacher, corpus_info(corpus.source, corpus.fingerprint, len(corpus.rows)), None, corpus.rows, spec)


def corpus_info(source: str, fingerprint: str, num_rows: int) -> DataInfo:
    """A corpus as the manifest describes it."""
    return DataInfo(name=source, fingerprint=fingerprint, num_rows=num_rows, problem="text", label_names=[])


def request_of(teacher: Teacher, what: tuple[Spec, int], data: DataInfo, tokenizer: tuple[str, bool]) -> Request:
    """What a cache is asked for with.

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
        layers=_pairs(spec.hidden, teacher.info),
        attention_layers=[pair for pair in _pairs(spec.attention, teacher.info) if pair.teacher > 0],
    )


def describe_job(job: Job) -> tuple[Request, Fields]:
    """What a cache of this job would be asked for with, and its fields; nothing is written or run."""
    return job.request, job.fields


def _prepare(teacher: Teacher, data: DataInfo, labels: Labels | None, rows: TokenizedRows, spec: Spec) -> Job:
    spec = resolve_spec(spec, teacher.info)
    rows = fit_rows(teacher.model, rows, (teacher.info.name, data.name))
    return Job(teacher, data, labels, rows, spec, plan(spec, teacher.info, teacher.num_labels, rows))


def check_corpus_spec(spec: Spec, teacher: Teacher) -> Spec:
    """The resolved spec of a corpus, once it is known that an encoder can serve it; asked before anything is read.

    Raises:
        SpecError: nothing would be kept, rows would be longer than the encoder reads, or as :func:`resolve_spec`.
    """
    spec = resolve_spec(spec, teacher.info)
    if spec.hidden is None and spec.attention is None:
        raise SpecError(
            "nothing would be kept: a corpus has no logits, so give --keep full, --attention full or parts of them"
        )
    if spec.max_length > (most := most_tokens(teacher.model)):
        raise SpecError(
            f"{teacher.info.name} reads at most {most} tokens and rows may have {spec.max_length}; give "
            f"--max-length {most}"
        )
    return spec.model_copy(update={"packing": spec.packing.resolved})


def check_same(job: Job, request: Request, part: DataInfo, root: Path) -> None:
    """See that a job asks for what a cache, or a part of its rows, was asked for with.

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


def resolve_spec(spec: Spec, teacher: TeacherInfo) -> Spec:
    """The spec with what it leaves to the teacher filled in; resolving twice changes nothing.

    Raises:
        SpecError: it contradicts itself, or asks for layers that the teacher or the student does not have.
    """
    hidden, attention = spec.hidden, spec.attention
    if hidden is not None and hidden.width.scheme == "all" and hidden.width.fraction < 1.0:
        raise SpecError(
            f"--width all keeps every column, but --keep asks for a share of {hidden.width.fraction:g}; leave one of "
            "them out"
        )
    changes: dict[str, Hidden | Attention] = {}
    for name, kept in (("hidden", hidden), ("attention", attention)):
        if kept is None:
            continue
        if kept.length.score == "all" and kept.length.tokens is not None:
            raise SpecError(
                f"--score all keeps every position, but {kept.length.tokens} tokens are asked for; leave one of them "
                "out"
            )
        changes[name] = kept.model_copy(update={"depth": _resolve_depth(kept.depth, teacher.num_layers)})
    spec = spec.model_copy(update=changes)
    if spec.hidden is not None:
        hidden_field(spec.hidden, teacher)
    if spec.attention is not None:
        heads = attention_field(spec.attention, teacher).heads
        # All heads written down are all heads: the same bytes must have the same digest.
        if heads == list(range(teacher.num_heads)):
            spec = spec.model_copy(update={"attention": spec.attention.model_copy(update={"heads": "all"})})
    return spec


def _resolve_depth(depth: Depth, teacher_layers: int) -> Depth:
    """The target filled in where a map asks for one, and listed layers in order.

    Raises:
        SpecError: layers that do not exist, or of which no student would learn.
    """
    layers = stored_layers(depth, teacher_layers)
    depth = _resolve_kept(depth)
    if not isinstance(depth.stored, str):
        if not kept_layers(depth, teacher_layers):
            listed = ", ".join(map(str, layers))
            raise SpecError(
                f"of the layers {listed} that are to be stored none is in the student's layer map; list some that are, "
                "or give a map that has them with --layer-map"
            )
        depth = depth.model_copy(update={"stored": list(layers)})
    if depth.layers is not None or depth.mapping == "bottom":
        if depth.target is not None:
            name = "bottom" if depth.layers is None else "in so many words"
            raise SpecError(f"a map given {name} takes no --depth-target; leave it out")
        return depth
    return depth.model_copy(update={"target": depth.target or teacher_layers})


def _resolve_kept(depth: Depth) -> Depth:
    """Listed student layers in order; where they are the top ones, as many as that: the same bytes, the same digest."""
    if depth.kept is None:
        return depth
    kept = sorted(set(depth.kept))
    if kept != list(range(kept[0], depth.student_layers + 1)):
        return depth.model_copy(update={"kept": kept})
    return depth.model_copy(update={"kept": None, "num_layers": len(kept) if kept[0] else None})


def _pairs(kept: Hidden | Attention | None, teacher: TeacherInfo) -> list[LayerKept]:
    pairs = () if kept is None else kept_layers(kept.depth, teacher.num_layers)
    return [LayerKept(student=pair.student, teacher=pair.teacher) for pair in pairs]
