"""``hsktrain fit``: train a student from a cache, or from a teacher in the loop for comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, runtime
from hskcache.errors import SpecError
from hskcache.text.layout import Layout, layout
from trainer.cli import options

if TYPE_CHECKING:
    from trainer.fit import Fit, MakeLoader
    from trainer.gate import Knowledge


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), help="The cache to learn from.")
@click.option(
    "--teacher", metavar="DIR_OR_ID", help="A teacher in the loop instead of a cache; needs --data and --spec."
)
@click.option("--data", metavar="FILE", help="Training rows, with --teacher.")
@click.option(
    "--spec", "spec_file", type=click.Path(path_type=Path), help="What to keep, with --teacher: YAML or JSON."
)
@click.option("--student", required=True, help="tinybert4, tinybert6, a config.json, a folder or a hub id.")
@click.option("--eval-data", required=True, metavar="FILE", help="Rows that score the student and pick its best epoch.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the student.")
@click.option("--recipe", default="mud", show_default=True, help="mud, logits, labels, or a .yaml file.")
@click.option(
    "--set", "changes", multiple=True, metavar="STAGE.KEY=VALUE", help="Change a recipe: prediction.epochs=3."
)
@layout
@click.option(
    "--residency",
    type=click.Choice(["auto", "device", "host", "stream"]),
    default="auto",
    show_default=True,
    help="Where the encoded cache lives while training.",
)
@click.option(
    "--gradient-accumulation",
    "accumulation",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Forward passes of one optimizer step; the batch of the recipe is divided by it.",
)
@click.option("--save-steps", type=click.IntRange(min=1), help="Steps between checkpoints [default: an epoch].")
@options.seed
@options.bf16
@options.device
@options.as_json
def fit(out: Path, as_json: bool, **given: Any) -> None:
    """Train a student through the stages of a recipe.

    The result is an ordinary checkpoint with its tokenizer. The same command goes on where a cut-off run stopped.
    """
    if (given["cache"] is None) == (given["teacher"] is None):
        raise SpecError("give either --cache CACHE or --teacher DIR --data FILE --spec SPEC.yaml")
    from trainer.distill import Machine
    from trainer.fit import fit as run

    device = runtime.resolve_device(given["device"])
    job = _job(given, device)
    machine = Machine(device, given["bf16"], given["accumulation"], given["save_steps"])
    result = run(job, out, machine)
    if as_json:
        console.print_json(result)
        return
    options.print_metrics(result["scores"])
    for stage in result["stages"]:
        pace = f"{stage['seconds_per_step']:.3f} s a step" if stage["seconds_per_step"] else "one step"
        console.say(f"{stage['name']}: {stage['steps']} steps, {pace}")


def _job(given: dict[str, Any], device: str) -> "Fit":
    from hskcache.text import load_tokenizer
    from trainer.evaluation import metrics_for
    from trainer.fit import Fit
    from trainer.gate import check_recipe, check_student
    from trainer.recipe import load_recipe
    from trainer.student.create import create_student

    layout: Layout = given["layout"]
    task_name = layout.task_name
    knowledge, loader, tokenizer_path, identity = _live(given, device) if given["teacher"] else _cached(given)
    data = knowledge.request.data
    recipe = load_recipe(given["recipe"], given["changes"], task_name or data.task)
    check_recipe(knowledge, recipe)
    with runtime.quiet():
        student = create_student(given["student"], knowledge.interface(), given["seed"])
        check_student(knowledge, recipe, student)
        tokenizer = load_tokenizer(str(tokenizer_path))
        _check_tokenizer(knowledge, tokenizer, given["student"])
    if layout.task_name is None and layout.text is None and data.task is not None:
        layout = Layout(data.task, None, layout.text_pair, layout.label, layout.header)
    examples = layout.read(given["eval_data"], tuple(data.label_names), data.problem)
    rows = options.tokenized(examples, tokenizer, knowledge.request.spec.max_length)
    metrics = metrics_for(data.problem, layout.task.metrics if layout.task else None)

    def score(model: Any) -> dict[str, float]:
        from trainer.evaluation import evaluate

        return evaluate(model, examples, rows, metrics, bf16=given["bf16"])

    return Fit(
        knowledge=knowledge,
        loader=loader,
        recipe=recipe,
        student=student,
        tokenizer=tokenizer,
        score=score,
        metric=next(iter(metrics)),
        seed=given["seed"],
        run={"knowledge": identity, "student": given["student"], "eval": examples.fingerprint},
    )


def _cached(given: dict[str, Any]) -> tuple["Knowledge", "MakeLoader", Path, str]:
    from hskcache.cache import HiddenField, InputsField, LogitsField, open_cache
    from trainer.gate import Knowledge
    from trainer.loading import KnowledgeLoader

    for flag in ("data", "spec_file"):
        if given[flag] is not None:
            raise SpecError(f"--{flag.removesuffix('_file')} belongs to --teacher; a cache holds its rows and its spec")
    cache = open_cache(given["cache"])
    fields = cache.manifest.fields
    logits, hidden, inputs = fields.get("logits"), fields.get("hidden"), fields.get("inputs")
    knowledge = Knowledge(
        request=cache.manifest.request,
        logits=logits if isinstance(logits, LogitsField) else None,
        hidden=hidden if isinstance(hidden, HiddenField) else None,
        has_labels=isinstance(inputs, InputsField) and inputs.has_labels,
        where=f"the cache {given['cache']}",
    )

    def loader(stage: Any, part: Any) -> KnowledgeLoader:
        wanted = [name for name, term in (("hidden", stage.losses.hidden), ("logits", stage.losses.soft)) if term]
        return KnowledgeLoader(
            cache,
            residency=given["residency"],
            fields=tuple(wanted),
            batch_size=part.batch_size,
            seed=given["seed"],
            device=part.device,
            rank=part.rank,
            world_size=part.world_size,
            accumulation=part.accumulation,
        )

    return knowledge, loader, cache.tokenizer_path, cache.id


def _live(given: dict[str, Any], device: str) -> tuple["Knowledge", "MakeLoader", Path, str]:
    from hskcache.spec import Spec, parse_spec
    from trainer.live import LiveLoader, live_job, live_knowledge

    if given["data"] is None:
        raise SpecError("--teacher needs the training rows: give --data FILE with --task or columns")
    spec = Spec()
    if given["spec_file"] is not None:
        try:
            spec = parse_spec(given["spec_file"].read_text(encoding="utf-8"), str(given["spec_file"]))
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"--spec {given['spec_file']}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    examples = given["layout"].read(given["data"])
    job = live_job(given["teacher"], examples, spec, device)
    knowledge = live_knowledge(job)

    def loader(stage: Any, part: Any) -> LiveLoader:  # noqa: ARG001 - the teacher runs for every stage
        return LiveLoader(
            job,
            batch_size=part.batch_size,
            seed=given["seed"],
            rank=part.rank,
            world_size=part.world_size,
            accumulation=part.accumulation,
        )

    return knowledge, loader, Path(given["teacher"]), knowledge.request.digest


def _check_tokenizer(knowledge: "Knowledge", tokenizer: Any, student: str) -> None:
    """A student that brings a tokenizer of its own must bring the one the rows were made with."""
    from hskcache.text import load_tokenizer
    from trainer.gate import check_tokenizer

    if any((Path(student) / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        check_tokenizer(knowledge, load_tokenizer(student).get_vocab(), tokenizer.get_vocab(), student)
