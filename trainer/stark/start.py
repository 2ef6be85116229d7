"""The start of a run: all that can be wrong is found before anything is written, and the dense teacher runs once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from hskcache import console, runtime
from hskcache.build.build import build
from hskcache.build.job import Job, prepare_job
from hskcache.cache import Cache
from hskcache.classes import require_single
from hskcache.cut import tell_cut
from hskcache.disk import require_space
from hskcache.encoder import weights_digest
from hskcache.errors import DataError
from hskcache.evaluation import check_labels
from hskcache.metrics import metrics_for
from hskcache.sparsity.scoring import DrawnRows, draw
from hskcache.spec import Spec
from hskcache.store.agreement import told
from hskcache.store.fields import LOGITS
from hskcache.teacher.load import load_teacher
from hskcache.teacher.places import places
from hskcache.text import Examples, load_tokenizer, tokenized
from hskcache.text.remembered import definition_of, is_preset
from hskcache.text.tokenize import reach_of
from trainer.source.gate import check_recipe, check_student, check_tokenizer
from trainer.source.knowledge import Knowledge, cached_knowledge
from trainer.source.live import live_knowledge
from trainer.stark.folder import Folder
from trainer.stark.settings import DENSE, Data, Level, Stark
from trainer.student.create import create_student
from trainer.student.origin import tell_origin
from trainer.student.vocabulary import own_vocabulary


class Begun(NamedTuple):
    """The rows that heads and neurons are scored on, and the number of those that students are scored on."""

    drawn: DrawnRows
    num_evaluated: int


@dataclass(frozen=True, eq=False)
class _Start:
    """Beginning of a run: the cache, where it is complete, else the dense teacher."""

    knowledge: Knowledge
    train: Examples
    vocabulary: Mapping[str, int]
    job: Job | None


def start(stark: Stark, folder: Folder, on_step: Callable[[bool], None]) -> Begun:
    """Check everything, make the folder that of this run and build the cache of the dense teacher's logits.

    A teacher that was loaded is gone when this returns. Where the cache is complete none is loaded. ``on_step``: called
    before the cache is built, with whether it is there already. Raises CacheError for whatever does not fit; nothing is
    written then.
    """
    cache = folder.open_cache()
    begin = _from_teacher(stark) if cache is None else _from_cache(stark, cache)
    knowledge = begin.knowledge
    check_recipe(knowledge, stark.recipe, stark.machine.slices)
    _chosen_metric(stark, knowledge.request.data.problem)
    evaluation = _labelled("--eval-data", stark.data.evaluation, stark.data, knowledge)
    check_labels(evaluation)
    drawn = _drawn(stark, begin, len(evaluation))
    models = {"teacher": _named(stark.teacher, folder), "student": _student_digest(stark, begin, folder)}
    is_new = folder.run is None
    folder.claim(models | {"task": _task(stark, folder)} | _identity(stark, begin.train, evaluation, drawn))
    if is_new:
        tell_origin(stark.student, knowledge.reads_pairs)
    on_step(begin.job is None)
    if begin.job is not None:
        with console.advancing("logits", len(begin.job.rows)) as advance:
            manifest = build(begin.job, folder.cache, advance)
        agreement = manifest.agreement.get(LOGITS)
        if agreement is not None and (line := told(agreement, "the teacher", evaluation.label_names)) is not None:
            console.say(line)
    return Begun(drawn, len(evaluation))


def check_space(folder: Folder, levels: Sequence[Level], student: PreTrainedModel) -> None:
    """Refuse to begin what the disk has no room for.

    ``student``: any of theirs. Raises CacheError if it has none, DamageError if a level that is there is not whole.
    """
    need = folder.most_bytes(levels, sum(tensor.nbytes for tensor in student.state_dict().values()))
    require_space(folder.out, need, "the students may need", "ask for fewer levels with --sparsity")


def _from_teacher(stark: Stark) -> _Start:
    for source in (stark.data.train, stark.data.evaluation, stark.data.scoring):
        if source is not None:
            stark.data.layout.check(source)
    teacher = load_teacher(stark.teacher, stark.machine.device)
    require_single(stark.teacher, teacher.model.config, "sparse teachers are made")
    # Asked before an hour of work, not after it.
    places(teacher.model)
    layout = stark.data.layout
    train = layout.read_for(teacher.info.name, teacher.model.config, stark.data.train)
    train.require_texts("StarK")
    rows = tokenized(train, teacher.tokenizer, stark.max_length)
    tell_cut(rows.cut, len(rows), stark.data.train, reach_of(teacher.model, stark.teacher, stark.max_length))
    spec = Spec(hidden=None, max_length=stark.max_length)
    job = prepare_job(teacher, train, rows, spec)
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
    examples.require_gold("which scores need")
    if examples.labels is None:
        raise DataError(f"{flag} {source} is read without labels, which scores need; give --task or --label")
    return examples.gold()


def _drawn(stark: Stark, begin: _Start, num_evaluated: int) -> DrawnRows:
    data = stark.data
    if data.scoring is None:
        begin.train.require_gold("to score heads and neurons by")
        return draw(begin.train, data.scoring_rows or num_evaluated, stark.seed)
    return draw(_labelled("--score-data", data.scoring, data, begin.knowledge), data.scoring_rows, stark.seed)


def _named(teacher: str, folder: Folder) -> str:
    """One name for all spellings of a folder, also of one that is gone since the run began; a hub id as it is."""
    resolved = str(Path(teacher).resolve())
    is_known = folder.run is not None and folder.run.get("teacher") == resolved
    return resolved if is_known or Path(teacher).is_dir() else teacher


def _task(stark: Stark, folder: Folder) -> Any:
    """Name of the task, if it is a preset; the definition of one's own."""
    name, task = stark.data.layout.task_name, stark.data.layout.task
    if task is None or is_preset(task) or (folder.run is not None and folder.run.get("task") == name):
        # A run that kept the path of a definition goes on by it.
        return name
    return definition_of(task)


