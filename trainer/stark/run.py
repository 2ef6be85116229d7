"""The whole of StarK in one folder: what is done there is not done again, and what a kill cut off goes on."""

import gc
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hskcache import console, remarks
from hskcache.cache import open_cache
from hskcache.counted import counted
from hskcache.disk import writing_to
from hskcache.errors import CacheError, SpecError
from hskcache.locks import sole_writer
from hskcache.sparsity.levels import num_removed
from trainer import chance
from trainer.run import processes
from trainer.run.checkpoints import write_json
from trainer.run.fit import fit
from trainer.run.prepare import prepare_fit
from trainer.stark.confidence import Confidence, cached_confidence
from trainer.stark.folder import PLOT, RESULTS, Folder, remade
from trainer.stark.plot import plot
from trainer.stark.results import Results, results_of
from trainer.stark.settings import DENSE, Level, Stark
from trainer.stark.start import start
from trainer.stark.teachers import score_and_add

_STEPS = 5


def run(stark: Stark, out: Path) -> Results:
    """Trial, scores, sparse teachers' logits, a student for every level, the best of them [StarK 3].

    Every student begins with the same weights and sees the same batches in the same order, so that levels differ by
    their teacher alone. ``out``: its folder; a finished one may get more levels. Returns every level that is trained in
    ``out``, those of earlier commands among them. Raises SpecError: there are several processes. MismatchError: ``out``
    holds something else, or a run of other settings. DamageError: what is in ``out`` is not whole. CacheError: whatever
    else does not fit, before anything is written; or the disk is full.
    """
    if processes.count() > 1:
        raise SpecError(
            "hsktrain stark runs in one process; start it without torchrun, or give its steps one by one: hskcache "
            "build, hsktrain fit, hskcache sparsify, hskcache build --add-field, hsktrain fit --field"
        )
    folder = Folder(out.resolve())
    with writing_to(folder.out, "here"), sole_writer(folder.out), remarks.once():
        return _run(stark, folder)


def _run(stark: Stark, folder: Folder) -> Results:
    levels = stark.levels
    count = counted(len(levels), "level")
    begun = start(stark, folder, partial(_say, 1, "the dense teacher's logits"))
    _say(2, "the dense teacher's student, the trial", folder.outcome(DENSE) is not None)
    _train(stark, folder, DENSE)
    steps = partial(_say, 3, "scores of heads and neurons"), partial(_say, 4, f"the sparse teachers' logits, {count}")
    sizes = score_and_add(stark, folder, begun.drawn, steps)
    _say(5, f"the sparse teachers' students, {count}", all(folder.outcome(level) is not None for level in levels))
    for level in levels:
        if folder.outcome(level) is None and not any(num_removed(size, level.percent) for size in sizes):
            console.say(f"{level.percent} % of this teacher is no head and no neuron: {level.folder} learns as s0 did")
        _train(stark, folder, level)
    return _finish(stark, folder, sizes, begun.num_evaluated)


def _train(stark: Stark, folder: Folder, level: Level) -> None:
    if folder.outcome(level) is not None:
        return
    # What is to be told of the rows is told once, of the first student.
    job = prepare_fit(stark.request(level, folder.cache), stark.machine, tells=level == DENSE)
    result = fit(job, folder.student(level), stark.machine)
    console.say(f"student of {level.folder}: {result['metric']} {result['scores'][result['metric']]:.4f}")
    chance.tell(result, f"the student of {level.folder}", chance.help_of_fit(result))
    # In bfloat16 accelerate leaves the model in a cycle, which would wait on the device beside the next student.
    gc.collect()


def _finish(stark: Stark, folder: Folder, sizes: tuple[int, int], num_evaluated: int) -> Results:
    outcomes = folder.trained()
    scores = {level: outcome.scores for level, outcome in outcomes.items()}
    at_chance = [level for level, outcome in outcomes.items() if outcome.is_at_chance]
    results = results_of(outcomes[DENSE].metric, sizes, num_evaluated, scores, at_chance)
    results = results.with_confidences(_confidences(folder, list(outcomes)))
    folder.publish(Level(results.best.method, results.best.percent))
    record = folder.out / RESULTS
    plain = json.loads(json.dumps(results.to_json()))
    # The record comes last, so one that fits stands for a picture that fits.
    if remade(record) != plain or not (folder.out / PLOT).is_file():
        plot(results, Path(stark.data.evaluation).name, folder.out / PLOT)
        write_json(record, plain)
    return results


def _confidences(folder: Folder, levels: Sequence[Level]) -> dict[str, Confidence | None]:
    """Confidence of the levels' teachers, by field; None of one whose logits are no longer there: the student is."""
    try:
        cache = open_cache(folder.cache)
    except CacheError as error:
        console.say(f"the confidence of the teachers is not known: {error}")
        return {}
    confidences: dict[str, Confidence | None] = {}
    for level in levels:
        try:
            confidences[level.field] = cached_confidence(cache, level.field)
        except CacheError as error:
            console.say(f"the confidence of the teacher of {level.folder} is not known: {error}")
    return confidences


def _say(number: int, what: str, is_done: bool) -> None:
    console.say(f"step {number} of {_STEPS}: {what}{', done already' if is_done else ''}")
