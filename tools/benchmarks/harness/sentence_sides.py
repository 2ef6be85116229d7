"""Processes of this project's Python that do a block of work for each line on stdin and print its CPU seconds.

python -m benchmarks.harness.sentence_sides cached CACHE STUDENT BATCH_SIZE STEPS
python -m benchmarks.harness.sentence_sides live TEACHER TEXTS SPEC STUDENT BATCH_SIZE STEPS
python -m benchmarks.harness.sentence_sides build TEACHER TEXTS FOLDER
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

from benchmarks.harness.sentence_recipe import Asked
from hskcache.build.request import BuildRequest, Texts
from hskcache.spec import Spec, parse_spec
from hskcache.text.layout import Layout
from trainer.run.request import FitRequest, FromCache, FromTeacher, Machine

LAYOUT = Layout(text="text")
SPEC = Spec.model_validate({"hidden": None, "embedding": {}})


def cached(cache: str, *rest: str) -> None:
    """Train from a cache as long as it is asked to, a block of steps at a time."""
    _train(FromCache(cache), Layout(), *rest)


def live(teacher: str, texts: str, spec: str, *rest: str) -> None:
    """The same with the teacher in the loop."""
    _train(FromTeacher(teacher, texts, parse_spec(Path(spec).read_text(encoding="utf-8"), spec)), LAYOUT, *rest)


def build(teacher: str, texts: str, folder: str) -> None:
    """Build the cache of all texts, which are cut into tokens before, for each line on stdin."""
    from hskcache.build.build import build as run
    from hskcache.build.prepare import make_job, with_length
    from hskcache.runtime import quiet

    request = with_length(BuildRequest(teacher, Texts(texts, LAYOUT), SPEC, "cpu"), is_language=False)
    with quiet():
        job = make_job(request)
    for _ in sys.stdin:
        shutil.rmtree(folder, ignore_errors=True)
        begun = process_time()
        run(job, Path(folder))
        print(process_time() - begun, flush=True)


def _train(source: FromCache | FromTeacher, layout: Layout, student: str, batch_size: str, steps: str) -> None:
    from transformers import PrinterCallback

    from hskcache.runtime import quiet
    from trainer.recipe import load_recipe
    from trainer.run.distill import DistillTrainer, training_arguments
    from trainer.run.prepare import prepare_fit
    from trainer.source.objective import Objective
    from trainer.source.source import Slice

    recipe = load_recipe("embedding", [f"embedding.batch_size={batch_size}", "embedding.epochs=1000"])
    machine = Machine("cpu")
    with quiet():
        job = prepare_fit(FitRequest(source, student, recipe, layout=layout), machine, tells=False)
        (stage,) = job.recipe.stages
        objective = Objective(job.student, stage.losses, job.source.knowledge.matches)
        arguments = training_arguments(stage, machine, Path("unused/stages/0-embedding/checkpoints"), None, 0)
        # Nothing but steps is timed, on either side.
        arguments = arguments.set_save(strategy="no").set_logging(strategy="no")
        loader = job.source.loader(stage.losses, Slice(int(batch_size), 0, 1, 1, "cpu"), 0)
        trainer = DistillTrainer(objective, loader, job.score, args=arguments, callbacks=[Asked(int(steps))])
        trainer.remove_callback(PrinterCallback)
        trainer.train()


SIDES: dict[str, Callable[..., None]] = {"cached": cached, "live": live, "build": build}

if __name__ == "__main__":
    SIDES[sys.argv[1]](*sys.argv[2:])
