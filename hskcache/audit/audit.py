"""Run a teacher again over some rows of a cache and tell how far what is stored is from what it gives.

No data set is needed: the rows are tokens that the cache holds. So a cache whose digests all fit is still found out
where it does not hold what it says: rows in another order, another layer, another scale, another teacher.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from hskcache.audit.findings import AuditReport, Identity, Layer, found
from hskcache.audit.kinds import AUDITED
from hskcache.audit.kinds.abc import CapturedBatch
from hskcache.audit.measure import Audited
from hskcache.audit.origins import Origin, compute_dtype, origins
from hskcache.build.batching import batching_of
from hskcache.build.constants import extractor_for
from hskcache.build.extract import Extractor
from hskcache.build.job import Job
from hskcache.build.layout import plan
from hskcache.cache import Cache
from hskcache.difference import first_difference
from hskcache.errors import MismatchError
from hskcache.rows import Arrays, Integers, by_shard, read_rows, take
from hskcache.spec import ComputeDtype
from hskcache.store.fields import INPUTS
from hskcache.teacher.inputs import fit_rows, save_tokenizer
from hskcache.teacher.load import Teacher
from hskcache.text import TokenizedRows, load_tokenizer
from hskcache.text.first_pieces import stored_pieces
from hskcache.text.tokenize import special_ids, vocabulary_difference

__all__ = ["TOLERANCES", "Audit", "Question", "audit", "compute_dtype", "draw_rows", "origins", "prepare_audit"]

TOLERANCES: dict[ComputeDtype, float] = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.015}
"""Share of the largest magnitude of a vector by which its values may move, by what the teacher computes in.

Measured with a fine-tuned BERT of 6 layers and width 384 on a CPU, for hidden states and attention: between batches of
other rows and between two implementations of the same products (oneDNN's and torch's own), values moved by at most
2.9e-6 in float32 and 3.6e-2 in bfloat16; in float16, between batches alone, by 1.5e-3. Log p of the 32 likeliest next
tokens of SmolLM2-135M (30 layers, 218 positions of WikiText-2) and of their rest moved by at most 2.6e-2 in bfloat16
between batches: 0.18 nats, a KL of 1.1e-5 on average and 2.1e-3 at most, and the likeliest token was the same. Other
devices add up in other orders again and larger teachers have more layers, so several times as much is allowed; a row, a
layer or a scale that is not the right one is off by about 1.
"""


@dataclass(frozen=True)
class Question:
    """Fields and rows to audit, and the tolerance.

    Attributes:
        fields: names; None: those that the cache was built with.
        num_rows: rows to draw, without replacement; all if there are no more.
        seed: of the draw; any integer.
        tolerance: allowed beyond the bound of the encoding, as a share of the largest magnitude of the teacher's
            vector; None: from ``TOLERANCES``.
    """

    fields: tuple[str, ...] | None = None
    num_rows: int = 256
    seed: int = 0
    tolerance: float | None = None


@dataclass(frozen=True, eq=False)
class Audit:
    """An audit before the teacher runs; made by :func:`prepare_audit`.

    Attributes:
        origins: where the fields come from; the teacher runs once for each.
        drawn: numbers of the rows, ascending.
        num_skipped: rows that a field has left out, of which none is drawn.
        tolerance: allowed beyond the bound of the encoding.
    """

    teacher: Teacher
    cache: Cache
    origins: Sequence[Origin]
    drawn: Integers
    num_skipped: int
    tolerance: float

    @property
    def work_rows(self) -> int:
        """Rows that the teacher runs over, those of every run counted."""
        return len(self.drawn) * len(self.origins)

    @cached_property
    def identities(self) -> list[Identity]:
        """Agreement of the teacher's identity with the one that the fields tell; nothing is run for it."""
        return [_identity(self.teacher, self.cache, origin) for origin in self.origins]


def prepare_audit(teacher: Teacher, cache: Cache, question: Question | None = None) -> Audit:
    """Draw the rows and see that a teacher can be compared with what a cache holds of them.

    ``teacher``: loaded in the type of :func:`compute_dtype`; without a classifier for the cache of a corpus.
    ``question``: what to audit; None: 256 rows of the cache's own fields. Raises MismatchError if there is no such
    field or no row, or the teacher is of another shape than the one that ran; SpecError as :func:`origins`.
    """
    asked = question or Question()
    sources = origins(cache, asked.fields)
    for origin in sources:
        _check_shape(teacher, cache, origin)
    names = [name for origin in sources for name in origin.names.values()]
    skipped = cache.skipped(names)
    drawn = draw_rows(np.setdiff1d(np.arange(cache.num_rows), skipped), asked.num_rows, asked.seed)
    if not len(drawn):
        raise MismatchError(f"{cache.name} has no row that holds {', '.join(names)}: there is nothing to audit")
    tolerance = TOLERANCES[sources[0].request.spec.compute_dtype] if asked.tolerance is None else asked.tolerance
    return Audit(teacher, cache, sources, drawn, len(skipped), tolerance)


def audit(prepared: Audit, on_rows: Callable[[int], None] | None = None) -> AuditReport:
    """Run the teacher over the rows and compare.

    ``on_rows``: called with the number of rows of each piece of work that is done. Raises TeacherError if the teacher
    cannot read the rows, DamageError if a file of the cache is missing or altered.
    """
    layers = []
    for origin in prepared.origins:
        run = _Run(prepared, origin)
        run.compare(on_rows or (lambda _rows: None))
        layers += list(run.layers())
    return AuditReport(
        num_rows=len(prepared.drawn),
        num_skipped=prepared.num_skipped,
        tolerance=prepared.tolerance,
        identities=prepared.identities,
        layers=layers,
    )


