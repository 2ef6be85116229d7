"""``hskcache sparsify``: a teacher without the heads and neurons, or weights, that matter least, at several levels."""

from collections.abc import Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from hskcache import console
from hskcache.classes import require_single
from hskcache.completion import places
from hskcache.errors import SpecError
from hskcache.locks import sole_writer
from hskcache.options import as_json, dense_teacher, device, gathered, layout, seed
from hskcache.ranges import FiniteRange, Whole
from hskcache.runtime import require_teacher_extra
from hskcache.sparsity.levels import Method, Ranking, Scope, check_balance, parse_levels
from hskcache.sparsity.request import SparsifyRequest
from hskcache.text.layout import OPTIONS
from hskcache.text.remembered import of_model

if TYPE_CHECKING:
    from hskcache.sparsity.artifact import ScoreInfo
    from hskcache.sparsity.ranked import Ranked
    from hskcache.sparsity.run import SparseTeacher
    from hskcache.sparsity.scoring import ScoringPass
    from hskcache.sparsity.subjects import AnyScores, Subject
    from hskcache.teacher.load import Teacher

# What only a pass over rows needs, by the names of the parameters.
_PASS = frozenset({"data", "trial_student", "rows", "seed", "batch_size", "temperature", "max_length", *OPTIONS})
_COUNTED = ("heads", "neurons", "weights")
_COUNTS = {"percent", *(f"num_{name}" for name in _COUNTED), *(f"{name}_removed" for name in _COUNTED)}


@click.command()
@dense_teacher
@click.option(
    "--trial-student",
    metavar="DIR_OR_ID",
    help="A student distilled from it, with its tokenizer; not needed for --balance 1.",
    shell_complete=places,
)
@click.option(
    "--data",
    metavar="FILE",
    help="Labelled rows to score on, best a part of the training rows: TSV, CSV, JSONL, Parquet, or "
    "hub:REPO[:CONFIG]:SPLIT.",
    shell_complete=places,
)
@layout
@click.option(
    "--balance",
    type=FiniteRange(0, 1),
    default=0.5,
    help="Share of expressive scores; the rest are student-friendly ones.",
)
@click.option(
    "--sparsity",
    metavar="0,10,...,90",
    default="0,10,...,90",
    help="Percent of heads and of neurons to remove, or of weights, a sparse teacher each.",
)
@click.option(
    "--unstructured",
    is_flag=True,
    help="Remove single weights of the attention's and the feed-forward network's matrices, not heads and neurons.",
)
@click.option(
    "--scope",
    type=click.Choice(get_args(Scope)),
    help="With --unstructured: compare the weights of all layers, or of each layer by itself.  [default: global]",
)
@click.option(
    "--method",
    type=click.Choice(get_args(Method)),
    default="knowledge",
    help="What ranks heads and neurons, or weights.",
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="Scores of an earlier run, its folder or file: no pass, any balance.",
)
@click.option("--rows", type=Whole(min=1), help="Score on so many rows, drawn by --seed.  [default: all]")
@seed("--rows and of --method random")
@click.option("--batch-size", type=Whole(min=1), default=32, help="Rows of one gradient; changes the scores.")
@click.option("--temperature", type=FiniteRange(min=0, min_open=True), default=2.0, help="Of the distillation loss.")
@click.option(
    "--max-length",
    type=Whole(min=3),
    help="Tokens of a row at most.  [default: those that the teacher was trained on, the task's or 128]",
)
@device
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the scores and the sparse teachers."
)
@as_json
@gathered(SparsifyRequest, "request")
def sparsify(request: SparsifyRequest, out: Path, as_json: bool) -> None:
    """Write sparse teachers: a fine-tuned teacher without the heads and neurons that matter least, as StarK does.

    One pass over the rows scores what each head and neuron is worth to the task and to the trial student; with
    --unstructured, what each single weight is. Each sparse teacher is an ordinary checkpoint OUT/s30 with zeros in its
    weights. The same command goes on where an interrupted one stopped.
    """
    memory, levels = of_model(request.teacher), parse_levels(request.sparsity)
    if (data := request.data) is not None and request.scores is None and request.method == "knowledge":
        request = replace(request, layout=request.layout.recalling(memory, data, labelled=request.balance > 0))
        request.layout.check(data)
    ranking = _ranking(request)
    require_teacher_extra()
    from hskcache.sparsity.artifact import scored_length
    from hskcache.sparsity.run import check_out, write_levels
    from hskcache.teacher.load import load_teacher

    click.get_current_context().with_resource(sole_writer(out))
    max_length = request.max_length or scored_length(out) or memory.length(request.layout.task)
    dense = load_teacher(request.teacher, request.device)
    require_single(request.teacher, dense.model.config, "sparse teachers are made")
    check_out(dense, ranking, levels, out)
    ranked = _ranked(dense, ranking, replace(request, max_length=max_length), out)
    with console.advancing("write", len(levels), "levels") as advance:
        done = write_levels(ranked, levels, out, advance)
    if as_json:
        console.print_json(_facts(out, ranking, done))
    else:
        _print(done)
    there = sum(level.was_there for level in done)
    console.say(f"{out} is complete: sparse teachers asked for {len(done)}, already there {there}")


