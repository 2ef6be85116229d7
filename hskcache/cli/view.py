"""``hskcache view``: one row of a cache as a person reads it."""

from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.classes import NO_CLASS, several_names
from hskcache.cli.options import cache_or_url_argument
from hskcache.options import as_json
from hskcache.options import view as view_option
from hskcache.ranges import Whole
from hskcache.shading import strength, terminal_style

_TARGET = "->"

if TYPE_CHECKING:
    from rich.text import Text

    from hskcache.cache import Cache
    from hskcache.store.manifest import DataInfo


@click.command()
@cache_or_url_argument
@click.argument("row", type=Whole(min=0), default=0)
@view_option("Show a row of a part of the cache")
@as_json
def view(cache: str, row: int, view: str, as_json: bool) -> None:
    """Show ROW of a cache, counted from 0: its tokens, what was kept of each, its label and the teacher's logits."""
    from hskcache.remote.place import open_any

    opened = open_any(cache).view(view)
    facts = describe_row(opened, row)
    if as_json:
        console.print_json(facts)
    else:
        _print(facts, {name: field.kind for name, field in opened.fields.items()})


def describe_row(cache: "Cache", row: int) -> dict[str, Any]:
    """Tokens, label, logits and kept positions of a row, best first, as plain values.

    Raises MismatchError if there is no such row, DamageError if a file is missing or altered.
    """
    from hskcache.describe import DESCRIPTIONS
    from hskcache.spelling import Spelling

    data, spelling = cache.row(row), Spelling(cache.tokenizer_path)
    ids = [int(token) for token in data["input_ids"]]
    names = list(cache.manifest.request.data.label_names)
    facts: dict[str, Any] = {
        "row": row,
        "row_id": data["row_id"],
        "tokens": spelling.tokens(ids),
        "input_ids": ids,
        "token_type_ids": [int(kind) for kind in data.get("token_type_ids", ())],
        "label": _label(data.get("label"), cache.manifest.request.data),
        **{key: data[key] for key in ("copy", "origin", "document") if key in data},
    }
    if cache.manifest.request.data.problem == "language":
        facts["targets"] = _targets(data)
    if "positions" in data:
        facts["words"] = _words(data, names)
    for kind, description in DESCRIPTIONS.items():
        facts |= description.facts(data.get(kind), names)
    facts["added"] = {
        name: DESCRIPTIONS[cache.fields[name].kind].shown(stored) for name, stored in data.get("added", {}).items()
    }
    told = [(one, facts[one.key]) for one in DESCRIPTIONS.values() if one.key]
    told += [(DESCRIPTIONS[cache.fields[name].kind], shown) for name, shown in facts["added"].items()]
    for description, shown in told:
        for token in chain.from_iterable(description.following(shown).values()):
            token["token"] = spelling.tokens([token["id"]])[0]
    return facts


def _targets(data: dict[str, Any]) -> list[int]:
    """Positions of the tokens of a row that a language model is to predict."""
    targets = data.get("targets")
    return [position for position in range(1, len(data["input_ids"])) if targets is None or targets[position]]


