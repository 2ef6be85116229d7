"""From the flags of ``hsktrain fit`` to a run; needs torch, so the command imports it when it runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hskcache import console, runtime
from hskcache.console import parse_bytes
from hskcache.encoder import trained_length, weights_digest
from hskcache.errors import DataError, MismatchError, SpecError
from hskcache.recall import of_cache, tell_cut_of
from hskcache.spec import Spec, parse_spec
from hskcache.text import Examples, TokenizedRows, load_tokenizer, tokenized
from hskcache.text.cut import tell_beyond, tell_cut
from hskcache.text.layout import Layout
from hskcache.text.remembered import Remembered, of_examples
from hskcache.text.tokenize import reach_of
from trainer.evaluation import Metric, check_labels, evaluate, metrics_for
from trainer.inference import check_fit
from trainer.recipe import Recipe, load_recipe
from trainer.run.distill import Score
from trainer.run.fit import Fit
from trainer.run.learner import Projecting, left_behind, projections_of, take_up
from trainer.source.gate import check_recipe, check_student, check_tokenizer
from trainer.source.knowledge import Knowledge
from trainer.source.source import Local, Source, cached_source
from trainer.student.create import create_student
from trainer.student.encoder import create_encoder
from trainer.student.token_types import token_types_after
from trainer.student.vocabulary import own_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_KEEP = "a cache built with --max-length"


class Scoring(NamedTuple):
    """How a student is scored; of a corpus without a task there is nothing to score.

    Attributes:
        score: the task's metrics of a student.
        metric: the one that picks the best epoch; None without a task.
        fingerprint: of the rows it is scored on; None without a task.
    """

    score: Score
    metric: str | None
    fingerprint: str | None


def make_fit(given: Mapping[str, Any], device: str, slices: int, tells: bool = True) -> Fit:
    """Open what there is to learn from, create the student and see that everything fits; nothing is written.

    Args:
        given: the flags by name.
        device: where to compute.
        slices: parts of each batch.
        tells: whether to say which rows were cut.

    Raises:
        CacheError: whichever of them is at fault.
    """
    recipe = load_recipe(given["recipe"], given["changes"]).evaluated_every(given["eval_steps"])
    source = _source(given, device)
    knowledge = source.knowledge
    check_recipe(knowledge, recipe, slices)
    memory, max_length = of_cache(knowledge.where, knowledge.request), knowledge.request.spec.max_length
    layout = _layout(given, memory)
    examples = _evaluation_rows(given["eval_data"], layout, knowledge)
    others = {source: _evaluation_rows(source, layout, knowledge) for source in given["others"]}
    metrics = _metrics(given["metric"], layout, knowledge)
    with runtime.quiet():
        tokenizer = load_tokenizer(source.tokenizer)
        student = _student(given, recipe, knowledge, tokenizer.get_vocab())
        projecting = _projecting(given, recipe, knowledge, student, tells)
    reach = reach_of(student, given["student"], max_length, _KEEP)
    if tells:
        tell_cut_of(knowledge.request, knowledge.where, reach)

    def scoring_on(examples: Examples | None, source: str) -> Scoring:
        if examples is None:
            return Scoring(lambda _student: {}, None, None)
        rows = tokenized(examples, tokenizer, max_length)
        check_fit(student, rows)
        if tells:
            tell_cut(rows.cut, len(rows), source, reach)
            tell_beyond(int(rows.lengths.max(initial=0)), trained_length(student), source, given["student"])
        return _scoring(examples, rows, metrics, given["bf16"])

    scoring = scoring_on(examples, str(given["eval_data"]))
    types = token_types_after(given["student"], knowledge.is_corpus, knowledge.reads_pairs)
    return Fit(
        source=source,
        recipe=recipe.for_task(memory.task if (task := layout.task) is None else task.name),
        student=student,
        tokenizer=tokenizer,
        score=scoring.score,
        metric=scoring.metric,
        seed=given["seed"],
        layer_map=given["layer_map"],
        run={"student": weights_digest(student), "eval": scoring.fingerprint},
        rows=replace(memory if examples is None else of_examples(examples, max_length, memory.cut), token_types=types),
        origin=given["student"],
        projecting=projecting,
        others={source: scoring_on(rows, source).score for source, rows in others.items()},
    )


def _student(
    given: Mapping[str, Any], recipe: Recipe, knowledge: Knowledge, vocabulary: Mapping[str, int]
) -> "PreTrainedModel":
    """The student at its start, once it is known to fit what there is to learn from."""
    create = create_encoder if knowledge.is_corpus else create_student
    student = create(given["student"], knowledge.interface(1 + max(vocabulary.values())), given["seed"])
    check_student(knowledge, recipe, student, given["layer_map"])
    if (theirs := own_vocabulary(given["student"])) is not None:
        check_tokenizer(knowledge, theirs, vocabulary, given["student"])
    return student


def _projecting(
    given: Mapping[str, Any], recipe: Recipe, knowledge: Knowledge, student: "PreTrainedModel", tells: bool
) -> Projecting:
    fresh = given["projection"] == "fresh"
    matches = knowledge.matches_for(int(student.config.num_hidden_layers), given["layer_map"])
    held = (
        {} if fresh or not any(stage.losses.projected for stage in recipe.stages) else projections_of(given["student"])
    )
    taken = take_up(given["student"], held, recipe, matches, student)
    if not taken and tells and (line := left_behind(given["student"], held, recipe, matches, student)) is not None:
        console.say(line)
    return Projecting(taken, fresh, exported=not given["no_projection"])


def _source(given: Mapping[str, Any], device: str) -> Source:
    if given["teacher"] is None:
        for flag in ("data", "spec_file"):
            if given[flag] is not None:
                raise SpecError(
                    f"--{flag.removesuffix('_file')} belongs to --teacher; a cache holds its rows and its spec"
                )
        return cached_source(given["cache"], given["residency"], given["rows"], given["fields"], _local(given))
    for flag in ("local_dir", "local_bytes"):
        if given[flag] is not None:
            raise SpecError(
                f"--{flag.replace('_', '-')} belongs to --cache URL; a teacher in the loop fetches no cache"
            )
    if given["rows"] is not None:
        raise SpecError("--rows belongs to --cache; with --teacher give a shorter file with --data")
    if given["fields"]:
        raise SpecError(
            f"--field {given['fields'][0]} belongs to --cache; with --teacher give that field's teacher and spec"
        )
    if given["data"] is None:
        raise SpecError("--teacher needs the training rows: give --data FILE with --task or columns")
    from trainer.source.live import live_source

    if given["spec_file"] is None:
        raise SpecError("--teacher needs --spec: what `hskcache info CACHE --spec` prints makes the two comparable")
    spec = _spec(given["spec_file"])
    if given["eval_data"] is None:
        raise SpecError("give --eval-data FILE: labelled rows that score the student and pick its best epoch")
    for source in (given["data"], given["eval_data"]):
        if given["layout"].names_columns:
            given["layout"].check(source)
    return live_source(given["teacher"], given["data"], given["layout"], spec, runtime.own_device(device))


def _local(given: Mapping[str, Any]) -> Local:
    size = given["local_bytes"]
    return Local(given["local_dir"], None if size is None else parse_bytes(size, "--local-bytes"))


def _spec(path: Path) -> Spec:
    try:
        return parse_spec(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--spec {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


def _layout(given: Mapping[str, Any], memory: Remembered) -> Layout:
    """The columns that the user named, or those that the rows of the knowledge were read with."""
    layout: Layout = given["layout"]
    return layout if given["eval_data"] is None else layout.recalling(memory, given["eval_data"], labelled=True)


def _metrics(chosen: str | None, layout: Layout, knowledge: Knowledge) -> dict[str, Metric]:
    """Of the task, the one that was chosen first; none of a corpus."""
    if knowledge.is_corpus:
        if chosen is not None:
            raise SpecError(
                f"--metric {chosen} scores a classifier, and {knowledge.where} holds a corpus; leave it out"
            )
        return {}
    return metrics_for(knowledge.request.data.problem, layout.task.metrics if layout.task else None, chosen)


def _scoring(examples: Examples, rows: TokenizedRows, metrics: dict[str, Metric], bf16: bool) -> Scoring:
    def score(model: "PreTrainedModel") -> dict[str, float]:
        return evaluate(model, examples, rows, metrics, bf16=bf16)

    return Scoring(score, next(iter(metrics)), examples.fingerprint)


def _evaluation_rows(data: str | None, layout: Layout, knowledge: Knowledge) -> Examples | None:
    """Labelled rows, their classes in the order of the knowledge; None for a corpus, which has nothing to score."""
    if knowledge.is_corpus:
        if data is not None:
            raise SpecError(
                f"--eval-data {data} scores a classifier, and {knowledge.where} holds a corpus without a task; leave "
                "it out"
            )
        if not layout.is_empty:
            raise SpecError(f"{knowledge.where} holds a corpus without columns; leave out --task, --text and --label")
        return None
    if data is None:
        raise SpecError("give --eval-data FILE: labelled rows that score the student and pick its best epoch")
    task = layout.task
    if task is not None and (1 if task.problem == "regression" else len(task.labels)) != knowledge.num_labels:
        raise MismatchError(
            f"--task {task.name} has {len(task.labels) or 1} outputs and {knowledge.where} has {knowledge.num_labels} "
            "(1 is a score); evaluate on the task that the teacher was trained for"
        )
    examples = layout.of_labelled_rows().read(data, knowledge.label_names, knowledge.request.data.problem)
    examples.require_gold("to score the student on")
    if examples.labels is None:
        raise DataError(f"--eval-data {data} is read without labels to score the student on; give --task or --label")
    check_labels(examples)
    return examples
