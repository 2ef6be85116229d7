"""The teacher in the loop: the reference that every cached run is compared with.

The one place of the trainer that loads a teacher, and so the one that needs the extra ``teacher``. It gives the same
batches as a cache of the same spec would, computed anew at every step.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hskcache.build.attention import KeptAttention
from hskcache.build.build import Job, describe_job, extractor_for, prepare_job
from hskcache.build.extract import Extractor
from hskcache.build.knowledge import HiddenSelector, Kept
from hskcache.build.positions import Rows
from hskcache.spec import Spec
from hskcache.store.kinds import LOGITS, knowledge
from hskcache.teacher.load import load_teacher
from hskcache.text import tokenize
from hskcache.text.cut import tell_cut
from hskcache.text.layout import Layout
from hskcache.text.remembered import of_model
from hskcache.text.tokenize import reach_of
from trainer.batch import AttentionTarget, Batch, HiddenTarget
from trainer.loading.kinds import LOADED
from trainer.loading.ordered import Ordered, Part
from trainer.loading.plan import Integers, Window
from trainer.recipe import Losses
from trainer.source.knowledge import Knowledge
from trainer.source.source import Slice, Source, fields_of


def live_source(teacher: str, data: str, layout: Layout, spec: Spec, device: str) -> Source:
    """A teacher in the loop to learn from, its knowledge laid out as a build of the same flags would.

    Args:
        teacher: folder or hub id.
        data: the training rows.
        layout: which of their columns to read.
        spec: what to keep.
        device: where the teacher computes, and with it the student.

    Raises:
        TeacherError, SpecError, DataError, MismatchError: as a build would.
    """
    loaded = load_teacher(teacher, device, spec.compute_dtype)
    examples = layout.recalling(of_model(teacher), data).read_for(loaded.info.name, loaded.model.config, data)
    rows = tokenize(examples, loaded.tokenizer, spec.max_length)
    tell_cut(rows.cut, len(rows), data, reach_of(loaded.model, teacher, spec.max_length, "max_length in --spec"))
    job = prepare_job(loaded, examples, rows, spec)
    knowledge = live_knowledge(job)

    def loader(losses: Losses, part: Slice, seed: int) -> LiveLoader:
        return LiveLoader(
            job,
            fields=fields_of(losses),
            batch_size=part.batch_size,
            seed=seed,
            rank=part.rank,
            world_size=part.world_size,
            accumulation=part.accumulation,
        )

    return Source(knowledge, loader, teacher, knowledge.request.digest)


def live_knowledge(job: Job) -> Knowledge:
    """What a teacher in the loop offers to learn from."""
    request, fields = describe_job(job)
    stored = fields.stored()
    return Knowledge(
        request=request,
        fields={kind: stored[kind] for kind in knowledge() if kind in stored},
        has_labels=job.labels is not None,
        where=f"the teacher {job.teacher.info.name}",
    )


@dataclass
class LiveLoader(Ordered[Job]):
    """Batches with targets that the teacher computes when they are asked for.

    Attributes:
        job: teacher, rows and spec.
        fields: what to compute beside the inputs; None computes all that the spec keeps.
    """

    job: Job
    fields: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.device = self.job.teacher.device
        self._plan = self.order(self.job.layout.shards)
        self._identity = describe_job(self.job)[0].digest
        self._num_nonfinite = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def num_nonfinite(self) -> torch.Tensor:
        """Values of the teacher that were NaN or infinite so far; nothing waits for the device to count them."""
        return self._num_nonfinite

    @property
    def identity(self) -> str:
        """The digest of what a cache of this knowledge would be asked for with."""
        return self._identity

    @cached_property
    def extractor(self) -> Extractor:
        """The teacher with what is to be kept, constants fitted on first use."""
        # Nothing is captured that is not learned from: a live run deserves its best pace.
        return extractor_for(self.job, fields=self.fields)

    def windows(self, epoch: int, skip: int) -> Iterator[tuple[Window, Job, Integers]]:
        """Windows of an epoch; the rows are in memory."""
        for window in self.plan.windows(epoch):
            yield window, self.job, self.job.layout.lengths_N[window.rows]

    def produce(self, parts: Generator[Part[Job], None, None]) -> Generator[Batch, None, None]:
        """Run the teacher over each slice."""
        labels, kept_N = self.job.labels, self.job.layout.kept_N
        with closing(parts):
            for _, own, whole, weight in parts:
                inputs, rows = self.extractor.batch(own)
                logits, kept = self._targets(inputs, rows)
                targets: dict[str, Any] = {} if logits is None else {LOGITS: logits}
                for kind, layers in kept.items():
                    targets[kind] = {layer: self._target(kind, layer, one, rows) for layer, one in layers.items()}
                yield Batch(
                    inputs=inputs,
                    labels=None if labels is None else torch.from_numpy(labels[own]).to(self.device),
                    targets=targets,
                    num_rows=len(whole),
                    totals={kind: LOADED[kind].total(counts[whole]) for kind, counts in kept_N.items()},
                    row_ids=tuple(own.tolist()),
                    weight=weight,
                )

    def _targets(
        self, inputs: dict[str, torch.Tensor], rows: Rows
    ) -> tuple[torch.Tensor | None, dict[str, dict[int, Any]]]:
        if self.fields == ():
            return None, {}
        logits, kept = self.extractor.knowledge(inputs, rows)
        values = [] if logits is None else [logits]
        values += [
            one.values_PW if isinstance(one, Kept) else one.scores_BHKK
            for layers in kept.values()
            for one in layers.values()
        ]
        for tensor in values:
            self._num_nonfinite += (~tensor.isfinite()).sum()
        # Clones: what was made in inference mode cannot be saved for a backward pass.
        return None if logits is None else logits.clone(), kept

    def _target(self, kind: str, layer: int, kept: Any, rows: Rows) -> HiddenTarget | AttentionTarget:
        return self._hidden(layer, kept, rows) if isinstance(kept, Kept) else _attention(kept)

    def _hidden(self, layer: int, kept: Kept, rows: Rows) -> HiddenTarget:
        selector = next(one for one in self.extractor.selectors if isinstance(one, HiddenSelector))
        kept_B, device = rows.kept_B[selector.name], kept.positions_P.device
        begin = torch.from_numpy(np.repeat(np.arange(len(kept_B)) * rows.input_ids_BL.shape[1], kept_B))
        shared = {
            name.partition("/")[2]: tensor
            for name, tensor in selector.constants.items()
            if name.startswith(f"layer_{layer:02d}/")
        }
        columns = shared["columns"].long() if "columns" in shared else kept.columns_PW
        return HiddenTarget(
            index_P=begin.to(device) + kept.positions_P,
            values_PW=kept.values_PW.clone(),
            columns=None if columns is None else columns.clone(),
            width=selector.field.width,
            mean_D=shared.get("mean"),
            basis_WD=shared.get("basis"),
        )


def _attention(kept: KeptAttention) -> AttentionTarget:
    return AttentionTarget(kept.positions_BK.clone(), kept.valid_BK.clone(), kept.scores_BHKK.clone())
