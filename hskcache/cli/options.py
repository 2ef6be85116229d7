"""Options that several commands share, beside those of :mod:`hskcache.options`."""

from pathlib import Path
from typing import Any

import click

from hskcache.completion import places
from hskcache.errors import SpecError
from hskcache.options import Command, gathered, layout, with_options


class CacheFolder(click.Path):
    """The folder of a cache; of a cache at a URL the command says what to do first."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises SpecError if it is a URL."""
        from hskcache.remote.place import is_url

        if is_url(str(value)):
            # Not the URL itself, which may hold a password.
            raise SpecError("CACHE is a URL, and this command needs a folder; fetch it first with hskcache pull URL")
        return super().convert(value, param, ctx)


class CachePlace(click.Path):
    """The folder of a cache, as a path, or its URL, as a text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the URL as it is."""
        from hskcache.remote.place import is_url

        return str(value) if is_url(str(value)) else super().convert(value, param, ctx)


class BuildPart(click.ParamType):  # type: ignore[type-arg]
    """A part of the shards of a build, such as ``3/64``."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The part. Raises SpecError if it is none."""
        from hskcache.build.request import WorkerPart

        return value if isinstance(value, WorkerPart) else WorkerPart.parse(str(value))


class Roles(click.ParamType):  # type: ignore[type-arg]
    """Roles of a conversation with commas between them."""

    name = "roles"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The roles. Raises SpecError if one is empty, or given twice."""
        roles = tuple(role.strip() for role in str(value).split(","))
        if not all(roles) or len(set(roles)) < len(roles):
            raise SpecError(f"--roles {value!r}: give roles as the messages have them, each once: assistant,user")
        return roles


cache_argument = click.argument("cache", type=CacheFolder(path_type=Path))
cache_or_url_argument = click.argument("cache", metavar="CACHE_OR_URL", shell_complete=places)
teacher_option = click.option(
    "--teacher",
    required=True,
    metavar="DIR_OR_ID",
    help="An encoder with its tokenizer, fine-tuned on the task, or for --corpus pre-trained; or a causal language "
    "model.",
    shell_complete=places,
)
_DATA = "TSV, CSV, JSONL, JSON (all also .gz), Parquet, or hub:REPO[:CONFIG]:SPLIT."
data_option = click.option("--data", required=True, metavar="FILE", help=_DATA, shell_complete=places)
_DATA_OR_CORPUS = (
    click.option("--data", metavar="FILE", help=_DATA, shell_complete=places),
    click.option(
        "--corpus",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="In place of --data: plain text, a sentence a line, a blank line between documents; no labels, no logits. "
        "For a language model also .jsonl, a document a line in the column --text.",
    ),
    click.option(
        "--one-document",
        is_flag=True,
        help="For a language model: read all of --corpus as one document, blank lines too.",
    ),
    click.option(
        "--chat",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help='For a language model, in place of --data: JSONL of {"messages": [{"role", "content"}, ...]}, through the '
        "tokenizer's chat template.",
    ),
    click.option(
        "--roles",
        type=Roles(),
        metavar="assistant,user",
        help="Of --chat: whose turns are predicted.  [default: assistant]",
    ),
)
_KEEP_TEXT = click.option(
    "--keep-text",
    is_flag=True,
    help="Keep the texts of --data beside their tokens, for students of other tokenizers; whoever has the cache reads "
    "them.",
)
_COPY = click.option(
    "--copy",
    metavar="COLUMN",
    help="Column of --data that numbers the copies of a row, as hskcache augment writes it, for views of fewer copies; "
    "'' reads none.  [default: copy, beside a column origin]",
)
on_nonfinite_option = click.option(
    "--on-nonfinite",
    type=click.Choice(("fail", "skip")),
    default="fail",
    help="What becomes of a row with NaN or infinity: it ends the command, or is left out, listed, and never trained "
    "on.",
)


def texts(command: Command) -> Command:
    """Give a command ``--data`` or ``--corpus``, and which columns are read, as one argument ``texts``."""
    from hskcache.build.request import Texts

    return with_options(_DATA_OR_CORPUS, layout(_COPY(_KEEP_TEXT(gathered(Texts, "texts")(command)))))
