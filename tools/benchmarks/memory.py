"""Peak memory of training, for a cache and for one ten times larger."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.harness import report, synthetic
from hskcache import console
from hskcache.cache import HiddenField, InputsField, LogitsField
from hskcache.spec import Depth, Hidden, Length, Spec, Width
from hskcache.store.files import tokenizer_digest
from hskcache.store.ledger import Ledger
from hskcache.store.manifest import DataInfo, Field, LayerKept, Request, TeacherInfo, TokenizerInfo

VOCABULARY, LENGTH, KEPT = 1000, 16, 10
STUDENT = synthetic.Shape(2, 32, 2, 64)
RECIPE = """\
name: one-epoch
stages:
  - {name: hidden, losses: {hidden: {weight: 1.0}, soft: {weight: 1.0}}, epochs: 1}
"""
_FIT = "from trainer.cli import main; main()"


class Sizes(NamedTuple):
    """Contents of a synthetic cache: rows, rows of a shard, and the width of its float32 states."""

    num_rows: int
    shard_rows: int
    width: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's states, which random bits keep from being compressed."""
        return KEPT * self.width * 4


def request(sizes: Sizes, tokenizer: Path) -> Request:
    """Request that would have led to such a cache."""
    hidden = Hidden(
        depth=Depth(student_layers=STUDENT.num_layers, target=12, num_layers=1),
        length=Length(tokens=KEPT),
        width=Width(scheme="all"),
        encoding="float32",
    )
    return Request(
        spec=Spec(hidden=hidden, max_length=LENGTH),
        teacher=TeacherInfo(
            name="none",
            weights_sha256="0" * 64,
            config={},
            model_type="bert",
            num_layers=12,
            num_heads=12,
            width=sizes.width,
            vocab_size=VOCABULARY,
        ),
        tokenizer=TokenizerInfo(
            sha256=tokenizer_digest(tokenizer), vocab_size=VOCABULARY, pad_token_id=0, has_token_types=True
        ),
        data=DataInfo(
            name="random",
            fingerprint=f"{sizes.num_rows} random rows",
            num_rows=sizes.num_rows,
            problem="classification",
            label_names=list(synthetic.CLASSES),
        ),
        shard_rows=sizes.shard_rows,
        layers=[LayerKept(student=STUDENT.num_layers, teacher=12)],
    )


def arrays(rows: range, width: int) -> dict[str, dict[str, Any]]:
    """A shard of every field, by field, drawn from its first row's number."""
    rng = np.random.default_rng(rows.start)
    count = len(rows)
    order = np.arange(count + 1, dtype=np.int64)
    return {
        "inputs": {
            "input_ids": rng.integers(5, VOCABULARY, count * LENGTH).astype(np.uint16),
            "row_offsets": order * LENGTH,
            "row_ids": np.arange(rows.start, rows.stop, dtype=np.int64),
            "token_type_ids": np.zeros(count * LENGTH, np.uint8),
            "labels": rng.integers(0, 2, count),
        },
        "logits": {"logits": rng.standard_normal((count, 2), np.float32)},
        "hidden": {
            "position_offsets": order * KEPT,
            "layer_12/positions": np.tile(np.arange(KEPT, dtype=np.uint16), count),
            "layer_12/values": rng.standard_normal((count * KEPT, width), np.float32),
        },
    }


def write_cache(out: Path, sizes: Sizes) -> int:
    """Write a cache shard by shard, as a build does but without a teacher; returns its bytes on disk."""
    ledger = Ledger(out)
    tokenizer = synthetic.write_tokenizer(out.parent / "tokenizer", VOCABULARY)
    wanted = request(sizes, tokenizer)
    ledger.begin(wanted)
    shutil.copytree(tokenizer, out / "tokenizer", dirs_exist_ok=True)
    fields: dict[str, Field] = {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=2),
        "hidden": HiddenField(
            width=sizes.width,
            num_columns=sizes.width,
            columns="all",
            encoding="float32",
            layers=[12],
            max_tokens=KEPT,
        ),
    }
    with console.progress("shards") as bar:
        task = bar.add_task(f"write {out.name}", total=wanted.num_shards)
        for shard, rows in enumerate(wanted.shards):
            if not all(ledger.is_committed(field, shard) for field in fields):
                for field, stored in arrays(range(*rows), sizes.width).items():
                    ledger.commit(field, shard, rows, stored)
            bar.advance(task)
    manifest = ledger.finish(wanted, fields, {})
    return sum(record.num_bytes for record in manifest.records)


