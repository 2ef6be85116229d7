"""Build a cache: one run of the teacher over tokenized rows, committed shard by shard, resumable at any moment."""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from hskcache.errors import CacheError, SpecError
from hskcache.selection.depth import kept_layers
from hskcache.selection.width import pca_components
from hskcache.spec import Spec
from hskcache.store.files import tokenizer_digest, write_atomic
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import (
    DataInfo,
    HiddenField,
    InputsField,
    LayerKept,
    LogitsField,
    Manifest,
    Request,
    TokenizerInfo,
)
from hskcache.teacher.extract import Arrays, Buffers, Extractor, HostArrays
from hskcache.teacher.knowledge import Selector, shared_constants
from hskcache.teacher.layout import Layout, plan
from hskcache.teacher.load import Teacher
from hskcache.text import Examples, TokenizedRows

PCA_SAMPLE_ROWS = 2048
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """Everything a build needs, worked out before the teacher runs.

    ``teacher``, ``examples`` and ``rows`` belong together: ``rows`` are ``examples`` through the teacher's tokenizer.
    """

    teacher: Teacher
    examples: Examples
    rows: TokenizedRows
    spec: Spec
    layout: Layout
    special_ids: frozenset[int]
    task: str | None


def prepare_job(teacher: Teacher, examples: Examples, rows: TokenizedRows, spec: Spec, task: str | None = None) -> Job:
    """Resolve a spec against a teacher and rows.

    Raises:
        SpecError: the spec contradicts itself or asks for layers the teacher or student does not have.
    """
    hidden = spec.hidden
    if hidden is not None:
        if hidden.length.score == "all" and hidden.length.tokens is not None:
            raise SpecError(
                f"--score all keeps every position, but --keep asks for {hidden.length.tokens} tokens; leave one of "
                "them out"
            )
        kept_layers(hidden.depth, teacher.info.num_layers)
        target = hidden.depth.target or teacher.info.num_layers
        hidden = hidden.model_copy(update={"depth": hidden.depth.model_copy(update={"target": target})})
        spec = spec.model_copy(update={"hidden": hidden})
    special_ids = special_tokens(teacher)
    layout = plan(spec, teacher.info, teacher.num_labels, rows, special_ids)
    return Job(teacher, examples, rows, spec, layout, special_ids, task)


