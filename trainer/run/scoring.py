"""Rows that score a student while it learns: of the task, pairs whose cosines are compared, or texts; or none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache.counted import counted
from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.evaluation import check_labels, evaluate
from hskcache.metrics import Metric, metrics_for
from hskcache.store.kinds.embedding import EmbeddingField
from hskcache.text import Examples, TokenizedRows, tokenized
from hskcache.text.layout import Layout
from hskcache.text.memory import InMemory
from hskcache.text.remembered import Remembered, of_examples
from hskcache.text.singles import prompted, singles
from trainer.recipe import Recipe
from trainer.run.baselines import Baselines, baselines_of
from trainer.run.distill import Score
from trainer.similarity import PairScore, SentenceWay, pair_metrics, read_scored_pairs
from trainer.source.knowledge import Knowledge

Found = TypeVar("Found")

NO_EVALUATION = "give --eval-data FILE: labelled rows that score the student and pick its best epoch"


class Scoring(NamedTuple):
    """Scoring of a student; without rows there is nothing to score.

    ``score``: the metrics of a student. ``metric``: the one that picks the best epoch; None without rows.
    ``fingerprint``: of the rows it is scored on; None without any. ``baselines``: makes what others have on them.
    """

    score: Score
    metric: str | None
    fingerprint: str | None
    baselines: Callable[[], Baselines]


NOTHING = Scoring(lambda _student: {}, None, None, Baselines)
"""Scoring without rows."""


class ScoringRows(NamedTuple):
    """Labelled rows, and the metrics that are taken on them, the one that picks first."""

    examples: Examples
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Scorer(ABC, Generic[Found]):
    """Scorer of the students of some knowledge.

    Attributes:
        knowledge: that they learn from.
        layout: which columns of the rows are read.
        metric: that was chosen to pick; None: as the task has it.
    """

    knowledge: Knowledge
    layout: Layout
    metric: str | None

    @abstractmethod
    def read(self, data: str | InMemory) -> Found:
        """The rows of a source. Raises CacheError if they cannot score these students."""

    def check_without(self, recipe: Recipe) -> None:
        """Raise SpecError for a recipe that keeps the best evaluation of a stage, where there are no rows."""
        if best := [f"--set {stage.name}.select=last" for stage in recipe.stages if stage.select == "best"]:
            raise SpecError(f"{NO_EVALUATION}; where there are none, {' '.join(best)} keeps the end and scores nothing")

    @abstractmethod
    def tokenized(self, found: Found, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedRows:
        """The rows as the student reads them."""

    @abstractmethod
    def scoring(self, found: Found, rows: TokenizedRows, teacher: PreTrainedModel | None, bf16: bool) -> Scoring:
        """Scoring on some rows, through the student's tokenizer; ``teacher``: one in the loop, or None."""

    def recipe(self, recipe: Recipe) -> Recipe:
        """A recipe where there are rows."""
        return recipe

    def remembered(self, found: Found | None, memory: Remembered, max_length: int) -> Remembered:
        """Rows that the student is told to be of; ``memory``: what is remembered of those that it learns from."""
        return memory

    def _refuse_metric(self) -> None:
        if self.metric is not None:
            raise SpecError(
                f"--metric {self.metric} scores a classifier, and {self.knowledge.where} holds a corpus; leave it out"
            )


