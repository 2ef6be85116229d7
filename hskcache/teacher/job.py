"""A build before the teacher runs: a spec resolved against the teacher, rows that fit it, and every shape."""

from dataclasses import dataclass
from functools import cached_property

from hskcache.errors import SpecError
from hskcache.selection.depth import kept_layers
from hskcache.spec import Spec
from hskcache.store.manifest import (
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
from hskcache.teacher.inputs import SavedTokenizer, fit_rows, save_tokenizer
from hskcache.teacher.layout import Layout, id_dtype, plan
from hskcache.teacher.load import Teacher
from hskcache.text import Examples, TokenizedRows


@dataclass(frozen=True)
class Fields:
    """The fields of a cache, by kind."""

    inputs: InputsField
    logits: LogitsField
    hidden: HiddenField | None

    def stored(self) -> dict[str, Field]:
        """As the manifest names them."""
        fields: dict[str, Field] = {"inputs": self.inputs, "logits": self.logits}
        return fields | ({"hidden": self.hidden} if self.hidden is not None else {})


@dataclass(frozen=True, eq=False)
class Job:
    """Everything a build needs; made by :func:`prepare_job`.

    Attributes:
        teacher: the model and its tokenizer.
        examples: the rows of the data set.
        rows: ``examples`` through the teacher's tokenizer, as the teacher reads them.
        spec: what to keep, resolved.
        layout: shards and sizes.
        task: name of the task preset, told to readers.
    """

    teacher: Teacher
    examples: Examples
    rows: TokenizedRows
    spec: Spec
    layout: Layout
    task: str | None

    @cached_property
    def tokenizer(self) -> SavedTokenizer:
        """The tokenizer's files as they stand in the cache."""
        return save_tokenizer(self.teacher.tokenizer, self.rows.token_type_ids is not None)

    @cached_property
    def request(self) -> Request:
        """What a cache of this job is asked for with."""
        teacher, hidden = self.teacher, self.spec.hidden
        pairs = kept_layers(hidden.depth, teacher.info.num_layers) if hidden is not None else ()
        return Request(
            spec=self.spec,
            teacher=teacher.info,
            tokenizer=TokenizerInfo(
                sha256=self.tokenizer.sha256,
                vocab_size=len(teacher.tokenizer),
                pad_token_id=teacher.pad_token_id,
                has_token_types=self.rows.token_type_ids is not None,
            ),
            data=_data_info(self.examples, self.task),
            shard_rows=self.layout.shard_rows,
            layers=[LayerKept(student=pair.student, teacher=pair.teacher) for pair in pairs],
        )

    @property
    def fields(self) -> Fields:
        """What the cache will hold."""
        inputs = InputsField(
            id_dtype=id_dtype(self.teacher.info.vocab_size),
            has_token_types=self.rows.token_type_ids is not None,
            has_labels=self.examples.labels is not None,
        )
        return Fields(inputs, LogitsField(num_labels=self.teacher.num_labels), self.layout.hidden)


def prepare_job(teacher: Teacher, examples: Examples, rows: TokenizedRows, spec: Spec, task: str | None = None) -> Job:
    """Resolve a spec against a teacher and rows.

    Args:
        teacher: runs over the rows.
        examples: the rows.
        rows: ``examples`` through the teacher's tokenizer, at most ``spec.max_length`` tokens each.
        spec: what to keep.
        task: name of the task preset the rows were read with.

    Raises:
        SpecError: the spec contradicts itself, asks for layers that do not exist, or for shards that are too large.
        TeacherError: the teacher cannot read the rows.
    """
    spec = resolve_spec(spec, teacher.info)
    rows = fit_rows(teacher.model, rows, (teacher.info.name, examples.source))
    return Job(teacher, examples, rows, spec, plan(spec, teacher.info, teacher.num_labels, rows), task)


def describe_job(job: Job) -> tuple[Request, Fields]:
    """What a cache of this job would be asked for with, and its fields; nothing is written or run."""
    return job.request, job.fields


def resolve_spec(spec: Spec, teacher: TeacherInfo) -> Spec:
    """The spec with what it leaves to the teacher filled in; resolving twice changes nothing.

    Raises:
        SpecError: it contradicts itself, or asks for layers that the teacher or the student does not have.
    """
    hidden = spec.hidden
    if hidden is None:
        return spec
    if hidden.length.score == "all" and hidden.length.tokens is not None:
        raise SpecError(
            f"--score all keeps every position, but --keep asks for {hidden.length.tokens} tokens; leave one of them "
            "out"
        )
    if hidden.width.scheme == "all" and hidden.width.fraction < 1.0:
        raise SpecError(
            f"--width all keeps every column, but --keep asks for a share of {hidden.width.fraction:g}; leave one of "
            "them out"
        )
    kept_layers(hidden.depth, teacher.num_layers)
    depth = hidden.depth.model_copy(update={"target": hidden.depth.target or teacher.num_layers})
    return spec.model_copy(update={"hidden": hidden.model_copy(update={"depth": depth})})


def _data_info(examples: Examples, task: str | None) -> DataInfo:
    return DataInfo(
        name=examples.source,
        split=examples.split,
        fingerprint=examples.fingerprint,
        num_rows=len(examples),
        task=task,
        problem=examples.problem,
        label_names=list(examples.label_names),
    )
