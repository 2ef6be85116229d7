"""The teacher in the loop: the reference that every cached run is compared with.

The one place of the trainer that loads a teacher, and so the one that needs the extra ``teacher``. It gives the same
batches as a cache of the same spec would, computed anew at every step.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hskcache.build.build import Job, describe_job, extractor_for
from hskcache.build.extract import Extractor
from hskcache.build.language import make_language_job, reads_language
from hskcache.build.positions import PaddedRows
from hskcache.build.prepare import make_job
from hskcache.build.request import BuildRequest, Texts
from hskcache.classes import of_words
from hskcache.errors import SpecError
from hskcache.spec import Spec
from hskcache.store.kinds import INPUTS, knowledge
from hskcache.teacher.load import is_classifier
from hskcache.text.language.sources import is_text
from hskcache.text.layout import Layout
from hskcache.text.padding import places_before_targets
from trainer.batch import Batch
from trainer.loading.kinds import LOADED
from trainer.loading.ordered import Ordered, WindowSlices
from trainer.loading.plan import Integers, Window
from trainer.recipe import Losses
from trainer.source.knowledge import Knowledge
from trainer.source.live_kinds import LIVE
from trainer.source.live_kinds.abc import LiveLayer
from trainer.source.source import Slice, Source, fields_of


def live_source(teacher: str, data: str, layout: Layout, spec: Spec, device: str) -> Source:
    """A teacher in the loop to learn from, its knowledge laid out as a build of the same flags would.

    ``teacher``: folder or hub id; ``device``: where the teacher computes, and with it the student. Raises TeacherError,
    SpecError, DataError, MismatchError as a build would.
    """
    if spec.windows is not None:
        raise SpecError("--spec has windows, and a teacher in the loop reads rows whole; build a cache of it")
    keep = "max_length in --spec"
    # A file of text that is said to have columns is one of rows, such as those of words.
    is_corpus = is_text(data) and layout.is_empty
    documents = Texts(corpus=Path(data), layout=layout) if is_corpus else Texts(data, layout)
    spoken = BuildRequest(teacher, documents, spec, device)
    if reads_language(spoken):
        return _source_of(make_language_job(spoken), teacher)
    # An embedder reads texts alone: what labels the file has are for who scores by it.
    reads_labels = spec.embedding is None or is_classifier(teacher)
    texts = Texts(data, layout if reads_labels else replace(layout, label=""))
    return _source_of(make_job(BuildRequest(teacher, texts, spec, device), keep=keep), teacher)


def _source_of(job: Job, teacher: str) -> Source:
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

    return Source(knowledge, loader, teacher, knowledge.request.digest, teacher=job.teacher.model)


def live_knowledge(job: Job) -> Knowledge:
    """Knowledge that a teacher in the loop offers."""
    request, fields = describe_job(job)
    return Knowledge(
        request=request,
        fields={kind: fields[kind] for kind in knowledge() if kind in fields},
        has_labels=job.labels is not None,
        where=f"the teacher {job.teacher.info.name}",
    )


@dataclass
class LiveLoader(Ordered[Job, Batch]):
    """Batches with targets of some ``fields``, None: all, that the teacher computes when they are asked for."""

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
        for window in self.plan.windows(epoch, skip):
            yield window, self.job, self.job.layout.lengths_N[window.rows]

    def produce(self, windows: Generator[WindowSlices[Job], None, None]) -> Generator[Batch, None, None]:
        """Run the teacher over each slice."""
        labels, words = self.job.labels, self.job.rows.words
        answers_N = self.job.rows.num_targets if self._has_language else None if words is None else words.counts
        counts_N = self.job.layout.kept_N | ({} if answers_N is None else {INPUTS: answers_N})
        with closing(windows):
            for own, whole, weight in (part for window in windows for part in window.slices):
                inputs, rows = self.extractor.batch(own)
                targets = self._targets(inputs, rows)
                yield Batch(
                    inputs=inputs,
                    labels=None if labels is None else torch.from_numpy(of_words(labels[own])).to(self.device),
                    targets=targets,
                    num_rows=len(whole),
                    totals={
                        kind: int(counts[whole].sum()) if kind == INPUTS else LOADED[kind].total(counts[whole])
                        for kind, counts in counts_N.items()
                    },
                    row_ids=tuple(own.tolist()),
                    weight=weight,
                    answered=self._answered(own, rows),
                )

    @property
    def _has_language(self) -> bool:
        return self.job.data.problem == "language"

    def _answered(self, own: Integers, rows: PaddedRows) -> torch.Tensor | None:
        """Places in the flattened batch that are answered for; None where rows are as a whole."""
        if self._has_language:
            places = places_before_targets(self.job.rows, own, rows.input_ids_BL.shape[1])
            return torch.from_numpy(places).to(self.device)
        return None if rows.first_pieces_P is None else rows.first_pieces_P.clone()

    def _targets(self, inputs: dict[str, torch.Tensor], rows: PaddedRows) -> dict[str, Any]:
        if self.fields == ():
            return {}
        targets = {}
        selectors = {selector.name: selector for selector in self.extractor.selectors}
        for kind, selected in self.extractor.knowledge(inputs, rows).items():
            found = {layer: LIVE[kind](LiveLayer(selectors[kind], layer, one, rows)) for layer, one in selected.items()}
            for target in found.values():
                self._num_nonfinite += (~target.values.isfinite()).sum()
            by_layer = {layer: target.target for layer, target in found.items()}
            targets[kind] = by_layer.get(None, by_layer)
        return targets