def special_tokens(teacher: Teacher) -> frozenset[int]:
    """Ids of the tokens that frame a row; [UNK] and [MASK] stand for words and are not among them."""
    tokenizer = teacher.tokenizer
    framing = (
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    return frozenset(token for token in framing if token is not None)


def build(job: Job, out: Path, on_rows: Progress | None = None) -> Manifest:
    """Write the cache, or finish one that was cut off.

    Args:
        job: what to build.
        out: the cache's directory; made if missing.
        on_rows: called with the number of rows of each piece of work that is done, resumed rows included.

    Raises:
        MismatchError: ``out`` holds something else.
        TeacherError: the teacher gives values that are not finite.
        CacheError: the disk is too small.
    """
    report = on_rows or (lambda _rows: None)
    with tempfile.TemporaryDirectory(prefix="hskcache-") as folder:
        job.teacher.tokenizer.save_pretrained(folder)
        request = _request(job, tokenizer_digest(Path(folder)))
        _check_space(job.layout, out)
        ledger = Ledger(out)
        ledger.begin(request)
        for path in sorted(Path(folder).iterdir()):
            write_atomic(out / "tokenizer" / path.name, path.read_bytes())
    constants = _constants(job)
    if constants:
        ledger.commit_constants("hidden", constants)
    extractor = Extractor(job.teacher, job.rows, job.layout, job.spec, _selector(job, constants))
    _write_shards(job, extractor, ledger, report)
    return ledger.finish(request, _fields(job).stored(), _environment(job))


@dataclass(frozen=True)
class Fields:
    """The fields of a cache, by kind."""

    inputs: InputsField
    logits: LogitsField
    hidden: HiddenField | None

    def stored(self) -> dict[str, InputsField | LogitsField | HiddenField]:
        """As the manifest names them."""
        fields: dict[str, InputsField | LogitsField | HiddenField] = {"inputs": self.inputs, "logits": self.logits}
        return fields | ({"hidden": self.hidden} if self.hidden is not None else {})


def describe_job(job: Job) -> tuple[Request, Fields]:
    """What a cache of this job would be asked for with, and its fields; nothing is written or run."""
    with tempfile.TemporaryDirectory(prefix="hskcache-") as folder:
        job.teacher.tokenizer.save_pretrained(folder)
        return _request(job, tokenizer_digest(Path(folder))), _fields(job)


def extractor_for(job: Job) -> Extractor:
    """The teacher with what is to be kept, for use without a cache."""
    return Extractor(job.teacher, job.rows, job.layout, job.spec, _selector(job, _constants(job)))


def _write_shards(job: Job, extractor: Extractor, ledger: Ledger, report: Progress) -> None:
    """Compute shard after shard while one thread compresses and commits the shards before."""
    fields = ["inputs", "logits"] + (["hidden"] if job.layout.hidden is not None else [])
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hskcache-write") as writer:
        for shard, (start, stop) in enumerate(job.layout.shards):
            missing = [field for field in fields if not ledger.is_committed(field, shard)]
            if not missing:
                report(stop - start)
                continue
            host = None if missing == ["inputs"] else _compute(extractor, start, stop, report)
            pending.append(writer.submit(_commit, job, ledger, shard, (missing, host)))
            # One shard is written while the next is computed; more would only hold memory.
            while len(pending) > 1:
                pending.pop(0).result()
        for future in pending:
            future.result()


def _compute(extractor: Extractor, start: int, stop: int, report: Progress) -> HostArrays:
    buffers = Buffers(extractor, np.arange(start, stop))
    for index in extractor.layout.batches(start, stop, extractor.spec.token_budget):
        buffers.add(index)
        report(len(index))
    return buffers.to_host()


def _commit(job: Job, ledger: Ledger, shard: int, work: tuple[list[str], HostArrays | None]) -> None:
    missing, host = work
    start, stop = job.layout.shards[shard]
    where = f"{job.examples.source} rows {start} to {stop - 1}"
    fields = host.wait(where) if host is not None else {}
    fields["inputs"] = inputs_of(job, start, stop)
    for field in missing:
        ledger.commit(field, shard, (start, stop), fields[field])


def inputs_of(job: Job, start: int, stop: int) -> Arrays:
    """The stored inputs of some rows."""
    rows = job.rows
    first, last = rows.offsets[start], rows.offsets[stop]
    arrays: Arrays = {
        "input_ids": rows.input_ids[first:last].astype(_id_dtype(job)),
        "row_offsets": rows.offsets[start : stop + 1] - first,
        "row_ids": np.arange(start, stop, dtype=np.int64),
    }
    if rows.token_type_ids is not None:
        arrays["token_type_ids"] = rows.token_type_ids[first:last]
    if job.examples.labels is not None:
        arrays["labels"] = job.examples.labels[start:stop]
    return arrays


def _id_dtype(job: Job) -> Literal["uint16", "int32"]:
    return "uint16" if len(job.teacher.tokenizer) <= 1 << 16 else "int32"


def _fields(job: Job) -> Fields:
    inputs = InputsField(
        kind="inputs",
        id_dtype=_id_dtype(job),
        has_token_types=job.rows.token_type_ids is not None,
        has_labels=job.examples.labels is not None,
    )
    return Fields(inputs, LogitsField(kind="logits", num_labels=job.teacher.num_labels), job.layout.hidden)


def _constants(job: Job) -> Arrays:
    """Arrays that all rows of the hidden field share."""
    if job.spec.hidden is None or job.layout.hidden is None:
        return {}
    return _fit_pca(job) if job.layout.hidden.columns == "pca" else shared_constants(job.spec.hidden, job.layout.hidden)


def _selector(job: Job, constants: Arrays) -> Selector | None:
    hidden, field, teacher = job.spec.hidden, job.layout.hidden, job.teacher
    if hidden is None or field is None:
        return None
    return Selector(hidden, field, teacher.info.num_layers, job.special_ids, constants).to(teacher.device)


def _fit_pca(job: Job) -> Arrays:
    """Principal components of the kept positions of a sample of rows, spread evenly over the data."""
    hidden, field, teacher = job.spec.hidden, job.layout.hidden, job.teacher
    assert hidden is not None
    assert field is not None
    whole = field.model_copy(update={"columns": "all", "num_columns": field.width})
    selector = Selector(hidden, whole, teacher.info.num_layers, job.special_ids, {}).to(teacher.device)
    extractor = Extractor(teacher, job.rows, job.layout, job.spec, selector)
    total = len(job.layout.lengths_N)
    sample = np.unique(np.linspace(0, total - 1, min(total, PCA_SAMPLE_ROWS)).astype(np.int64))
    states: dict[int, list[torch.Tensor]] = {layer: [] for layer in field.layers}
    per_batch = max(1, job.spec.token_budget // int(job.layout.lengths_N.max()))
    for first in range(0, len(sample), per_batch):
        _, kept = extractor.knowledge(*extractor.batch(sample[first : first + per_batch]))
        for layer, entries in kept.items():
            states[layer].append(entries.values_PW.cpu())
    constants: Arrays = {}
    for layer, parts in states.items():
        components = pca_components(torch.cat(parts), field.num_columns)
        constants[f"layer_{layer:02d}/mean"] = components.mean.numpy()
        constants[f"layer_{layer:02d}/basis"] = components.basis.numpy()
    return constants


def _request(job: Job, tokenizer_sha256: str) -> Request:
    teacher, examples = job.teacher, job.examples
    hidden = job.spec.hidden
    layers = kept_layers(hidden.depth, teacher.info.num_layers) if hidden is not None else ()
    return Request(
        spec=job.spec,
        teacher=teacher.info,
        tokenizer=TokenizerInfo(
            sha256=tokenizer_sha256,
            vocab_size=len(teacher.tokenizer),
            pad_token_id=teacher.tokenizer.pad_token_id or 0,
            has_token_types=job.rows.token_type_ids is not None,
        ),
        data=DataInfo(
            name=examples.source,
            split=examples.split,
            fingerprint=examples.fingerprint,
            num_rows=len(examples.texts),
            task=job.task,
            problem=examples.problem,
            label_names=list(examples.label_names),
        ),
        shard_rows=job.layout.shard_rows,
        layers=[LayerKept(student=pair.student, teacher=pair.teacher) for pair in layers],
    )


def _check_space(layout: Layout, out: Path) -> None:
    """Refuse before the teacher runs rather than when the disk is full; compression only makes a cache smaller."""
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    free, need = shutil.disk_usage(folder).free, sum(layout.num_bytes.values())
    if need > free:
        raise CacheError(
            f"the cache may need {need / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; free space, choose "
            "another --out, or keep less with --keep or --encoding"
        )


def _environment(job: Job) -> dict[str, str]:
    """What computed the cache; told to readers, not digested."""
    import platform
    from importlib.metadata import version

    packages = ("hskcache", "torch", "transformers", "tokenizers", "zarr", "numcodecs", "numpy")
    device = job.teacher.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {name: version(name) for name in packages} | {"device": f"{device.type} {hardware}"}
