"""``hskcache view``: one row of a cache as a person reads it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.cli.options import cache_or_url_argument, json_option
from hskcache.ranges import Whole

if TYPE_CHECKING:
    from hskcache.cache import Cache


@click.command()
@cache_or_url_argument
@click.argument("row", type=Whole(min=0), default=0)
@json_option
def view(cache: str, row: int, as_json: bool) -> None:
    """Show ROW of a cache, counted from 0: its tokens, what was kept of each, its label and the teacher's logits."""
    from hskcache.remote.mirror import open_any

    facts = describe_row(open_any(cache), row)
    if as_json:
        console.print_json(facts)
    else:
        _print(facts)


def describe_row(cache: "Cache", row: int) -> dict[str, Any]:
    """Tokens, label, logits and kept positions of a row, best first, as plain values.

    Raises:
        MismatchError: there is no such row.
        DamageError: a file is missing or altered.
    """
    data = cache.row(row)
    kinds = {name: cache.fields[name].kind for name in cache.manifest.added}
    ids = [int(token) for token in data["input_ids"]]
    names = cache.manifest.request.data.label_names
    label = data.get("label")
    return {
        "row": row,
        "row_id": data["row_id"],
        "tokens": _tokens(cache.tokenizer_path, ids),
        "input_ids": ids,
        "token_type_ids": [int(kind) for kind in data.get("token_type_ids", ())],
        "label": names[int(label)] if label is not None and names else label,
        "logits": _rounded(data.get("logits", ())),
        "label_names": list(names),
        "kept": _positions(data.get("hidden", {})),
        "attention": _positions(data.get("attention", {})),
        "added": {
            name: _rounded(stored) if kinds[name] == "logits" else _positions(stored)
            for name, stored in data.get("added", {}).items()
        },
    }


def _rounded(logits: Iterable[float]) -> list[float]:
    return [round(float(value), 6) for value in logits]


def _positions(layers: dict[int, dict[str, Any]]) -> dict[str, list[int]]:
    return {str(layer): [int(position) for position in arrays["positions"]] for layer, arrays in layers.items()}


def _tokens(folder: Path, ids: list[int]) -> list[str]:
    """The tokens' own spelling; the tokenizers library alone is enough for that."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        return [str(token) for token in ids]
    tokenizer = Tokenizer.from_file(str(path))
    return [tokenizer.id_to_token(token) or str(token) for token in ids]


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    printer = console.printer()
    label = "none" if facts["label"] is None else facts["label"]
    printer.print(f"row {facts['row']}  label {label}  logits {_logits(facts, facts['logits'])}")
    columns = {f"layer {layer}": kept for layer, kept in facts["kept"].items()}
    columns |= {f"attention {layer}": kept for layer, kept in facts["attention"].items()}
    for name, stored in facts["added"].items():
        if isinstance(stored, dict):
            columns |= {f"{name} {layer}": kept for layer, kept in stored.items()}
        else:
            printer.print(f"{name}  logits {_logits(facts, stored)}")
    # Of a single text there is nothing to tell apart.
    types = facts["token_type_ids"] if any(facts["token_type_ids"]) else []
    table = Table("position", "token", *(["type"] if types else []), *columns, box=None, padding=(0, 2))
    for position, token in enumerate(facts["tokens"]):
        ranks = [_rank(position, kept) for kept in columns.values()]
        kind = [str(types[position])] if types else []
        table.add_row(str(position), token, *kind, *ranks, style="bold" if any(ranks) else "dim")
    printer.print(table)
    if columns:
        printer.print("A number says that the position was kept, 1 the best.", style="dim")


def _rank(position: int, kept: list[int]) -> str:
    return str(kept.index(position) + 1) if position in kept else ""


def _logits(facts: dict[str, Any], logits: list[float]) -> str:
    names = facts["label_names"] or [""] * len(logits)
    # A cache without logits may name its classes all the same.
    named = [f"{name} {value:+.3f}".strip() for name, value in zip(names, logits, strict=False)]
    return ", ".join(named) or "none"
