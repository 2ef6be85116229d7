"""Steps that are commands a user would type: run one, keep its JSON, go on after a cut."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.harness.folders import packaged_model, replace
from hskcache import console

ENTRY = {"hskcache": "from hskcache.cli import main; main()", "hsktrain": "from trainer.cli import main; main()"}
Runs = dict[str, dict[str, Any]]


def command_line(program: str, *arguments: object) -> list[str]:
    """The command line of one of our programs in this environment's Python."""
    return [sys.executable, "-c", ENTRY[program], *map(str, arguments)]


def run(program: str, *arguments: object) -> Any:
    """Run a command in a process of its own; its words pass through, its JSON is returned.

    Raises:
        ClickException: it fails.
    """
    words = [str(argument) for argument in arguments]
    console.say(f"$ {program} {' '.join(words)}")
    done = subprocess.run(command_line(program, *words, "--json"), stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        raise click.ClickException(f"{program} {words[0]} failed with exit code {done.returncode}")
    return json.loads(done.stdout)


def sets(changes: Iterable[str]) -> list[str]:
    """Changes of a recipe, such as ``labels.epochs=3``, as options."""
    return [word for change in changes for word in ("--set", change)]


@dataclass(frozen=True)
class Study:
    """Folders of a study, and the options that the user gave.

    Attributes:
        work: everything goes here.
        glue: folder of the task's ``train.tsv`` and ``dev.tsv``.
        task: as ``--task`` takes it.
        given: the options by name.
    """

    work: Path
    glue: Path
    task: str
    given: dict[str, Any]

    @property
    def place(self) -> tuple[str, ...]:
        """Options that say where to compute."""
        return ("--device", self.given["device"], *(("--bf16",) if self.given.get("bf16") else ()))

    @property
    def base_model(self) -> str:
        """The encoder that the teacher starts from: what is given, or the model of an installed package."""
        return self.given["base_model"] or str(packaged_model("--base-model"))

    @property
    def judged(self) -> tuple[object, ...]:
        """Options that name the rows to score on, and their task."""
        return ("--eval-data", self.glue / "dev.tsv", "--task", self.task)

    def data(self, rows: Path) -> tuple[object, ...]:
        """Options that name rows of the task."""
        return ("--data", rows, "--task", self.task)

    def finetune(self, rows: Path, epochs: object, max_length: int, learning_rate: str = "5e-5") -> dict[str, Any]:
        """Fine-tune the teacher, or find it finished."""
        result: dict[str, Any] = run(
            "hsktrain", "finetune", "--model", self.base_model, "--data", rows, *self.judged, "--epochs", epochs,
            "--lr", learning_rate, "--max-length", max_length, "--out", self.work / "teacher", *self.place,
        )  # fmt: skip
        return result

    def student_config(self) -> Path:
        """The shape of a student of the fine-tuned teacher's vocabulary and as many heads."""
        teacher = json.loads((self.work / "teacher" / "config.json").read_text(encoding="utf-8"))
        return student_config(
            self.work / "student.json", self.given, teacher["num_attention_heads"], teacher["vocab_size"]
        )


def student_config(path: Path, shape: dict[str, Any], num_heads: int, vocab_size: int) -> Path:
    """Write the shape of a BERT for a student.

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


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    """Accuracy, optimiser steps and minutes of a training.

    Minutes are steps times the median step: a run that was cut off and went on, or waited for the machine, counts the
    same.
    """
    done = [(stage["steps"], stage["seconds_per_step"] or 0.0) for stage in result["stages"]]
    return {
        "accuracy": result["scores"]["accuracy"],
        "steps": sum(steps for steps, _ in done),
        "minutes": sum(steps * seconds for steps, seconds in done) / 60,
    }


def plain(given: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def earlier_runs(path: Path, settings: dict[str, Any], key: str = "runs") -> Runs:
    """Runs in a results file of the same settings, save the number of seeds; none without a file.

    Raises:
        ClickException: the file is of other settings.
    """
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
    runs: Runs = facts[key]
    return runs


def complete(runs: Runs, names: Iterable[str], seeds: int, train: Callable[[str, int], Any]) -> Iterator[None]:
    """Make the runs that are missing; gives the floor after each, to write down what is there.

    Args:
        runs: by name and seed, filled in.
        names: of all variants.
        seeds: of each.
        train: makes the run of a name and a seed.
    """
    # Seeds outermost: a study that is cut off has every variant for the seeds it got to.
    for seed in range(seeds):
        for name in names:
            done = runs.setdefault(name, {})
            if str(seed) not in done:
                done[str(seed)] = train(name, seed)
            yield
