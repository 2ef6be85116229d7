"""What students of a language model learn from each form of next tokens, and of what they take on the disk.

One student of some of the teacher's layers learns from the same rows of WikiText-2: from the likeliest tokens, from
draws, from the final states and the head, and from the text alone. Each step is a command that a user would type.
"""

from pathlib import Path
from time import perf_counter
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import Study, run, sets
from benchmarks.harness.folders import write_head, write_json

FORMS = {"top": "top:32", "draws": "sampled:50", "head": "head"}
TEXT = "text"
"""The cross-entropy alone, over the rows of the first cache."""


def make_cache(study: Study, name: str) -> dict[str, Any]:
    """Run the teacher over the corpus, or find it done; with bytes of a token to predict and minutes."""
    given, work = study.given, study.work
    begun_s = perf_counter()
    built = run(
        "hskcache", "build", "--teacher", given["teacher"], "--corpus", work / "train.txt", "--max-length",
        given["max_length"], "--vocabulary", FORMS[name], "--out", work / f"{name}.hsk", *study.place,
    )  # fmt: skip
    info = run("hskcache", "info", work / f"{name}.hsk")
    num_bytes = info["fields"]["vocabulary"]["num_bytes"]
    return {"num_rows": built["num_rows"], "bytes": num_bytes, "minutes": (perf_counter() - begun_s) / 60}


def learn(study: Study, name: str) -> dict[str, Any]:
    """Train the student, or find it finished; its scores and minutes."""
    given, work = study.given, study.work
    losses = ["losses.gold={}", "losses.next=null"] if name == TEXT else []
    changes = [f"epochs={given['epochs']:g}", f"learning_rate={given['lr']}", f"batch_size={given['batch_size']}"]
    result = run(
        "hsktrain", "fit", "--cache", work / f"{'top' if name == TEXT else name}.hsk", "--student", work / "start",
        "--recipe", "lm", *sets(f"prediction.{change}" for change in [*changes, *losses]), "--eval-data",
        work / "dev.txt", "--out", work / "students" / name, *study.place,
    )  # fmt: skip
    stage = result["stages"][-1]
    pace_s = stage["seconds_per_step"] or 0.0
    return {"scores": result["scores"], "minutes": stage["steps"] * pace_s / 60}


def scores_of(study: Study, model: Path | str) -> dict[str, float]:
    """Scores of a model on the development text."""
    place = ("--corpus", study.work / "dev.txt", "--max-length", study.given["max_length"], *study.place)
    found: dict[str, float] = run("hsktrain", "evaluate", "--model", model, *place)["metrics"]
    return found


@click.command()
@options.work_of("lm_quality")
@click.option("--teacher", required=True, metavar="DIR_OR_ID", help="A causal language model.")
@options.corpus
@options.count("--train-lines", 400, "Of wiki.train.tokens.")
@options.count("--dev-lines", 100, "Of wiki.valid.tokens.")
@options.count("--max-length", 256, "Tokens of a row.", at_least=16)
@options.count("--layers", 6, "Of the student, evenly of the teacher's.")
@options.amount("--epochs", 2.0)
@click.option("--lr", default="3.0e-4", show_default=True)
@options.batch_size
@options.device
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Teach one student from each form of next tokens and from the text, and compare bits a byte."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, source in (("train", "wiki.train.tokens"), ("dev", "wiki.valid.tokens")):
        write_head(Path(given["corpus"]).resolve() / source, work / f"{name}.txt", given[f"{name}_lines"])
    study = Study(work, work, "", given)
    if not (work / "start" / "config.json").is_file():
        layers = f"uniform:{given['layers']}"
        run("hsktrain", "create", "--from", given["teacher"], "--layers", layers, "--out", work / "start")
    caches = {name: make_cache(study, name) for name in FORMS}
    students = {name: learn(study, name) for name in (*FORMS, TEXT)}
    ends = {"teacher": scores_of(study, given["teacher"]), "start": scores_of(study, work / "start")}
    num_targets = run("hsktrain", "evaluate", "--model", work / "start", "--cache", work / "top.hsk", *study.place)[
        "num_targets"
    ]
    facts = {"settings": given | {"corpus": str(given["corpus"])}, "num_targets": num_targets, "caches": caches}
    facts |= {"students": students, "ends": ends}
    write_json(work / "results.json", facts)
    rows = [
        [
            name,
            f"{caches[name]['bytes'] / num_targets:.1f}" if name in caches else "-",
            f"{one['scores']['bits_per_byte']:.4f}",
            f"{one['scores']['perplexity']:.2f}",
            f"{one['minutes']:.1f}",
        ]
        for name, one in students.items()
    ]
    rows += [[name, "-", f"{one['bits_per_byte']:.4f}", f"{one['perplexity']:.2f}", "-"] for name, one in ends.items()]
    title = (
        f"{caches['top']['num_rows']:,} rows, {num_targets:,} tokens to predict, students of {given['layers']} layers"
    )
    header = ("learned from", "bytes a token", "bits a byte", "perplexity", "minutes")
    report.conclude(facts, [report.table(title, header, rows)], [], as_json)
