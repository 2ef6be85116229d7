"""The options that commands share, and what they turn into."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.errors import SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hskcache.text import Examples, Task, TokenizedRows

Command = Callable[..., Any]

max_length = click.option(
    "--max-length",
    type=click.IntRange(min=3),
    default=128,
    show_default=True,
    help="Tokens of a row at most, special tokens included.",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes CUDA where there is one.",
)
seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn at random."
)
bf16 = click.option("--bf16", is_flag=True, help="Compute in bfloat16 where that is safe.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs on stdout.")


@dataclass(frozen=True)
class Layout:
    """Which columns of a data file to read, as the user gave them: a task, columns, or both."""

    task_name: str | None
    text: str | None
    text_pair: str | None
    label: str | None
    header: bool | None

    @property
    def task(self) -> "Task | None":
        """The task preset, if one was named."""
        from hskcache.text import load_task

        return None if self.task_name is None else load_task(self.task_name)

    def read(self, source: str, label_names: Sequence[str] | None = None, problem: str | None = None) -> "Examples":
        """The rows of ``source``.

        Args:
            source: a data file or ``hub:REPO[:CONFIG]:SPLIT``.
            label_names: classes in index order; None or empty takes the task's, or what the labels show.
            problem: ``regression`` reads scores where no task says so and every one happens to be a whole number.
        """
        from hskcache.text import Overrides, Task, examples_for

        task = self.task
        if task is None and problem == "regression" and self.text is not None and self.label is not None:
            task = Task(name="scores", text=self.text, label=self.label, problem="regression", metrics=["pearson"])
        overrides = Overrides(self.text, self.text_pair, self.label, self.header)
        return examples_for(source, task, overrides, label_names or None)


def layout(command: Command) -> Command:
    """Give a command ``--task`` and the column options as one argument ``layout``."""

    @click.option(
        "--task", "task_name", metavar="NAME", help="Task preset (sst2, rte, ...): columns, labels and metrics."
    )
    @click.option("--text", metavar="COLUMN", help="Column of the text: its name, or its number counted from 0.")
    @click.option("--text-pair", metavar="COLUMN", help="Column of the second text of a pair.")
    @click.option("--label", metavar="COLUMN", help="Column of the label.")
    @click.option("--header/--no-header", default=None, help="Whether the first line names columns [default: detect].")
    @functools.wraps(command)
    def wrapper(
        *args: Any,
        task_name: str | None,
        text: str | None,
        text_pair: str | None,
        label: str | None,
        header: bool | None,
        **kwargs: Any,
    ) -> Any:
        return command(*args, layout=Layout(task_name, text, text_pair, label, header), **kwargs)

    return wrapper


def resolve_device(name: str) -> str:
    """``cpu`` or ``cuda`` for the value of ``--device``.

    Raises:
        SpecError: CUDA is asked for and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device cuda: this machine has no CUDA device; give cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def tokenized(examples: "Examples", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> "TokenizedRows":
    """Tokens of every row, with a progress bar on stderr."""
    from hskcache.text import tokenize

    with console.progress() as bar:
        task = bar.add_task("tokenize", total=len(examples))
        return tokenize(examples, tokenizer, max_length, lambda num_rows: bar.advance(task, num_rows))


def print_metrics(metrics: Mapping[str, float]) -> None:
    """A table of metrics on stdout, one a line."""
    width = max(map(len, metrics))
    for name, value in metrics.items():
        click.echo(f"{name:<{width}}  {value:.4f}")
