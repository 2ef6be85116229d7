"""Options that several benchmarks have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.harness.folders import MODEL_PACKAGE, ROOT, shared
from benchmarks.harness.synthetic import SHAPES
from hskcache.encoded import ENCODED

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_Folder = click.Path(path_type=Path, file_okay=False)


def _resolved(_context: click.Context, _option: click.Parameter, name: str) -> str:
    from hskcache.runtime import resolve_device

    return resolve_device(name)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of a table.")
work = click.option(
    "--work",
    type=_Folder,
    default=ROOT / "runs" / "bench",
    help="Folder for what is made on the way and used again.  [default: runs/bench in the checkout]",
)
device = click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
resolved_device = click.option(
    "--device", default="cpu", show_default=True, callback=_resolved, help="auto, cpu, cuda or cuda:N."
)
keep = click.option("--keep", default="1l_10t_0.1h", show_default=True, help="What the cache keeps.")
encoding = click.option(
    "--encoding",
    type=click.Choice(list(ENCODED)),
    default="int8",
    show_default=True,
    help="How the cache stores values.",
)
teacher_shape = click.option("--teacher", type=click.Choice(list(SHAPES)), default="bert-base", show_default=True)
clock = click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    show_default=True,
    help="Seconds of the clock, or of this process's threads: for a machine that others use.",
)
student_of_4 = click.option(
    "--student", default="tinybert4", show_default=True, help="What hsktrain takes, of 4 layers."
)
batch_size = click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows of a step."
)
block = click.option("--block", type=click.IntRange(min=1), help="Steps timed together.  [default: 1; 20 on CUDA]")
glue = click.option(
    "--glue",
    type=_Folder,
    default=lambda: shared("HSKCACHE_GLUE", "glue"),
    help="Folder with SST-2/train.tsv and dev.tsv.  [default: $HSKCACHE_GLUE, else ../shared/glue]",
)
corpus = click.option(
    "--corpus",
    type=_Folder,
    default=lambda: shared("HSKCACHE_CORPUS", "corpus"),
    help="Folder with wiki.train.tokens.  [default: $HSKCACHE_CORPUS, else ../shared/corpus]",
)
language_teacher = click.option(
    "--teacher", metavar="DIR_OR_ID", help="A real causal language model.  [default: one of random weights]"
)
base_model = click.option(
    "--base-model", metavar="DIR_OR_ID", help=f"What the teacher starts from.  [default: of {MODEL_PACKAGE}]"
)


def count(name: str, default: int, help_text: str | None = None, at_least: int = 1) -> Callable[[Decorated], Decorated]:
    """A whole number."""
    return click.option(name, type=click.IntRange(min=at_least), default=default, show_default=True, help=help_text)


def amount(name: str, default: float, help_text: str | None = None) -> Callable[[Decorated], Decorated]:
    """A number above 0, such as epochs."""
    return click.option(
        name, type=click.FloatRange(min=0, min_open=True), default=default, show_default=True, help=help_text
    )


def length(help_text: str, default: int = 128) -> Callable[[Decorated], Decorated]:
    """``--length``, tokens of a row."""
    return click.option("--length", type=click.IntRange(4, 512), default=default, show_default=True, help=help_text)


def repetitions(default: int = 15, of: str = "Of each side.") -> Callable[[Decorated], Decorated]:
    """``--repetitions``."""
    return count("--repetitions", default, of)


def work_of(name: str) -> Callable[[Decorated], Decorated]:
    """``--work``, by default ``runs/NAME`` in the checkout."""
    return click.option(
        "--work",
        type=_Folder,
        default=ROOT / "runs" / name,
        help=f"Everything goes here; what is finished there is not run again.  [default: runs/{name} in the checkout]",
    )


def real_teacher(command: Decorated) -> Decorated:
    """``--teacher``, ``--data`` and ``--task``, see :func:`~benchmarks.harness.jobs.real_rows`."""
    for option in (
        click.option("--task", default="sst2", show_default=True, help="Task of --data."),
        click.option("--data", metavar="FILE", help="Real text for --teacher."),
        click.option("--teacher", metavar="DIR_OR_ID", help="A fine-tuned teacher; needs --data."),
    ):
        command = option(command)
    return command