class TaskScorer(Scorer[ScoringRows]):
    """Labelled rows of the task that the teacher answers."""

    def read(self, data: str | InMemory) -> ScoringRows:
        """Labelled rows, their classes in the order of the knowledge."""
        knowledge, task = self.knowledge, self.layout.task
        if task is not None and (1 if task.problem == "regression" else len(task.labels)) != knowledge.num_labels:
            raise MismatchError(
                f"--task {task.name} has {counted(len(task.labels) or 1, 'output')} and {knowledge.where} has "
                f"{knowledge.num_labels} "
                "(1 is a score); evaluate on the task that the teacher was trained for"
            )
        examples = self.layout.of_labelled_rows().read(data, knowledge.label_names, knowledge.request.data.problem)
        examples.require_gold("to score the student on")
        if examples.labels is None:
            raise DataError(
                f"--eval-data {data} is read without labels to score the student on; give --task or --label"
            )
        check_labels(examples)
        return ScoringRows(examples, self._metrics())

    def tokenized(self, found: ScoringRows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedRows:
        """The rows."""
        return tokenized(found.examples, tokenizer, max_length)

    def check_without(self, recipe: Recipe) -> None:
        """Raise SpecError as for any, or for a metric that the task has not."""
        super().check_without(recipe)
        self._metrics()

    def scoring(self, found: ScoringRows, rows: TokenizedRows, teacher: PreTrainedModel | None, bf16: bool) -> Scoring:
        """The task's metrics, beside those of the teacher and of the majority."""
        examples, metrics = found
        score = partial(evaluate, examples=examples, rows=rows, metrics=metrics, bf16=bf16)
        live = None if teacher is None else partial(score, teacher)
        beside = partial(baselines_of, self.knowledge, examples, metrics, live)
        return Scoring(score, next(iter(metrics)), examples.fingerprint, beside)

    def remembered(self, found: ScoringRows | None, memory: Remembered, max_length: int) -> Remembered:
        """Those that score it, where there are any."""
        return memory if found is None else of_examples(found.examples, max_length, memory.cut)

    def _metrics(self) -> dict[str, Metric]:
        known = self.layout.task.metrics if self.layout.task else None
        return metrics_for(self.knowledge.request.data.problem, known, self.metric)


@dataclass(frozen=True)
class PairScorer(Scorer[ScoringRows]):
    """Pairs of texts, whose labels the cosines of a student's embeddings follow.

    Attributes:
        field: embeddings that the student learns to give.
    """

    field: EmbeddingField

    def read(self, data: str | InMemory) -> ScoringRows:
        """Pairs of texts with a score or a class each."""
        examples = read_scored_pairs(data, self.layout)
        return ScoringRows(examples, pair_metrics(examples, self.layout.task, self.metric))

    def check_without(self, recipe: Recipe) -> None:
        """Raise SpecError as for any, or for a metric."""
        super().check_without(recipe)
        self._refuse_metric()

    def tokenized(self, found: ScoringRows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedRows:
        """Both texts of a pair, one after the other, each with the prompt of the knowledge."""
        texts = prompted(singles(found.examples), self.knowledge.request.spec)
        return tokenized(texts, tokenizer, max_length)

    def scoring(self, found: ScoringRows, rows: TokenizedRows, teacher: PreTrainedModel | None, bf16: bool) -> Scoring:
        """Metrics of the cosines."""
        way = SentenceWay(self.field.pooling, None, self.field.is_normalized)
        score = PairScore(found.examples, rows, found.metrics, way, bf16)
        return Scoring(score, next(iter(found.metrics)), found.examples.fingerprint, Baselines)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The best evaluation is kept where the recipe says nothing of it."""
        return recipe.scored()


class NoScorer(Scorer[ScoringRows]):
    """Nothing: a corpus has no task, and what a student learns of it no score tells."""

    def read(self, data: str | InMemory) -> ScoringRows:
        """No rows."""
        raise self._refused(data)

    def tokenized(self, found: ScoringRows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedRows:
        """No rows."""
        raise self._refused(found.examples.source)

    def check_without(self, recipe: Recipe) -> None:
        """Raise SpecError for columns of rows, or a metric."""
        if not self.layout.is_empty:
            raise SpecError(f"{self.knowledge.where} holds {self.knowledge.rows}; leave out --task, --text and --label")
        self._refuse_metric()

    def scoring(self, found: ScoringRows, rows: TokenizedRows, teacher: PreTrainedModel | None, bf16: bool) -> Scoring:
        """No scores."""
        return NOTHING

    def _refused(self, data: str | InMemory) -> SpecError:
        where = self.knowledge.where
        return SpecError(
            f"--eval-data {data} scores a classifier, and {where} holds {self.knowledge.rows}; leave it out"
        )
