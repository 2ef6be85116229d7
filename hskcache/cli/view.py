"""``hskcache view``: one row of a cache as a person reads it."""

from pathlib import Path
from typing import Any

import click

from hskcache import console
from hskcache.cli.options import cache_argument, json_option


@click.command()
@cache_argument
@click.argument("row", type=click.IntRange(min=0), default=0)
@json_option
def view(cache: Path, row: int, as_json: bool) -> None:
    """Show ROW of a cache: its tokens, what was kept of each, its label and the teacher's logits."""
    from hskcache.cache import open_cache
    from hskcache.errors import SpecError

    opened = open_cache(cache)
    if row >= opened.num_rows:
        raise SpecError(f"row {row} of {cache}: it has {opened.num_rows} rows, counted from 0")
    facts = describe_row(opened, row)
    if as_json:
        console.print_json(facts)
    else:
        _print(facts)


def describe_row(cache: Any, row: int) -> dict[str, Any]:
    """Tokens, label, logits and kept positions of a row, best first, as plain values."""
    data = cache.row(row)
    ids = [int(token) for token in data["input_ids"]]
    names = cache.manifest.request.data.label_names
    label = data.get("label")
    logits = data.get("logits")
    return {
        "row": row,
        "row_id": int(data["row_id"]),
        "tokens": _tokens(cache.tokenizer_path, ids),
        "input_ids": ids,
        "label": None if label is None else names[int(label)] if names else float(label),
        "logits": None if logits is None else [round(float(value), 6) for value in logits],
        "label_names": list(names),
        "kept": {
            str(layer): [int(position) for position in arrays["positions"]]
            for layer, arrays in data.get("hidden", {}).items()
        },
    }


def _tokens(folder: Path, ids: list[int]) -> list[str]:
    """The tokens' own spelling; the tokenizers library alone is enough for that."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        return [str(token) for token in ids]
    tokenizer = Tokenizer.from_file(str(path))
    return [tokenizer.id_to_token(token) or str(token) for token in ids]


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    out.print(f"row {facts['row']}  label {facts['label']}  logits {_logits(facts)}", markup=False)
    table = Table("position", "token", *(f"layer {layer}" for layer in facts["kept"]), box=None, padding=(0, 2))
    for position, token in enumerate(facts["tokens"]):
        ranks = [_rank(position, kept) for kept in facts["kept"].values()]
        style = "bold" if any(ranks) else "dim"
        table.add_row(str(position), token.replace("[", r"\["), *ranks, style=style)
    out.print(table)
    if facts["kept"]:
        out.print("A number says that the position was kept, 1 the best.", style="dim")


def _rank(position: int, kept: list[int]) -> str:
    return str(kept.index(position) + 1) if position in kept else ""


def _logits(facts: dict[str, Any]) -> str:
    values = facts["logits"] or []
    names = facts["label_names"] or [""] * len(values)
    return ", ".join(f"{name} {value:+.3f}".strip() for name, value in zip(names, values, strict=True))
