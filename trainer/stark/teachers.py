"""The part of a run that needs the dense teacher a second time: scores, and the logits of sparse teachers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from hskcache import console, runtime
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError
from hskcache.sparsity.artifact import INFO, ModelId, ScoreInfo, load_scores, save_scores
from hskcache.sparsity.levels import Importance, kept_at
from hskcache.sparsity.masks import sparse
from hskcache.sparsity.scores import Sample, Scores, magnitude, random_importance, score
from hskcache.sparsity.student import load_trial
from hskcache.store.files import TEMPORARY_SUFFIX
from hskcache.teacher.addition import add_field, prepare_addition
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples
from trainer.stark.folder import Folder
from trainer.stark.settings import DENSE, KNOWLEDGE, Level, Stark
from trainer.stark.start import Scoring, tokenized


def score_and_add(
    stark: Stark, folder: Folder, scoring: Scoring, on_step: tuple[Callable[[bool], None], Callable[[bool], None]]
) -> None:
    """Score heads and neurons and add the logits of the sparse teachers to the cache, as far as they are not there.

    The teacher is loaded once, where anything is left to do, and gone when this returns.

    Args:
        stark: the run.
        folder: of the run; the trial is done.
        scoring: the rows of the scores.
        on_step: called before each of the two, with whether it is done already.

    Raises:
        MismatchError: the teacher is no longer the one that the cache was built with.
        CacheError: as scoring and adding do.
    """
    cache = open_cache(folder.cache)
    is_scored = (folder.out / INFO).is_file()
    missing = [level for level in stark.levels if not folder.has_field(cache, level)]
    if is_scored and not missing:
        for begin in on_step:
            begin(True)
        return
    teacher = _dense(stark, cache)
    on_step[0](is_scored)
    scores = load_scores(folder.out)[0] if is_scored else _score(stark, folder, teacher, scoring)
    on_step[1](not missing)
    _add(stark, folder, (teacher, scores), missing)


def sizes(folder: Folder) -> tuple[int, int]:
    """Heads and neurons of the dense teacher, over all layers."""
    scores, _ = load_scores(folder.out)
    assert scores.expressive is not None
    return scores.expressive.heads_LH.size, scores.expressive.neurons_LF.size


def _dense(stark: Stark, cache: Cache) -> Teacher:
    teacher = load_teacher(stark.teacher, stark.machine.device)
    if teacher.info.weights_sha256 != cache.manifest.request.teacher.weights_sha256:
        raise MismatchError(
            f"{stark.teacher} has other weights than when {cache.root} was built; put that teacher back, or give "
            "another --out"
        )
    return teacher


def _score(stark: Stark, folder: Folder, teacher: Teacher, scoring: Scoring) -> Scores:
    trial = load_trial(str(folder.student(DENSE)), teacher, stark.data.layout.task)
    examples = _part(scoring.examples, scoring.index_N.tolist())
    assert scoring.examples.labels is not None
    sample = Sample(
        tokenized(examples, teacher.tokenizer, stark.max_length),
        scoring.examples.labels[scoring.index_N],
        stark.batch_size,
        stark.temperature,
        source=examples.source,
    )
    with console.progress("rows") as bar:
        task = bar.add_task("score", total=len(sample))
        scores = score(teacher, trial.model, sample, lambda count: bar.advance(task, count))
    provenance = ScoreInfo(
        teacher=ModelId(name=teacher.info.name, weights_sha256=teacher.info.weights_sha256),
        student=trial.info,
        data=scoring.info,
        batch_size=stark.batch_size,
        temperature=stark.temperature,
        max_length=stark.max_length,
        environment=runtime.environment(teacher.device),
    )
    save_scores(folder.out, scores, provenance)
    for leftover in folder.out.glob(f"scores.*{TEMPORARY_SUFFIX}"):
        leftover.unlink()
    return scores


def _part(examples: Examples, rows: Sequence[int]) -> Examples:
    """Some rows of a data set; nothing else is asked of them than their texts."""
    pairs = examples.pairs
    return replace(
        examples,
        texts=[examples.texts[row] for row in rows],
        pairs=None if pairs is None else [pairs[row] for row in rows],
        labels=None,
    )


def _add(stark: Stark, folder: Folder, scored: tuple[Teacher, Scores], levels: Sequence[Level]) -> None:
    teacher, scores = scored
    with console.progress("rows") as bar:
        for level in levels:
            kept = kept_at(_importance(level.method, teacher, scores, stark), level.percent)
            with sparse(teacher, kept, f"{teacher.info.name} {level.field}") as one:
                # Opened anew: it has a field more each time.
                addition = prepare_addition(one, open_cache(folder.cache), "logits", level.field)
                task = bar.add_task(level.field, total=len(addition.job.rows))
                add_field(addition, partial(bar.advance, task))


def _importance(method: str, teacher: Teacher, scores: Scores, stark: Stark) -> Importance:
    if method in (KNOWLEDGE, "plain"):
        return scores.knowledgeable(stark.balance if method == KNOWLEDGE else 1.0)
    return magnitude(teacher.model) if method == "magnitude" else random_importance(teacher.model, stark.seed)
