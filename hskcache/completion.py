"""Completion in shells: the script that a shell reads, and words for options that name a file or something known.

A function here is what click asks for the words of a parameter (``shell_complete``); one that cannot answer has none.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def show(ctx: click.Context, shell: str) -> None:
    """Print what lets SHELL complete commands, options, paths and names.

    bash: `eval "$(hskcache completion bash)"` in ~/.bashrc; zsh likewise in ~/.zshrc; fish: `hskcache completion fish >
    ~/.config/fish/completions/hskcache.fish`. The same goes for `hsktrain completion`.
    """
    root = ctx.find_root()
    name = Path(root.info_name or "").name
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())


def places(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files and folders."""
    return [CompletionItem(begun, type="file")]


def tasks(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Tasks that ship, and files."""
    from hskcache.text import task_names

    return known(task_names(), begun) or places(ctx, param, begun)


def keeps(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Short forms of what the papers keep, as examples."""
    return known(("1l_10t_0.1h", "2l_10t_0.1h", "1l_1t_0.05h", "full", "none"), begun)


def views(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Layers and positions of hidden states that the cache at hand has."""
    found: list[str] = []
    with suppress(Exception):
        from hskcache.cache import HiddenField, open_cache

        for field in open_cache(_cache(ctx)).fields.values():
            if isinstance(field, HiddenField):
                tokens = [count for count in (1, 5, 10, 20, 50) if count <= (field.max_tokens or count)]
                found += [f"{layers}l_{count}t" for layers in range(1, len(field.layers) + 1) for count in tokens]
    return known(dict.fromkeys(found), begun)


def fields(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Fields of the cache at hand; of several with commas between, the last."""
    *before, last = begun.split(",")
    names: list[str] = []
    with suppress(Exception):
        from hskcache.cache import open_cache

        names = list(open_cache(_cache(ctx)).fields)
    return [CompletionItem(",".join([*before, name])) for name in names if name.startswith(last)]


def _cache(ctx: click.Context) -> str:
    """The cache at hand; an argument is not told from others while the value of an option is missing."""
    return str(ctx.params.get("cache") or ctx.args[0])


def known(words: Iterable[str], begun: str) -> list[CompletionItem]:
    """Those of some words that begin so."""
    return [CompletionItem(word) for word in words if word.startswith(begun)]