def _ranking(request: SparsifyRequest) -> Ranking:
    """Ranking of heads and neurons, once it is known that all that needs was given. Raises SpecError if it was not."""
    method, balance, scope = request.method, request.balance, _scope(request)
    if method != "knowledge":
        used = {"seed"} if method == "random" else set()
        _say_unused({"balance", "scores"} | _PASS - used, f"--method {method} scores no rows")
        return Ranking(method, seed=request.seed if used else None, scope=scope)
    check_balance(balance)
    if request.scores is not None:
        _say_unused(_PASS, "--scores takes the scores of an earlier pass")
    else:
        _check_pass(request)
    return Ranking(method, balance, scope=scope)


def _scope(request: SparsifyRequest) -> Scope | None:
    """Scope in which weights are compared, None of heads and neurons. Raises SpecError without --unstructured."""
    if not request.unstructured and request.scope is not None:
        raise SpecError(
            f"--scope {request.scope} is of single weights, and heads and neurons are compared in all layers; give "
            "--unstructured, or leave it out"
        )
    return (request.scope or "global") if request.unstructured else None


def _say_unused(names: Set[str], why: str) -> None:
    """Tell of options that were given and do nothing."""
    context = click.get_current_context()
    unused = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if unused:
        console.say(f"not used: {', '.join(unused)}; {why}")


def _check_pass(request: SparsifyRequest) -> None:
    """Raise SpecError unless all that a pass over rows needs was given."""
    balance = request.balance
    if request.data is None:
        raise SpecError("there are no rows to score on; give --data FILE, or --scores of an earlier run")
    if request.trial_student is None and balance < 1:
        raise SpecError(
            f"a balance of {balance:g} counts what a student learns; give --trial-student DIR, or --balance 1"
        )
    if not request.layout.has_label and balance > 0:
        raise SpecError(
            f"a balance of {balance:g} counts the task loss, which needs labels; give --task or --label, or --balance 0"
        )


def _ranked(dense: "Teacher", ranking: Ranking, request: SparsifyRequest, out: Path) -> "Ranked":
    """Worth of the teacher's heads and neurons, or weights; the scores are in ``out``, if there are any."""
    from hskcache.sparsity.ranked import Ranked
    from hskcache.sparsity.run import copy_scores, earlier_scores
    from hskcache.sparsity.subjects import subject_of

    subject = subject_of(ranking)
    if ranking.method == "magnitude":
        return Ranked(dense, ranking, subject.magnitude(dense.model))
    if ranking.method == "random":
        return Ranked(dense, ranking, subject.random(dense.model, request.seed))
    assert ranking.balance is not None
    if request.scores is not None:
        scores, info = earlier_scores(request.scores, dense, out, subject)
        importance = scores.knowledgeable(ranking.balance)
        copy_scores(request.scores, out)
    else:
        scores, info = _scored(_scoring(dense, subject, request), out)
        importance = scores.knowledgeable(ranking.balance)
    return Ranked(dense, ranking, importance, info.sha256)


def _scoring(dense: "Teacher", subject: "Subject", request: SparsifyRequest) -> "ScoringPass":
    """The pass that was asked for: the trial student and the rows are read."""
    from hskcache.sparsity.scoring import ScoreSettings, ScoringPass, draw
    from hskcache.sparsity.student import load_trial

    trial, layout = request.trial_student, request.layout
    student = None if trial is None else load_trial(trial, dense, layout.task)
    assert request.data is not None
    assert request.max_length is not None
    examples = layout.of_labelled_rows().read_for(dense.info.name, dense.model.config, request.data)
    examples.require_texts("sparsify")
    if request.balance > 0:
        examples.require_gold("which the task loss needs")
    settings = ScoreSettings(request.batch_size, request.temperature, request.max_length)
    return ScoringPass(dense, student, draw(examples, request.rows, request.seed), settings, subject)


def _scored(scoring: "ScoringPass", out: Path) -> "tuple[AnyScores, ScoreInfo]":
    """The scores in ``out``, if they are of this pass, or those of the pass, which are saved there."""
    from hskcache.sparsity.run import keep_scores, stored_scores

    if (found := stored_scores(out, scoring.info)) is not None:
        return found
    with console.progress("rows") as bar:
        tokenized, scored = (bar.add_task(what, total=len(scoring.drawn)) for what in ("tokenize", "score"))
        scores = scoring.run(partial(bar.advance, scored), partial(bar.advance, tokenized))
    return scores, keep_scores(out, scores, scoring.info)


def _facts(out: Path, ranking: Ranking, done: "list[SparseTeacher]") -> dict[str, Any]:
    scores = str(out / "scores.safetensors") if ranking.method == "knowledge" else None
    levels = [
        {
            "name": level.folder.name,
            "folder": str(level.folder),
            "was_there": level.was_there,
            **level.info.model_dump(include=_COUNTS),
        }
        for level in done
    ]
    asked: dict[str, Any] = {"method": ranking.method, "balance": ranking.balance, "seed": ranking.seed}
    asked |= {} if ranking.scope is None else {"scope": ranking.scope}
    return {"out": str(out), **asked, "scores": scores, "levels": levels}


def _print(done: "list[SparseTeacher]") -> None:
    facts = [level.info.model_dump(include=_COUNTS) for level in done]
    names = [name for name in _COUNTED if f"num_{name}" in facts[0]]
    rows = []
    for level, counts in zip(done, facts, strict=True):
        removed = (f"{counts[f'{name}_removed']:,} of {counts[f'num_{name}']:,}" for name in names)
        rows.append((f"{counts['percent']} %", *removed, str(level.folder)))
    header = ("level", *(f"{name} removed" for name in names), "folder")
    console.print_columns(rows, header, right=range(1, len(header) - 1))