def _student_digest(stark: Stark, begin: _Start, folder: Folder) -> str:
    """The digest of every student's start, once it is known to fit the knowledge, and its like to fit on the disk."""
    interface = begin.knowledge.interface(1 + max(begin.vocabulary.values()))
    with runtime.quiet():
        student = create_student(stark.student, interface, stark.seed)
        if (theirs := own_vocabulary(stark.student)) is not None:
            check_tokenizer(begin.knowledge, theirs, begin.vocabulary, stark.student)
    check_student(begin.knowledge, stark.recipe, student)
    check_space(folder, (DENSE, *stark.levels), student)
    return weights_digest(student)


def _chosen_metric(stark: Stark, problem: str) -> str | None:
    """The metric that picks in place of the task's own, or None. Raises SpecError if there is none such."""
    task = stark.data.layout.task
    own, first = (metrics_for(problem, task.metrics if task else None, name) for name in (None, stark.metric))
    return None if next(iter(own)) == next(iter(first)) else stark.metric


def _identity(stark: Stark, train: Examples, evaluation: Examples, drawn: DrawnRows) -> dict[str, Any]:
    """Facts that decide the result, apart from the models."""
    return {
        "data": train.fingerprint,
        "eval": evaluation.fingerprint,
        "score": drawn.info.model_dump(exclude={"name", "seed"}),
        "recipe": stark.recipe.model_dump(mode="json"),
        "balance": stark.balance,
        "temperature": stark.temperature,
        "max_length": stark.max_length,
        "batch_size": stark.batch_size,
        "seed": stark.seed,
        "metric": _chosen_metric(stark, train.problem),
        # A single run may go on with others; levels that are compared may not differ in them.
        "bf16": stark.machine.bf16,
        "gradient_accumulation": stark.machine.accumulation,
    }
