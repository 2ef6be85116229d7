"""The options that commands of the trainer share, beside those of :mod:`hskcache.options`."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hskcache import console
from hskcache import options as shared
from hskcache.completion import known, places
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.ranges import Whole

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from trainer.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])


def students(ctx: click.Context, param: click.Parameter, begun: str) -> "list[CompletionItem]":
    """Shapes that ship, and files and folders, for completion in a shell."""
    from trainer.student.origin import STUDENTS

    return known(STUDENTS, begun) or places(ctx, param, begun)


def recipes(ctx: click.Context, param: click.Parameter, begun: str) -> "list[CompletionItem]":
    """Recipes that ship, and files, for completion in a shell."""
    from trainer.recipe import known_recipes

    return known(known_recipes(), begun) or places(ctx, param, begun)


student = click.option(
    "--student",
    required=True,
    help="tinybert4, tinybert6, a config.json, a folder or a hub id.",
    shell_complete=students,
)
classifier = click.option(
    "--model", required=True, help="Folder or hub id of a fine-tuned model and its tokenizer.", shell_complete=places
)
task_max_length = click.option(
    "--max-length",
    type=Whole(min=3),
    help="Tokens of a row at most, special tokens included.  [default: the task's, else 128]",
)
trained_max_length = click.option(
    "--max-length",
    type=Whole(min=3),
    help="Tokens of a row at most, special tokens included.  [default: those that the model was trained on, the task's "
    "or 128]",
)
seed = shared.seed("everything that is drawn at random")
bf16 = click.option("--bf16", is_flag=True, help="Compute in bfloat16 where that is safe.")
metric = click.option(
    "--metric",
    metavar="NAME",
    help="What picks the best evaluation: accuracy, f1, f1_macro, matthews or accuracy_f1, the mean of accuracy and "
    "f1; of scores pearson, spearman or pearson_spearman, their mean; of pairs of two classes by the cosines of their "
    "embeddings auc or average_precision.  [default: the task's, which is matthews for "
    "cola, f1 for mrpc and qqp, spearman for stsb, else accuracy; without a task accuracy or pearson]",
)
eval_steps = click.option(
    "--eval-steps",
    type=Whole(min=1),
    help="Evaluate every so many steps, too, where the best is kept.  [default: every epoch alone]",
)
save_steps = click.option("--save-steps", type=Whole(min=1), help="Save a checkpoint every so many steps, too.")
report_to = click.option(
    "--report-to",
    type=click.Choice(["none", "wandb", "mlflow"]),
    default="none",
    help="Send the course of the training there too, beside the logs for TensorBoard; the package is yours to install.",
)
accumulation = click.option(
    "--gradient-accumulation",
    "accumulation",
    type=Whole(min=1),
    default=1,
    help="Forward passes of one optimizer step; the batch of the recipe is divided by it.",
)


def asked(request: type) -> tuple[str, ...]:
    """Parameters that a request is made of: its attributes, but for the name of a model in memory."""
    return tuple(one.name for one in fields(request) if one.name != "called")


def out(of: str) -> Callable[[Command], Command]:
    """The option ``--out``, the folder of ``of``."""
    return click.option(
        "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help=f"Folder of {of}."
    )


def recipe(default: str, named: str, changed: str) -> Callable[[Command], Command]:
    """The options ``--recipe`` and ``--set``.

    ``default``: the recipe where none is given; ``named``: the help of ``--recipe``; ``changed``: an example of
    ``--set``.
    """
    name = click.option("--recipe", is_eager=True, default=default, help=named, shell_complete=recipes)
    changes = click.option(
        "--set", "changes", multiple=True, metavar="STAGE.KEY=VALUE", help=f"Change a recipe: {changed}."
    )
    return lambda command: name(changes(command))


def load_recipe(*, recipe: str, changes: Sequence[str], eval_steps: int | None) -> "Recipe":
    """The recipe that ``--recipe``, ``--set`` and ``--eval-steps`` say. Raises SpecError if there is none such."""
    from trainer.recipe import load_recipe as load

    return load(recipe, changes).evaluated_every(eval_steps)


# What people give to a trainer, and what it is called in a stage of a recipe.
_OF_A_STAGE = {
    "--epochs": "epochs",
    "--lr": "learning_rate",
    "--learning-rate": "learning_rate",
    "--batch-size": "batch_size",
    "--warmup-ratio": "warmup",
    "--weight-decay": "weight_decay",
    "--patience": "patience",
    "--max-grad-norm": "max_grad_norm",
}


def of_recipe(command: Command) -> Command:
    """Take flags that belong to the stages of a recipe, to say what to give in their place.

    Options of the same name that the command has itself stay what they are.
    """
    own = {name for option in getattr(command, "__click_params__", ()) for name in option.opts}
    for flag, key in _OF_A_STAGE.items():
        if flag not in own:
            hidden = click.option(
                flag, metavar="VALUE", hidden=True, expose_value=False, callback=_refused(key), help="Of a stage."
            )
            command = hidden(command)
    return command


def _refused(key: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        from trainer.recipe import load_recipe

        # A study has one by default that the command line does not name.
        recipe = load_recipe(context.params["recipe"] or "mud")
        changes = " or ".join(f"--set {stage.name}.{key}={value}" for stage in recipe.stages)
        raise SpecError(f"{parameter.opts[0]} is of a stage of the recipe {recipe.name!r}; give {changes}")

    return refuse


def tell_end(result: Mapping[str, Any], out: Path, following: Mapping[str, Sequence[str]]) -> None:
    """Say on stderr what a run has come to, beside what others reach on the same rows, and what to do with it.

    ``result``: the content of metrics.json, whichever version wrote it; ``following``: commands by what they do.
    """
    from hskcache.evaluation import share_kept
    from trainer.run.checkpoints import read_json

    metric, scores = result.get("metric"), result.get("scores") or {}
    if (out / "modules.json").is_file():
        score = f", {metric} {scores[metric]:.4f}" if metric in scores else ""
        console.say(
            f"{out} gives embeddings{score}; sentence-transformers loads it with SentenceTransformer({str(out)!r})"
        )
        return
    kind = next(iter(read_json(out / "config.json").get("architectures") or ()), "")
    if kind.endswith(("ForCausalLM", "LMHeadModel")):
        told = [f"{name} {value:.4f}" for name, value in scores.items()]
        console.say(f"{out} is a causal language model{': ' if told else ''}{', '.join(told)}")
        console.say(
            f"next: hsktrain evaluate --model {shlex.quote(str(out))} --corpus FILE tells how well it says texts"
        )
        return
    is_scored = metric is not None and metric in scores
    if not is_scored and kind.endswith("ForSequenceClassification"):
        console.say(f"{out}: no score, as there are no labelled rows; hsktrain predict --model {out} answers rows")
        return
    if metric is None or not is_scored:
        console.say(f"{out} is an encoder; a classifier begins from it with hsktrain fit --student {out}")
        return
    told = [f"{metric} {scores[metric]:.4f}"]
    if (error := result.get("standard_errors", {}).get(metric)) is not None:
        told[0] += f" (standard error {error:.4f}, {counted(result['num_rows'], 'row')})"
    if (best := result.get("best")) is not None:
        told.append(f"of epoch {best['epoch']:.4g}")
    baselines = result.get("baselines", {})
    told += [f"{name} {one[metric]:.4f}" for name, one in baselines.items() if metric in one]
    share = share_kept(scores, baselines.get("teacher", {}), metric)
    if share is not None:
        told.append(f"{100 * share:.1f} % of the teacher's is kept")
    console.say(f"{out}: {', '.join(told)}")
    commands = "; ".join(f"{shlex.join(words)} {what}" for what, words in following.items())
    card = out / "README.md"
    console.say(f"next: {commands}" + (f"; {card} is its card" if card.is_file() else ""))


def print_scores(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Metrics by data file on stdout, one a line, after the file where there are several."""
    width = max(map(len, scores)) + 2 if len(scores) > 1 else 0
    longest = max(len(name) for metrics in scores.values() for name in metrics)
    for source, metrics in scores.items():
        for name, value in metrics.items():
            click.echo(f"{source if width else '':<{width}}{name:<{longest}}  {value:.4f}")