def _words(data: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """Place of the first piece of each word of a row, its tag, and that which the teacher gives it, None for none."""
    counts = range(len(data["positions"]))
    tags = [int(tag) for tag in data.get("tags", ())] or [NO_CLASS for _ in counts]
    logits = data.get("logits")
    answers = [NO_CLASS for _ in counts] if logits is None else logits.argmax(1).tolist()
    named = dict(enumerate(names))
    return [
        {"position": int(position), "tag": named.get(tag), "teacher": named.get(answer)}
        for position, tag, answer in zip(data["positions"], tags, answers, strict=True)
    ]


def _label(label: Any, data: "DataInfo") -> Any:
    """The class of a row, the list of its classes, or by class its share of a distribution; else the score, or None."""
    names = data.label_names
    if isinstance(label, list):
        shares = dict(zip(names, label, strict=True))
        return several_names(names, label) if data.problem == "multilabel" else shares
    return names[int(label)] if label is not None and names else label


def _told(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(label) or "no class"
    if isinstance(label, dict):
        return ", ".join(f"{name} {share:.3g}" for name, share in label.items())
    return "none" if label is None else str(label)


def _print(facts: dict[str, Any], kinds: dict[str, str]) -> None:
    """Print the facts of a row; ``kinds`` are those of the fields, by name."""
    from rich.table import Table

    from hskcache.describe import DESCRIPTIONS

    printer, names = console.printer(), facts["label_names"]
    own = [
        (description.heading, facts[description.key], description)
        for description in DESCRIPTIONS.values()
        if description.key
    ]
    added = [(name, shown, DESCRIPTIONS[kinds[name]]) for name, shown in facts["added"].items()]
    label = "" if {"words", "targets"} & facts.keys() else f"label {_told(facts['label'])}"
    document = [f"document {facts['document']}"] if "document" in facts else []
    lines = [line for _, shown, description in own if (line := description.line(shown, names)) is not None]
    printer.print("  ".join([f"row {facts['row']}", *_copy(facts), *document, *([label] if label else []), *lines]))
    for name, shown, description in added:
        if (line := description.line(shown, names)) is not None:
            printer.print(f"{name}  {line}")
    columns = {
        f"{heading} {layer}".strip(): kept
        for heading, shown, description in [*own, *added]
        for layer, kept in description.positions(shown).items()
    }
    nexts = {
        heading or description.key: following
        for heading, shown, description in [*own, *added]
        if (following := description.following(shown))
    }
    # Of a single text there is nothing to tell apart.
    types = facts["token_type_ids"] if any(facts["token_type_ids"]) else []
    words = {word["position"]: [word["tag"] or "", word["teacher"] or ""] for word in facts.get("words", ())}
    targets = set(facts.get("targets", ()))
    headings = [*(["type"] if types else []), *(["tag", "teacher"] if "words" in facts else [])]
    headings += ["target"] if "targets" in facts else []
    table = Table("position", "token", *headings, *columns, *nexts, box=None, padding=(0, 2))
    for position, token in enumerate(facts["tokens"]):
        shades = [strength(position, kept) for kept in columns.values()]
        ranks = [_shaded(_rank(position, kept), shade) for kept, shade in zip(columns.values(), shades, strict=True)]
        kind = [str(types[position])] if types else []
        kind += words.get(position, ["", ""]) if "words" in facts else []
        kind += [_TARGET if position in targets else ""] if "targets" in facts else []
        after = [_likeliest(following.get(position, [])) for following in nexts.values()]
        style = "bold" if any(shades) or position in targets else "dim"
        shown = _coloured(token, max(shades, default=0.0), position in targets)
        table.add_row(str(position), shown, *kind, *ranks, *after, style=style)
    printer.print(table)
    if "targets" in facts:
        printer.print(f"{_TARGET} marks a token that is predicted from those before it.", style="dim")
    if columns:
        printer.print("A number says that the position was kept, 1 the best.", style="dim")


def _copy(facts: dict[str, Any]) -> list[str]:
    """Words on whose copy a row is; none of an original."""
    if not facts.get("copy"):
        return []
    origin = "an unknown row" if facts["origin"] < 0 else f"row {facts['origin']}"
    return [f"copy {facts['copy']} of {origin}"]


def _coloured(text: str, shade: float, is_target: bool) -> "Text":
    """A token on the colour of its rank; where no rank tells, one that is predicted in a colour of its own."""
    from rich.text import Text

    return Text(text, "green") if is_target and not shade else _shaded(text, shade)


def _shaded(text: str, shade: float) -> "Text":
    """Text on a colour as strong as its rank is good; what is no terminal gets the text alone."""
    from rich.text import Text

    return Text(text, terminal_style(shade) if shade else "")


def _likeliest(tokens: list[dict[str, Any]]) -> str:
    """Tokens of which the next one is told, with their probabilities."""
    return "  ".join(f"{one['token']} {one['p']:.2f}" for one in tokens)


def _rank(position: int, kept: list[int]) -> str:
    return str(kept.index(position) + 1) if position in kept else ""
