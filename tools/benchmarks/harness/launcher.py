"""``tools/bench``: one command for every module of the package; nothing is imported but the one that runs."""

import ast
import os
from pathlib import Path

import click

import benchmarks
from hskcache.console import Commands

FOLDER = Path(benchmarks.__file__).parent
KEPT = dict.fromkeys(("ablation", "projection", "quality", "stark"), "the runs that are finished")
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def summary(name: str) -> str:
    """The first line of a benchmark's docstring, read without importing the module."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


class Benchmarks(Commands):
    """The group of all benchmarks, which lists them without importing any."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each name with the first line of its docstring."""
        with formatter.section("Benchmarks"):
            formatter.write_dl([(name, summary(name)) for name in self.list_commands(ctx)])


@click.group(
    cls=Benchmarks,
    commands_at={name: f"benchmarks.{name}:main" for name in NAMES},
    kept_by=KEPT,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run a benchmark, or list them all: without a name.

    What they are for and what was measured stands in tools/benchmarks/README.md.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    # For the benchmark and for every process that it starts.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