def draw_rows(rows: Integers, limit: int, seed: int) -> Integers:
    """``limit`` of some rows, or all if there are no more, the same for a seed everywhere: int64, ascending."""
    order = np.argsort(np.random.Philox(key=seed % (1 << 64)).random_raw(len(rows)), kind="stable")
    drawn: Integers = np.sort(rows[order[:limit]])
    return drawn


def _identity(teacher: Teacher, cache: Cache, origin: Origin) -> Identity:
    theirs, tokenizer = origin.request.teacher, cache.manifest.request.tokenizer
    if origin.is_own:
        same = save_tokenizer(teacher.tokenizer, tokenizer.has_token_types).sha256 == tokenizer.sha256
    else:
        ours = load_tokenizer(cache.tokenizer_path)
        same = vocabulary_difference(teacher.tokenizer.get_vocab(), ours.get_vocab()) is None
    other = first_difference(theirs.config, teacher.info.config)
    config = None if other is None else f"{other[0]} was {other[1]!s:.80} and is {other[2]!s:.80}"
    return Identity(
        fields=list(origin.names.values()),
        same_weights=teacher.info.weights_sha256 == theirs.weights_sha256,
        same_tokenizer=same,
        config=config,
    )


class _Run:
    """One run of the teacher over the drawn rows, for fields of one origin."""

    def __init__(self, prepared: Audit, origin: Origin) -> None:
        cache, names = prepared.cache, origin.names
        self.cache, self.drawn = cache, prepared.drawn
        constants = {kind: cache.constants(name) for kind, name in names.items()}
        inputs = read_rows(cache, INPUTS, prepared.drawn)
        # Scores drawn at random go by the rows of the data set, which those of a part of a cache still tell.
        self.row_ids: Integers = inputs["row_ids"]
        job = _job(prepared.teacher, cache, origin, inputs)
        self.extractor: Extractor = extractor_for(job, constants, names)
        selectors = {selector.name: selector for selector in self.extractor.selectors}
        self.audited = {
            name: Audited(cache.fields[name], constants[kind], selectors[kind], prepared.tolerance)
            for kind, name in names.items()
        }

    def compare(self, on_rows: Callable[[int], None]) -> None:
        """Run the teacher over the rows, those of a shard together, and compare."""
        places = list(by_shard(self.cache.shards, self.drawn))
        self.cache.ahead((name, shard) for shard, _ in places for name in self.audited)
        batches = batching_of(self.extractor.job)
        for shard, inside in places:
            rows = self.drawn[inside] - self.cache.shards[shard][0]
            fields = self.cache.fields
            stored = {name: take(fields[name], self.cache.read(name, shard), rows) for name in self.audited}
            for index in batches.batches(inside.start, inside.stop):
                batch = self._batch(index)
                for name, audited in self.audited.items():
                    audited.add(batch, take(audited.kept, stored[name], index - inside.start))
                on_rows(len(index))

    def layers(self) -> Iterator[Layer]:
        """Findings of each field, layer by layer."""
        for name, audited in self.audited.items():
            for layer, measured in audited.layers.items():
                yield found(name, audited, layer, measured)

    def _batch(self, index_B: Integers) -> CapturedBatch:
        inputs, rows = self.extractor.batch(index_B)
        rows = replace(rows, row_ids_B=torch.from_numpy(self.row_ids[index_B]).to(rows.row_ids_B.device))
        with torch.inference_mode():
            captured = self.extractor.captured(inputs)
            self.extractor.score_next(captured, rows)
            lengths: NDArray[np.int64] = self.extractor.job.layout.lengths_N[index_B]
            return CapturedBatch(captured, rows, self.drawn[index_B], lengths)


def _job(teacher: Teacher, cache: Cache, origin: Origin, inputs: Arrays) -> Job:
    """The teacher over the drawn rows, with what was to be kept of them."""
    targets = inputs.get("targets")
    rows = TokenizedRows(
        input_ids=inputs["input_ids"].astype(np.int32),
        offsets=inputs["row_offsets"],
        token_type_ids=inputs.get("token_type_ids"),
        special_ids=special_ids(load_tokenizer(cache.tokenizer_path)),
        words=stored_pieces(inputs),
        targets=None if targets is None else targets.astype(np.bool_),
    )
    if "token_type_ids" not in teacher.tokenizer.model_input_names:
        # As in a build with this teacher: its model may have such an input, but was never shown one.
        rows = replace(rows, token_type_ids=None)
    data = cache.manifest.request.data
    # Nothing is written, so shards are of no size.
    spec = origin.request.spec.model_copy(update={"shard_rows": 1})
    rows = fit_rows(teacher.model, rows, (teacher.info.name, cache.name), spec.windows is not None)
    return Job(teacher, data, None, rows, spec, plan(spec, teacher.info, teacher.num_labels, rows))


def _check_shape(teacher: Teacher, cache: Cache, origin: Origin) -> None:
    """Raise MismatchError unless the teacher gives what can be compared at all."""
    theirs, ours = origin.request.teacher, teacher.info
    for size in ("num_layers", "num_heads", "width"):
        if getattr(ours, size) != getattr(theirs, size):
            raise MismatchError(
                f"{ours.name} has {size} {getattr(ours, size)} and the teacher of {cache.name}, {theirs.name}, had "
                f"{getattr(theirs, size)}; give that one"
            )
    for kind, name in origin.names.items():
        AUDITED[kind].check_shape(cache.fields[name], teacher, cache.name)
