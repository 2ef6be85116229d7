"""A student of a sentence embedder: from a cache, and by the recipe that sentence-transformers documents."""

import json
import shutil
import subprocess
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import run
from benchmarks.harness.folders import emptied, packaged_model, replace
from benchmarks.harness.measure import environment, ratio, take_turns
from benchmarks.harness.sentences import column, create_start

OURS, AGAIN, THEIRS = "build, then fit", "fit alone: the cache is there", "sentence-transformers"
_RECIPE = Path(__file__).parent / "harness" / "sentence_recipe.py"


def write_texts(pairs: Path, out: Path, count: int) -> None:
    """Write the first texts of both columns of QQP, a JSON object a line."""
    texts = islice(column(pairs, "question1", "question2"), count)
    replace(out, "".join(json.dumps({"text": text}) + "\n" for text in texts))


class Distillation:
    """A teacher, a start of three of its layers and some texts; each side makes a student of them.

    Args:
        folder: of all that is made.
        given: the options by name.
    """

    def __init__(self, folder: Path, given: dict[str, Any]) -> None:
        self.folder, self.python = folder, given["python"]
        self.teacher = Path(given["teacher"] or packaged_model("--teacher"))
        self.texts, self.start, self.cache = folder / "texts.jsonl", folder / "start", folder / "cache"
        self.phases: list[dict[str, float]] = []
        write_texts(given["glue"] / "QQP-subset" / "train.tsv", self.texts, given["rows"])
        create_start(self.teacher, "uniform:3", self.start)

    def ours(self) -> None:
        """Build the cache and fit the student."""
        shutil.rmtree(self.cache, ignore_errors=True)
        begun = perf_counter()
        run(
            "hskcache", "build", "--teacher", self.teacher, "--data", self.texts, "--text", "text",
            "--embedding", "model", "--device", "cpu", "--out", self.cache,
        )  # fmt: skip
        built = perf_counter()
        self.fit()
        self.phases.append({"encode_s": built - begun, "train_s": perf_counter() - built})

    def fit(self) -> None:
        """Fit the student to the cache that is there."""
        out = self.folder / "ours"
        shutil.rmtree(out, ignore_errors=True)
        run(
            "hsktrain", "fit", "--cache", self.cache, "--student", self.start, "--recipe", "embedding",
            "--device", "cpu", "--out", out,
        )  # fmt: skip

    def theirs(self) -> None:
        """Encode with the library, then train with its MSELoss."""
        out = emptied(self.folder / "theirs")
        words = [self.python, str(_RECIPE), "train", str(self.teacher), str(self.start), str(self.texts), str(out)]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False, text=True)
        if done.returncode:
            raise click.ClickException(f"{self.python} failed with exit code {done.returncode}")

    def score(self, model: Path, pairs: Path) -> float:
        """Spearman's correlation of cosines with QQP's labels."""
        columns = ("--text", "question1", "--text-pair", "question2", "--label", "is_duplicate")
        found = run("hsktrain", "evaluate", "--model", model, "--data", pairs, *columns, "--device", "cpu")
        return float(found["metrics"]["spearman"])


@click.command()
@click.option("--python", required=True, metavar="FILE", help="A Python that has sentence-transformers[train].")
@click.option(
    "--teacher", metavar="DIR", help="A folder of sentence-transformers that pools by the mean and normalizes."
)
@options.count("--rows", 10_000, "Texts of QQP's training set.")
@options.glue
@options.repetitions(3)
@options.work
@options.as_json
def main(glue: Path, work: Path, as_json: bool, **given: Any) -> None:
    """Time whole processes of both sides, alternating, for an epoch over the same texts, and score both students.

    Either side computes the teacher's embeddings first. The student begins as three of the teacher's layers, with the
    settings of the recipe `embedding` on both sides.
    """
    made = Distillation(emptied(work / "embedding"), given | {"glue": glue})
    sides = {OURS: made.ours, AGAIN: made.fit, THEIRS: made.theirs}
    times = take_turns("embedding", sides, given["repetitions"], warmup=0)
    dev = glue / "QQP-subset" / "dev.tsv"
    scores = {
        "teacher": made.score(made.teacher, dev),
        "start": made.score(made.start, dev),
        OURS: made.score(made.folder / "ours", dev),
        THEIRS: made.score(made.folder / "theirs", dev),
    }
    rows = [
        [side, f"{times.median(side):.1f}", ratio(times, side, THEIRS), f"{scores[side]:.4f}" if side in scores else ""]
        for side in sides
    ]
    rows += [[name, "", "", f"{scores[name]:.4f}"] for name in ("teacher", "start")]
    title = f"{given['rows']:,} texts, one epoch of batches of 64"
    header = ("side", "seconds", f"/ {THEIRS} (quartiles)", "Spearman on QQP dev")
    facts = {"settings": given, "environment": environment(), **times.facts(), "phases": made.phases, "scores": scores}
    report.conclude(facts, [report.table(title, header, rows)], [], as_json)
