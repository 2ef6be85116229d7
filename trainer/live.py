"""The teacher in the loop: the reference that every cached run is compared with.

The one place of the trainer that loads a teacher, and so the one that needs the extra ``teacher``. It gives the same
batches as a cache of the same spec would, computed anew at every step.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hskcache.spec import Spec
from hskcache.teacher.build import Job, describe_job, extractor_for, prepare_job
from hskcache.teacher.extract import Extractor
from hskcache.teacher.knowledge import Kept, Rows
from hskcache.teacher.load import load_teacher
from hskcache.text import Examples, tokenize
from trainer.batch import Batch, HiddenTarget
from trainer.gate import Knowledge
from trainer.loading.ordered import Ordered
from trainer.loading.plan import Integers, Plan, Window


def live_job(teacher: str, examples: Examples, spec: Spec, device: str) -> Job:
    """Load a teacher and lay its knowledge of these rows out as a build would.

    Raises:
        TeacherError, SpecError, DataError: as a build would.
    """
    loaded = load_teacher(teacher, device, spec.compute_dtype)
    return prepare_job(loaded, examples, tokenize(examples, loaded.tokenizer, spec.max_length), spec)


def live_knowledge(job: Job) -> Knowledge:
    """What a teacher in the loop offers to learn from."""
    request, fields = describe_job(job)
    return Knowledge(
        request=request,
        logits=fields.logits,
        hidden=fields.hidden,
        has_labels=job.examples.labels is not None,
        where=f"the teacher {job.teacher.info.name}",
    )


@dataclass
class LiveLoader(Ordered[Job]):
    """Batches with targets that the teacher computes when they are asked for.

    Attributes:
        job: teacher, rows and spec.
    """

    job: Job
    _extractor: Extractor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.device = self.job.teacher.device
        self._plan = self.order(self.job.layout.shards)
        self._identity = describe_job(self.job)[0].digest

    @property
    def plan(self) -> Plan:
        """The order of every epoch, that of a cache of the same spec."""
        return self._plan

    @property
    def identity(self) -> str:
        """The digest of what a cache of this knowledge would be asked for with."""
        return self._identity

    @property
    def extractor(self) -> Extractor:
        """The teacher with what is to be kept, constants fitted on first use."""
        if self._extractor is None:
            self._extractor = extractor_for(self.job)
        return self._extractor

    def windows(self, skip: int) -> Iterator[tuple[Window, Job, Integers]]:
        """Windows of the current epoch; the rows are in memory."""
        for window in self.plan.windows(self.epoch):
            yield window, self.job, self.job.layout.lengths_N[window.rows]

    def produce(self, slices: Iterator[tuple[Job, Integers, Integers]]) -> Generator[Batch, None, None]:
        """Run the teacher over each slice."""
        labels, kept_N = self.job.examples.labels, self.job.layout.kept_N
        for _, own, rows in slices:
            inputs, padded = self.extractor.batch(own)
            logits, kept = self.extractor.knowledge(inputs, padded)
            yield Batch(
                inputs={name: tensor.clone() for name, tensor in inputs.items()},
                labels=None if labels is None else torch.from_numpy(labels[own]).to(logits.device),
                logits=logits.clone(),
                hidden={layer: self._target(layer, entries, padded) for layer, entries in kept.items()},
                num_rows=len(rows),
                num_positions=int(kept_N[rows].sum()),
                row_ids=tuple(own.tolist()),
            )

    def _target(self, layer: int, kept: Kept, rows: Rows) -> HiddenTarget:
        selector = self.extractor.selector
        assert selector is not None
        length = rows.input_ids_BL.shape[1]
        owner = torch.from_numpy(np.repeat(np.arange(len(rows.kept_B)), rows.kept_B)).to(kept.positions_P.device)
        constants = {name.partition("/")[2]: t for name, t in selector.constants.items() if int(name[6:8]) == layer}
        shared: Tensor | None = constants.get("columns")
        return HiddenTarget(
            index_P=owner * length + kept.positions_P,
            # Clones: what was made in inference mode cannot be saved for a backward pass.
            values_PW=kept.values_PW.clone(),
            columns=shared.long()
            if shared is not None
            else None
            if kept.columns_PW is None
            else kept.columns_PW.clone(),
            width=selector.field.width,
            mean_D=constants.get("mean"),
            basis_WD=constants.get("basis"),
        )
