"""Train a student through the stages of a recipe, from a cache or from a teacher in the loop."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from hskcache import console, runtime
from hskcache.evaluation import Scores
from hskcache.locks import sole_writer
from hskcache.model.save import load_weights, save_model
from hskcache.store.kinds.embedding import Embeddings
from hskcache.text import remembered
from hskcache.text.remembered import Remembered
from trainer import chance
from trainer.losses import pairs_of
from trainer.recipe import Recipe, Stage
from trainer.run import processes
from trainer.run.baselines import Baselines
from trainer.run.card import Account, write_card
from trainer.run.checkpoints import (
    CHECKPOINTS,
    DONE,
    LOADER,
    STAGES,
    claim,
    finish,
    read_json,
    step_of,
    write_json,
)
from trainer.run.distill import DistillTrainer, Score, training_arguments
from trainer.run.learner import Learner, Projecting, told
from trainer.run.progress import EvaluationLines, Pace
from trainer.run.request import Machine
from trainer.run.resume import PlaceCallback, newest, stopped
from trainer.run.selecting import Best, best_of
from trainer.run.training import Course, selection, train, write_arguments
from trainer.similarity import PairScore
from trainer.source import projections
from trainer.source.gate import check_recipe, check_student
from trainer.source.objective import Objective, restore_attention
from trainer.source.source import Slice, Source
from trainer.student import origin
from trainer.student.recomputation import recompute_layers
from trainer.student.sentence import Embedder, save_modules


@dataclass(frozen=True)
class Fit:
    """Everything that decides a run.

    Attributes:
        student: at its start.
        score: the task's metrics of a student on the evaluation data; empty where there is no task.
        metric: the one that picks the best evaluation; None where there is no task.
        seed: of the order, the projections and dropout.
        layer_map: which layers learn from which, see :meth:`~trainer.source.knowledge.Knowledge.matches_for`.
        run: what else identifies the run, as plain values, such as the student's origin.
        rows: how the student's rows are read, which is saved with it; None where that is not known.
        others: by name, metrics on further rows, which are taken of the finished student and choose nothing.
        origin: what the student was made of, told when a run begins; None where it is told elsewhere.
        called: its name where that is another.
        baselines: makes the scores that the student's are read beside; called once, by the first process.
        account: makes what the card tells of where the student comes from; None: no card is written.
        tells: whether what is known of the rows and the teacher is said when the run begins.
    """

    source: Source
    recipe: Recipe
    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    score: Score
    metric: str | None
    seed: int = 0
    layer_map: str | None = None
    run: dict[str, Any] = field(default_factory=dict)
    rows: Remembered | None = None
    origin: str | None = None
    called: str | None = None
    projecting: Projecting = field(default_factory=Projecting)
    others: Mapping[str, Score] = field(default_factory=dict)
    baselines: Callable[[], Baselines] = Baselines
    account: Callable[[], Account] | None = None
    tells: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        """Facts that a run in the same folder must have in common with this one."""
        return {**self.run, **self.projecting.identity, **self.settings}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that all processes must have in common; of the student they take the first one's."""
        return {
            "knowledge": self.source.identity,
            "layer_map": self.layer_map,
            "metric": self.metric,
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Run:
    """A run in its folder.

    ``baselines``: the scores that its student's are read beside.
    """

    job: Fit
    out: Path
    machine: Machine
    baselines: Baselines


def fit(job: Fit, out: Path, machine: Machine) -> dict[str, Any]:
    """Run every stage that is not done yet and save the student in ``out`` as an ordinary checkpoint.

    A run that was cut off goes on from its last checkpoint with the same losses; a finished one is not run again. Under
    torchrun or accelerate every process calls this; the first writes all files. Returns what metrics.json holds: the
    scores of the student, on the evaluation data and on others, whether they are chance, where it began, and of every
    stage its steps, seconds and last losses. Raises MismatchError if the knowledge, the recipe and the student do not
    fit, ``out`` holds another run, or the processes were given different ones; SpecError if the batch size cannot be
    divided as asked; Interrupted by SIGINT or SIGTERM in training, whose last step is saved.
    """
    check_recipe(job.source.knowledge, job.recipe, machine.slices)
    check_student(job.source.knowledge, job.recipe, job.student, job.layer_map)
    out = out.resolve()
    with runtime.quiet(), ExitStack() as stack:
        device = processes.connect(machine.device)
        processes.agree(job.settings)
        processes.on_first(lambda: stack.enter_context(sole_writer(out)))
        finished = processes.on_first(lambda: claim(out, job.identity))
        if finished is not None:
            console.say(f"{out} is finished already")
            return finished
        if job.origin is not None and not (out / STAGES).exists():
            origin.tell_origin(job.origin, job.source.knowledge.reads_pairs)
        baselines = processes.on_first(job.baselines)
        if baselines.agreement and job.tells and not (out / STAGES).exists():
            console.say(baselines.agreement)
        run = Run(job, out, machine, baselines)
        learner = Learner(job.student, {**job.projecting.initial, **job.projecting.taken})
        for number, stage in enumerate(job.recipe.stages):
            folder = out / STAGES / f"{number}-{stage.name}"
            if processes.on_first((folder / DONE).is_file):
                learner = learner.again(folder / "student", device)
            else:
                _run_stage(run, number, learner, folder)
        return processes.on_first(lambda: _finished(run, learner))


def _finished(run: Run, learner: Learner) -> dict[str, Any]:
    job, out = run.job, run.out
    save_model(learner.student, out, job.tokenizer)
    projections.save(learner.projections if job.projecting.exported else {}, out)
    if (embedder := _embedder(job, learner)) is not None:
        save_modules(embedder, out)
    if job.rows is not None:
        remembered.save(job.rows, out)
    folders = [out / STAGES / f"{number}-{stage.name}" for number, stage in enumerate(job.recipe.stages)]
    stages = [read_json(folder / DONE) for folder in folders]
    scores = _through(job.score, learner)(learner.student)
    result = {"metric": job.metric, "scores": scores, **chance.record(scores), "stages": stages}
    result |= run.baselines.record() | best_of(stages[-1], job.metric)
    if isinstance(scores, Scores):
        result |= scores.uncertainty()
    if job.others:
        result["others"] = {name: _through(score, learner)(learner.student) for name, score in job.others.items()}
    if job.origin is not None:
        result |= origin.record(job.origin, job.called)
    arguments = {
        stage.name: training_arguments(stage, run.machine, folder / CHECKPOINTS, job.metric, job.seed)
        for stage, folder in zip(job.recipe.stages, folders, strict=True)
    }
    write_arguments(out, arguments)
    if job.account is not None:
        account = replace(job.account(), rows=job.rows, is_embedder=embedder is not None)
        write_card(out, learner.student, account, result)
    finish(out, result)
    return result


def _embedder(job: Fit, learner: Learner) -> Embedder | None:
    """Modules of the student's vectors; None where it answers a task, or learned from no embeddings."""
    knowledge = job.source.knowledge
    if (field := knowledge.embedded(job.recipe.kinds)) is None:
        return None
    spec = knowledge.request_for(Embeddings.name).spec
    return Embedder(
        field,
        width=int(learner.student.config.hidden_size),
        dense=learner.projections.get(projections.OF_ROWS),
        prompt=(spec.embedding and spec.embedding.prompt) or "",
        max_length=knowledge.request.spec.max_length,
    )


def _through(score: Score, learner: Learner) -> Score:
    """The score of a learner: that of an embedder needs the projection that its vectors go through."""
    return score.through(learner.projections.get(projections.OF_ROWS)) if isinstance(score, PairScore) else score


def _run_stage(run: "Run", number: int, learner: Learner, folder: Path) -> None:
    """Train ``learner`` in place; once ``folder/done.json`` stands, its weights stand in ``folder/student``."""
    job, stage = run.job, run.job.recipe.stages[number]
    if run.machine.gradient_checkpointing:
        recompute_layers(learner.student, job.called or job.origin or "the student")
    held = {} if job.projecting.fresh else learner.projections
    matches = job.source.knowledge.matches_for(learner.student.config.num_hidden_layers, job.layer_map)
    objective = Objective(learner.student, stage.losses, matches, job.seed, held)
    trainer = _trainer(job, stage, objective, folder, run.machine)
    beside = {projections.FILE: objective.projections} if objective.projections else {}
    pace, best = Pace(), Best(objective.student, folder, job.metric or "", beside)
    # In this order: a checkpoint is whole before what only an older one needs is dropped.
    lines = EvaluationLines(f"{stage.name} ", job.metric, run.baselines)
    for callback in (PlaceCallback(trainer.loader), best, pace, lines):
        trainer.add_callback(callback)
    checkpoint = processes.on_first(lambda: newest(folder))
    if checkpoint is not None:
        console.say(f"{stage.name}: going on from step {step_of(checkpoint)}")
        trainer.loader.load_state_dict(read_json(checkpoint / LOADER))
    elif objective.projections:
        console.say(
            told(stage.name, projections.by_name(objective.projections), held, job.projecting if not number else None)
        )
    if checkpoint is not None and (state := stopped(checkpoint)) is not None:
        trainer.state = state
        load_weights(trainer.model, checkpoint / "model.safetensors", trainer.args.device)
    else:
        later = sum(other.epochs for other in job.recipe.stages[number + 1 :])
        rows = trainer.num_examples(trainer.loader)
        train(trainer, checkpoint, Course(run.out, stage.name, later * rows / stage.batch_size))
    processes.wait()
    restore_attention(learner.student)
    if stage.select == "best":
        best.restore(trainer.state)
    learner.projections.update(projections.by_name(objective.projections))
    processes.on_first(lambda: _record(trainer, stage, learner, folder, pace.median_s))


def _record(
    trainer: DistillTrainer, stage: Stage, learner: Learner, folder: Path, seconds_per_step: float | None
) -> None:
    shutil.rmtree(folder / "student", ignore_errors=True)
    save_model(learner.student, folder / "student")
    projections.save(learner.projections, folder / "student")
    evaluations = [
        {key.removeprefix("eval_"): value for key, value in entry.items()}
        for entry in trainer.state.log_history
        if any(key.startswith("eval_") for key in entry)
    ]
    write_json(
        folder / DONE,
        {
            "name": stage.name,
            "steps": trainer.state.global_step,
            "seconds_per_step": seconds_per_step,
            "evaluations": evaluations,
            "losses": _last_losses(trainer),
        },
    )
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _last_losses(trainer: DistillTrainer) -> dict[str, float]:
    """The terms of the last log, each averaged over the steps since the log before."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = logged[-1] if logged else {}
    return {key.removeprefix("loss_"): value for key, value in last.items() if key.startswith("loss_")}


def _trainer(job: Fit, stage: Stage, objective: Objective, folder: Path, machine: Machine) -> DistillTrainer:
    arguments = training_arguments(stage, machine, folder / CHECKPOINTS, job.metric, job.seed)
    used = pairs_of(stage.losses, objective.matches)
    part = Slice(
        batch_size=arguments.per_device_train_batch_size,
        rank=arguments.process_index,
        world_size=arguments.world_size,
        accumulation=machine.accumulation,
        device=str(arguments.device),
        layers={kind: tuple(sorted({pair.teacher for pair in pairs})) for kind, pairs in used.items()},
        num_tokens=objective.student.get_input_embeddings().num_embeddings,
    )
    loader = job.source.loader(stage.losses, part, job.seed)
    callbacks = selection(stage.eval_steps, stage.patience, job.metric or "")
    score = _through(job.score, Learner(objective.student, projections.by_name(objective.projections)))
    trainer = DistillTrainer(objective, loader, score, args=arguments, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    return trainer