class Peak(NamedTuple):
    """Cost of one run: largest resident memory in bytes, seconds, and median seconds of a step."""

    num_bytes: int
    seconds: float
    step_s: float


def fit(cache: Path, residency: str, device: str) -> Peak:
    """Train one epoch in a process of its own, ``hsktrain fit`` as a user would call it."""
    folder = cache.parent
    out = folder / "student"
    shutil.rmtree(out, ignore_errors=True)
    (folder / "config.json").write_text(json.dumps(synthetic.config(STUDENT, LENGTH, VOCABULARY)), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    rows = synthetic.write_rows(folder / "dev.tsv", synthetic.fixed_lengths(64, LENGTH), words=VOCABULARY)
    command = [
        *(sys.executable, "-c", _FIT, "fit", "--cache", cache, "--residency", residency, "--out", out),
        *("--student", folder / "config.json", "--recipe", folder / "recipe.yaml", "--device", device),
        *("--eval-data", rows, "--text", "sentence", "--label", "label", "--json"),
    ]
    start = perf_counter()
    with (folder / "fit.json").open("w") as printed, (folder / "fit.log").open("w") as words:
        process = subprocess.Popen([str(part) for part in command], stdout=printed, stderr=words)
        # wait4 tells this child's own peak; RUSAGE_CHILDREN would tell the largest of all so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"hsktrain fit failed: {(folder / 'fit.log').read_text().splitlines()[-1]}")
    result = json.loads((folder / "fit.json").read_text())
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return Peak(usage.ru_maxrss * unit, perf_counter() - start, result["stages"][0]["seconds_per_step"])


@click.command()
@click.option(
    "--megabytes", type=click.IntRange(min=1), default=100, show_default=True, help="Of states in the smaller cache."
)
@click.option(
    "--factor", type=click.IntRange(min=2), default=10, show_default=True, help="How much larger the other is."
)
@click.option("--shard-rows", type=click.IntRange(min=1), default=128, show_default=True, help="Rows of a shard.")
@click.option("--width", type=click.IntRange(min=1), default=768, show_default=True, help="Of the stored states.")
@click.option("--keep-caches", is_flag=True, help="Leave the caches in --work for another run.")
@report.work
@report.device
@report.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Measure the peak memory of hsktrain fit over a cache and over a larger one, in stream and in host residency.

    In stream residency memory must not follow the size of the cache.
    """
    folder = work / "memory"
    rows = max(1, given["megabytes"] * 1_000_000 // Sizes(1, 1, given["width"]).row_bytes)
    named = {"small": rows, "large": rows * given["factor"]}
    caches = {name: folder / f"{count}x{given['width']}.hsk" for name, count in named.items()}
    sizes = {
        name: write_cache(caches[name], Sizes(count, given["shard_rows"], given["width"]))
        for name, count in named.items()
    }
    found: dict[str, dict[str, Peak]] = {}
    with console.progress("runs") as bar:
        task = bar.add_task("fit", total=4)
        for residency in ("stream", "host"):
            for name, cache in caches.items():
                found.setdefault(residency, {})[name] = fit(cache, residency, given["device"])
                bar.advance(task)
    if not given["keep_caches"]:
        for cache in caches.values():
            shutil.rmtree(cache)
    ratios = {residency: peaks["large"].num_bytes / peaks["small"].num_bytes for residency, peaks in found.items()}
    lines = []
    for residency, peaks in found.items():
        memory = [console.human_bytes(peaks[name].num_bytes) for name in named]
        lines.append([residency, *memory, f"{ratios[residency]:.3f}", f"{peaks['large'].step_s * 1e3:.2f}"])
    header = ("residency", *(f"{name}, {console.human_bytes(sizes[name])}" for name in named), "ratio", "ms a step")
    facts = {
        "settings": given,
        "cache_bytes": sizes,
        "cache_rows": named,
        "peaks": {residency: {name: p._asdict() for name, p in peaks.items()} for residency, peaks in found.items()},
    }
    title = f"peak resident memory of hsktrain fit by size of the cache, shards of {given['shard_rows']} rows"
    targets = [report.Target("large / small in stream residency", ratios["stream"], 1.15)]
    report.conclude(facts, [report.table(title, header, lines)], targets, as_json)
