"""The start of a run: all that can be wrong is found before anything is written, and the dense teacher runs once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os.path import normpath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hskcache import console, runtime
from hskcache.cache import Cache
from hskcache.encoder import weights_digest
from hskcache.errors import DataError
from hskcache.sparsity.artifact import ScoredRows
from hskcache.sparsity.masks import places
from hskcache.sparsity.sample import draw_rows
from hskcache.spec import Spec
from hskcache.teacher.build import build
from hskcache.teacher.job import Job, prepare_job
from hskcache.teacher.load import load_teacher
from hskcache.text import Examples, TokenizedRows, load_tokenizer, tokenize
from trainer.gate import check_recipe, check_student, check_tokenizer
from trainer.knowledge import Knowledge, cached_knowledge
from trainer.live import live_knowledge
from trainer.stark.folder import Folder
from trainer.stark.settings import Data, Stark
from trainer.student.create import create_student
from trainer.student.vocabulary import own_vocabulary


@dataclass(frozen=True, eq=False)
class Scoring:
    """The rows that heads and neurons are scored on.

    Attributes:
        examples: a data set.
        index_N: numbers of the rows of it that count, int64, rising.
        seed: that drew them; None where all count.
    """

    examples: Examples
    index_N: NDArray[np.int64]
    seed: int | None

    @property
    def info(self) -> ScoredRows:
        """What identifies them."""
        source, fingerprint = self.examples.source, self.examples.fingerprint
        return ScoredRows(name=source, fingerprint=fingerprint, num_rows=len(self.index_N), seed=self.seed)


class Begun(NamedTuple):
    """What the later steps need to know of the rows.

    Attributes:
        scoring: the rows that heads and neurons are scored on.
        num_evaluated: rows that students are scored on.
    """

    scoring: Scoring
    num_evaluated: int


@dataclass(frozen=True, eq=False)
class _Start:
    """What a run begins from: the cache, where it is complete, else the dense teacher."""

    knowledge: Knowledge
    train: Examples
    vocabulary: Mapping[str, int]
    job: Job | None


def start(stark: Stark, folder: Folder, on_step: Callable[[bool], None]) -> Begun:
    """Check everything, make the folder that of this run and build the cache of the dense teacher's logits.

    A teacher that was loaded is gone when this returns. Where the cache is complete none is loaded.

    Args:
        stark: the run.
        folder: of the run.
        on_step: called before the cache is built, with whether it is there already.

    Raises:
        CacheError: whatever does not fit; nothing is written then.
    """
    cache = folder.open_cache()
    begin = _from_teacher(stark) if cache is None else _from_cache(stark, cache)
    knowledge = begin.knowledge
    check_recipe(knowledge, stark.recipe, stark.machine.slices)
    evaluation = _labelled("--eval-data", stark.data.evaluation, stark.data, knowledge)
    scoring = _scoring(stark, begin, len(evaluation))
    run = _identity(stark, begin.train, evaluation, scoring)
    folder.claim(run | {"student": _student_digest(stark, begin)})
    on_step(begin.job is None)
    if begin.job is not None:
        with console.progress("rows") as bar:
            task = bar.add_task("logits", total=len(begin.job.rows))
            build(begin.job, folder.cache, lambda count: bar.advance(task, count))
    return Begun(scoring, len(evaluation))


def tokenized(examples: Examples, tokenizer: Any, max_length: int) -> TokenizedRows:
    """Tokens of every row, with a progress bar."""
    with console.progress("rows") as bar:
        task = bar.add_task("tokenize", total=len(examples))
        return tokenize(examples, tokenizer, max_length, lambda count: bar.advance(task, count))


def _from_teacher(stark: Stark) -> _Start:
    teacher = load_teacher(stark.teacher, stark.machine.device)
    # Asked before an hour of work, not after it.
    places(teacher.model)
    layout = stark.data.layout
    train = layout.read_for(teacher.info.name, teacher.model.config, stark.data.train)
    rows = tokenized(train, teacher.tokenizer, stark.max_length)
    spec = Spec(hidden=None, max_length=stark.max_length)
    job = prepare_job(teacher, train, rows, spec, layout.task_name)
    return _Start(live_knowledge(job), train, teacher.tokenizer.get_vocab(), job)


def _from_cache(stark: Stark, cache: Cache) -> _Start:
    knowledge = cached_knowledge(cache)
    train = _read(stark.data.train, stark.data, knowledge)
    with runtime.quiet():
        vocabulary = load_tokenizer(cache.tokenizer_path).get_vocab()
    return _Start(knowledge, train, vocabulary, None)


def _read(source: str, data: Data, knowledge: Knowledge) -> Examples:
    """Rows whose classes are those of the teacher, in its order."""
    names = knowledge.label_names if data.layout.has_label else None
    return data.layout.read(source, names, knowledge.request.data.problem)


def _labelled(flag: str, source: str, data: Data, knowledge: Knowledge) -> Examples:
    examples = _read(source, data, knowledge)
    if examples.labels is None:
        raise DataError(f"{flag} {source} is read without labels, which scores need; give --task or --label")
    return examples


def _scoring(stark: Stark, begin: _Start, num_evaluated: int) -> Scoring:
    data = stark.data
    if data.scoring is None:
        examples, limit = begin.train, data.scoring_rows or num_evaluated
    else:
        examples = _labelled("--score-data", data.scoring, data, begin.knowledge)
        limit = data.scoring_rows or len(examples)
    index_N = draw_rows(len(examples), limit, stark.seed)
    return Scoring(examples, index_N, None if len(index_N) == len(examples) else stark.seed)


def _student_digest(stark: Stark, begin: _Start) -> str:
    """The digest of every student's start, once it is known to fit."""
    interface = begin.knowledge.interface(1 + max(begin.vocabulary.values()))
    with runtime.quiet():
        student = create_student(stark.student, interface, stark.seed)
        if (theirs := own_vocabulary(stark.student)) is not None:
            check_tokenizer(begin.knowledge, theirs, begin.vocabulary, stark.student)
    check_student(begin.knowledge, stark.recipe, student)
    return weights_digest(student)


def _identity(stark: Stark, train: Examples, evaluation: Examples, scoring: Scoring) -> dict[str, Any]:
    """What decides the result, apart from the student's start."""
    return {
        "teacher": normpath(stark.teacher),
        "task": stark.data.layout.task_name,
        "data": train.fingerprint,
        "eval": evaluation.fingerprint,
        "score": scoring.info.model_dump(exclude={"name", "seed"}),
        "recipe": stark.recipe.model_dump(mode="json"),
        "balance": stark.balance,
        "temperature": stark.temperature,
        "max_length": stark.max_length,
        "batch_size": stark.batch_size,
        "seed": stark.seed,
        # A single run may go on with another precision; levels that are compared may not differ in it.
        "bf16": stark.machine.bf16,
    }
