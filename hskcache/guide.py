"""The guide that ships with the package, one topic a page: ``hskcache help`` and ``hsktrain help`` show it."""

import re
import sys

import click

from hskcache import console
from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.resources import resource

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_TOPIC = re.compile(r"^- \[([a-z0-9-]+)\]\(\1\.md\): (.+)$", re.MULTILINE)
# Links lead to files beside the page, which a terminal does not open.
_LINK = re.compile(r"\[([^][]+)\]\([^()]+\)")


def sections() -> dict[str, dict[str, str]]:
    """Sections of the guide, each with its topics and a line on every topic, in the order of the index."""
    _, *parts = _SECTION.split(_read("README"))
    return {title: dict(_TOPIC.findall(text)) for title, text in zip(parts[::2], parts[1::2], strict=True)}


def topics() -> list[str]:
    """Names of all topics, in the order of the index."""
    return [topic for section in sections().values() for topic in section]


def page(topic: str) -> str:
    """Markdown of a topic, links as their words. Raises SpecError if there is none; names the nearest."""
    if topic not in (known := topics()):
        raise SpecError(f"{topic!r} is not a topic of the guide{meant(topic, known) or '; hskcache help lists them'}")
    return _LINK.sub(r"\1", _read(topic))


@click.command("help")
@click.argument("topic", required=False)
@click.pass_context
def show(ctx: click.Context, topic: str | None) -> None:
    """Show the guide: its topics, or the page of TOPIC.

    A page is laid out for a terminal, and plain Markdown in a pipe.
    """
    if topic is None:
        _list(ctx)
    elif sys.stdout.isatty():
        from rich.markdown import Markdown

        console.printer().print(Markdown(page(topic)))
    else:
        click.echo(page(topic), nl=False)


def _list(ctx: click.Context) -> None:
    formatter = ctx.make_formatter()
    # Columns line up across sections.
    width = max(map(len, topics()))
    for title, lines in sections().items():
        with formatter.section(title):
            formatter.write_dl([(f"{topic:<{width}}", line) for topic, line in lines.items()])
    click.echo(f"{ctx.command_path} TOPIC shows a page.\n\n{formatter.getvalue()}", nl=False)


def _read(name: str) -> str:
    return resource("guide", f"{name}.md").read_text(encoding="utf-8")
