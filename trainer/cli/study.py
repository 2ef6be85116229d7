"""``hsktrain study``: how much knowledge is enough, from one cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.completion import known, places
from hskcache.options import as_json, device, gathered, layout
from hskcache.ranges import Whole
from trainer.cli import options
from trainer.run.request import Machine

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hskcache.studied import StudyResults
    from trainer.study.plan import StudyPlan


def _studies(ctx: click.Context, param: click.Parameter, begun: str) -> "list[CompletionItem]":
    """Studies that ship, and files, for completion in a shell."""
    from trainer.study.plan import known_studies

    return known(known_studies(), begun) or places(ctx, param, begun)


def _plan(*, study: str | None, axes: tuple[str, ...], num_seeds: int | None, **given: Any) -> "StudyPlan":
    """The plan of a study, with what the command line says in its place."""
    from trainer.study.plan import load_plan

    plan = load_plan(study, axes)
    labels = given.pop("labels")
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= {} if num_seeds is None else {"seeds": num_seeds}
    return plan.model_copy(update=changes | ({} if labels else {"labels": False}))


@click.command()
@options.of_recipe
@click.argument("study", metavar="[STUDY]", required=False, shell_complete=_studies)
@click.option(
    "--cache",
    required=True,
    metavar="PATH_OR_URL",
    help="The cache that everything learns from.",
    shell_complete=places,
)
@click.option(
    "--eval-data", required=True, metavar="FILE", help="Labelled rows that score every student.", shell_complete=places
)
@options.out("the study")
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=VALUE,VALUE",
    help="Vary this: view, layers, tokens, width, another part of a view, field, recipe, student, layer-map, rows, or "
    "a setting of a stage such as hidden.epochs; may be repeated, and replaces an axis of STUDY.",
)
@click.option(
    "--student",
    help="Where points begin that no axis says it of: tinybert4, tinybert6, a config.json, a folder or a hub id.",
    shell_complete=options.students,
)
@click.option(
    "--recipe",
    is_eager=True,
    help="That points learn by which no axis says it of.  [default: the study's, or mud]",
    shell_complete=options.recipes,
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="STAGE.KEY=VALUE",
    help="Change the recipes that have the stage: hidden.epochs=3.",
)
@click.option("--seeds", "num_seeds", type=Whole(min=1), help="Runs of each point.  [default: the study's, or 3]")
@click.option("--baseline", metavar="POINT", help="What differences are taken to.  [default: the study's, or all kept]")
@click.option(
    "--no-labels", "labels", flag_value=False, default=True, show_default=False, help="Leave labels alone out."
)
@click.option("--rows", "num_rows", type=Whole(min=1), help="Learn from the first so many rows of the cache alone.")
@click.option("--eval-rows", type=Whole(min=1), help="Score on the first so many rows of --eval-data alone.")
@click.option(
    "--skip-missing",
    "skips_missing",
    is_flag=True,
    help="Leave out the points that the cache cannot serve, with the reasons; else nothing is run.",
)
@click.option("--drop-students", "drops_students", is_flag=True, help="Delete the weights of students that are scored.")
@click.option(
    "--cells",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the runs; a run that another study has finished there is taken.  [default: OUT/cells]",
)
@click.option("--estimate", "is_estimate", is_flag=True, help="Tell the cost, and run nothing.")
@layout
@options.metric
@options.bf16
@device
@as_json
@gathered(lambda device, bf16: Machine(device, bf16), "machine", ("device", "bf16"))
@gathered(_plan, "plan", ("study", "axes", "num_seeds", "recipe", "baseline", "labels"))
def study(plan: "StudyPlan", out: Path, machine: Machine, is_estimate: bool, as_json: bool, **given: Any) -> None:
    """Train the same student over the points of STUDY and over seeds, from one cache, and compare.

    STUDY is one that ships (overview, depth, length, width, joint, missing, score, encoding, layer-map), a .yaml file,
    or left out where --axis says it all. Each point and seed is a run of its own, named by all that decides it: what is
    finished is not run again, whichever study asks, and the same command, in several processes with one OUT as well,
    goes on with what is left. OUT/results.json, OUT/results.csv and OUT/study.png tell of all.
    """
    from trainer.study.request import StudyRequest
    from trainer.study.run import estimate
    from trainer.study.run import study as run

    request = StudyRequest(plan, **given)
    if is_estimate:
        cost = estimate(request, out, machine)
        if as_json:
            console.print_json(cost.to_json())
        else:
            click.echo(cost.told())
        return
    results = run(request, out, machine)
    if as_json:
        console.print_json(results.model_dump(mode="json"))
    else:
        _tell(results, out, plan.note)


def _tell(results: "StudyResults", out: Path, note: str) -> None:
    """Print the table, and say what is in the folder."""
    from hskcache.studied import RESULTS
    from trainer.study.curves import PLOT
    from trainer.study.outcome import TABLE, legend, table

    click.echo(table(results))
    for line in filter(None, (legend(results), " ".join(note.split()))):
        console.say(line)
    console.say(f"{out / PLOT} shows the scores over bytes a row; {out / RESULTS} and {out / TABLE} have them all")
