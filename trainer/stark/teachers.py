"""The part of a run that needs the dense teacher a second time: scores, and the logits of sparse teachers."""

from collections.abc import Callable, Sequence
from functools import partial

from hskcache import console
from hskcache.build.addition import add_field, prepare_addition
from hskcache.cache import Cache, open_cache
from hskcache.errors import DamageError, MismatchError
from hskcache.sparsity.artifact import INFO, SCORES, load_scores, save_scores
from hskcache.sparsity.levels import Importance, kept_at
from hskcache.sparsity.masks import sparse
from hskcache.sparsity.scores import UnitScores, magnitude, random_importance
from hskcache.sparsity.scoring import DrawnRows, ScoreSettings, ScoringPass
from hskcache.sparsity.student import load_trial
from hskcache.store.fields import LOGITS
from hskcache.store.files import TEMPORARY_SUFFIX
from hskcache.teacher.load import Teacher, load_teacher
from trainer.stark.folder import Folder
from trainer.stark.settings import DENSE, KNOWLEDGE, Level, Stark

OnStep = Callable[[bool], None]


def score_and_add(stark: Stark, folder: Folder, drawn: DrawnRows, on_step: tuple[OnStep, OnStep]) -> tuple[int, int]:
    """Score heads and neurons and add the logits of the sparse teachers to the cache, as far as they are not there.

    The teacher is loaded once, where anything is left to do, and gone when this returns. ``folder``: of the run; the
    trial is done. ``on_step``: called before each of the two, with whether it is done already. Returns heads and
    neurons of the dense teacher, over all layers. Raises MismatchError if the teacher is no longer the one that the
    cache was built with; DamageError if there are scores, and they are not as they were written; CacheError as scoring
    and adding do.
    """
    cache, scores = open_cache(folder.cache), _stored(folder)
    missing = [level for level in stark.levels if not folder.has_field(cache, level)]
    teacher = _dense(stark, cache) if scores is None or missing else None
    on_step[0](scores is not None)
    if scores is None:
        assert teacher is not None
        scores = _score(stark, folder, teacher, drawn)
    on_step[1](not missing)
    if teacher is not None:
        _add(stark, folder, (teacher, scores), missing)
    assert scores.expressive is not None
    return scores.expressive.heads_LH.size, scores.expressive.neurons_LF.size


def _stored(folder: Folder) -> UnitScores | None:
    """The scores of the run; None where they are still to be made."""
    if not all((folder.out / name).is_file() for name in (SCORES, INFO)):
        return None
    try:
        scores, _ = load_scores(folder.out)
    except DamageError:
        scores = UnitScores(None, None)
    if scores.expressive is None or scores.friendly is None:
        raise DamageError(
            f"the scores are not as they were written; delete {INFO} and {SCORES} in {folder.out} and run the same "
            "command again: they are made anew from the trial"
        )
    return scores


def _dense(stark: Stark, cache: Cache) -> Teacher:
    teacher = load_teacher(stark.teacher, stark.machine.device)
    if teacher.info.weights_sha256 != cache.manifest.request.teacher.weights_sha256:
        raise MismatchError(
            f"{stark.teacher} has other weights than when {cache.root} was built; put that teacher back, or give "
            "another --out"
        )
    return teacher


def _score(stark: Stark, folder: Folder, teacher: Teacher, drawn: DrawnRows) -> UnitScores:
    trial = load_trial(str(folder.student(DENSE)), teacher, stark.data.layout.task)
    settings = ScoreSettings(stark.batch_size, stark.temperature, stark.max_length)
    scoring = ScoringPass(teacher, trial, drawn, settings)
    with console.progress("rows") as bar:
        tokens, rows = (partial(bar.advance, bar.add_task(name, total=len(drawn))) for name in ("tokenize", "score"))
        scores = scoring.run(rows, tokens)
    assert isinstance(scores, UnitScores)
    save_scores(folder.out, scores, scoring.info)
    for leftover in folder.out.glob(f"scores.*{TEMPORARY_SUFFIX}"):
        leftover.unlink()
    return scores


def _add(stark: Stark, folder: Folder, scored: tuple[Teacher, UnitScores], levels: Sequence[Level]) -> None:
    teacher, scores = scored
    with console.progress("rows") as bar:
        for level in levels:
            kept = kept_at(_importance(level.method, teacher, scores, stark), level.percent)
            with sparse(teacher, kept, f"{teacher.info.name} {level.field}") as sparse_teacher:
                # Opened anew: it has a field more each time.
                addition = prepare_addition(sparse_teacher, open_cache(folder.cache), LOGITS, level.field)
                task = bar.add_task(level.field, total=len(addition.job.rows))
                add_field(addition, partial(bar.advance, task))


def _importance(method: str, teacher: Teacher, scores: UnitScores, stark: Stark) -> Importance:
    rank: dict[str, Callable[[], Importance]] = {
        KNOWLEDGE: lambda: scores.knowledgeable(stark.balance),
        "plain": lambda: scores.knowledgeable(1.0),
        "magnitude": lambda: magnitude(teacher.model),
        "random": lambda: random_importance(teacher.model, stark.seed),
    }
    return rank[method]()
