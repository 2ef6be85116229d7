"""The options that commands share, and what they turn into."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hskcache import console

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hskcache.text import Examples, TokenizedRows

max_length = click.option(
    "--max-length",
    type=click.IntRange(min=3),
    default=128,
    show_default=True,
    help="Tokens of a row at most, special tokens included.",
)
trained_max_length = click.option(
    "--max-length",
    type=click.IntRange(min=3),
    help="Tokens of a row at most, special tokens included.  [default: those that the model was trained on, else 128]",
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
save_steps = click.option(
    "--save-steps", type=click.IntRange(min=1), help="Save a checkpoint every so many steps, too."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs on stdout.")


def tokenized(examples: "Examples", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> "TokenizedRows":
    """Tokens of every row, with a progress bar on stderr."""
    from hskcache.text import tokenize
    from trainer import processes

    bar = console.progress()
    bar.disable = not processes.is_first()
    with bar:
        task = bar.add_task("tokenize", total=len(examples))
        return tokenize(examples, tokenizer, max_length, lambda num_rows: bar.advance(task, num_rows))


def print_metrics(metrics: Mapping[str, float]) -> None:
    """A table of metrics on stdout, one a line."""
    width = max(map(len, metrics))
    for name, value in metrics.items():
        click.echo(f"{name:<{width}}  {value:.4f}")
