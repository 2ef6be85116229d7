"""What students of a language model learn from each form of next tokens, and of what they take on the disk.

Students of some of the teacher's layers and of random weights learn from the same rows of WikiText-2: from the text
alone, from the likeliest tokens, from draws, and from final states with the head; each with and without the teacher's
top hidden state beside it, and of all positions or of the share of which the teacher is least sure. Each step is a
command that a user would type.
"""

import json
from itertools import product
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import Study, complete, earlier_runs, plain, run, sets
from benchmarks.harness.folders import replace, write_head, write_json

FORMS = {"top": "top:32", "draws": "sampled:50", "head": "head"}
TEXT = "text"
"""The cross-entropy alone, over the rows of the first cache."""
STATES, UNSURE = " + states", " where unsure"
LESSONS = (TEXT, *("".join(parts) for parts in product(FORMS, ("", STATES), ("", UNSURE))))
"""What is learned from; the states are those of the top layer."""
STUDENTS = ("layers", "shape")


def cache_of(lesson: str) -> str:
    """Name of the cache that a lesson is in."""
    form = next(iter(FORMS)) if lesson == TEXT else lesson.split()[0]
    return f"{form}-unsure" if lesson.endswith(UNSURE) else form


def make_cache(study: Study, name: str) -> dict[str, Any]:
    """Run the teacher over the corpus, or find it done; with bytes of each field and minutes."""
    given, root, form = study.given, study.work / f"{name}.hsk", FORMS[name.split("-")[0]]
    place = ["--keep", f"1l_{given['share']}t", "--score", "entropy"] if name.endswith("unsure") else ["--keep", "1l"]
    begun_s = perf_counter()
    built = run(
        "hskcache", "build", "--teacher", given["teacher"], "--corpus", study.work / "train.txt", "--max-length",
        given["max_length"], "--vocabulary", form, "--student-layers", given["layers"], *place, "--out", root,
        *study.place,
    )  # fmt: skip
    minutes = (perf_counter() - begun_s) / 60
    info = run("hskcache", "info", root)
    # What all rows share, the head, is told apart.
    shared = sum(path.stat().st_size for path in (root / "vocabulary").glob("constants-*"))
    fields = {field: info["fields"][field]["num_bytes"] for field in ("vocabulary", "hidden")}
    num_targets = info["data"]["provenance"]["language"]["num_targets"]
    facts = {"num_rows": built["num_rows"], "num_targets": num_targets, "bytes": fields, "shared": shared}
    return facts | {"minutes": minutes}


def make_student(study: Study, kind: str) -> Path:
    """Some of the teacher's layers, or a configuration of the same vocabulary."""
    given, path = study.given, study.work / kind
    if kind == "shape":
        teacher = run("hskcache", "info", study.work / f"{next(iter(FORMS))}.hsk")["teacher"]
        width = given["width"]
        sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": given["layers"]}
        heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
        shape = {"model_type": "llama", "vocab_size": teacher["vocab_size"], "tie_word_embeddings": True}
        replace(path.with_suffix(".json"), json.dumps(shape | sizes | heads, indent=1) + "\n")
        return path.with_suffix(".json")
    if not (path / "config.json").is_file():
        layers = f"uniform:{given['layers']}"
        run("hsktrain", "create", "--from", given["teacher"], "--layers", layers, "--out", path)
    return path


def learn(study: Study, kind: str, lesson: str, seed: int) -> dict[str, Any]:
    """Train a student; its scores and the minutes of its steps."""
    given, work = study.given, study.work
    losses = ["losses.gold={}", "losses.next=null"] if lesson == TEXT else []
    losses += [f"losses.hidden.weight={given['states_weight']}"] if STATES in lesson else []
    rate = given["lr"] if kind == "layers" else given["shape_lr"]
    changes = [f"epochs={given['epochs']:g}", f"learning_rate={rate}", f"batch_size={given['batch_size']}"]
    out = work / "students" / f"{kind}-{lesson.replace(' ', '')}-{seed}"
    result = run(
        "hsktrain", "fit", "--cache", work / f"{cache_of(lesson)}.hsk", "--student", make_student(study, kind),
        "--recipe", "lm", *sets(f"prediction.{change}" for change in [*changes, *losses]), "--eval-data",
        work / "dev.txt", "--seed", seed, "--out", out, *study.place,
    )  # fmt: skip
    stage = result["stages"][-1]
    return {"scores": result["scores"], "minutes": stage["steps"] * (stage["seconds_per_step"] or 0.0) / 60}


def scores_of(study: Study, model: Path | str) -> dict[str, float]:
    """Scores of a model on the development text."""
    place = ("--corpus", study.work / "dev.txt", "--max-length", study.given["max_length"], *study.place)
    found: dict[str, float] = run("hsktrain", "evaluate", "--model", model, *place)["metrics"]
    return found


def tables(facts: dict[str, Any], students: tuple[str, ...], lessons: tuple[str, ...]) -> list[str]:
    """A table for each kind of student: bytes, scores of each seed, and the difference to the text alone by seed."""
    header = ("learned from", "bytes a token", "bits a byte", "of each seed", "to text", "minutes")
    first = facts["caches"][cache_of(TEXT)]
    num_targets = first["num_targets"]
    texts = []
    for kind in students:
        rows = []
        for lesson in lessons:
            done = facts["runs"].get(f"{kind}: {lesson}", {})
            bits = {seed: one["scores"]["bits_per_byte"] for seed, one in done.items()}
            alone = {
                seed: one["scores"]["bits_per_byte"] for seed, one in facts["runs"].get(f"{kind}: {TEXT}", {}).items()
            }
            apart = [bits[seed] - alone[seed] for seed in bits if seed in alone]
            if not bits:
                continue
            rows.append(
                [
                    lesson,
                    "-"
                    if lesson == TEXT
                    else f"{bytes_of(facts['caches'][cache_of(lesson)], lesson) / num_targets:.1f}",
                    f"{mean(bits.values()):.4f}",
                    " ".join(f"{one:.4f}" for one in bits.values()),
                    f"{mean(apart):+.4f}" if apart and lesson != TEXT else "-",
                    f"{mean(one['minutes'] for one in done.values()):.1f}",
                ]
            )
        title = f"{kind}: {first['num_rows']:,} rows, {num_targets:,} tokens to predict"
        texts.append(report.table(title, header, rows))
    ends = [[name, f"{one['bits_per_byte']:.4f}", f"{one['perplexity']:,.2f}"] for name, one in facts["ends"].items()]
    return [*texts, report.table("untaught", ("model", "bits a byte", "perplexity"), ends)]


def bytes_of(cache: dict[str, Any], lesson: str) -> int:
    """Bytes on the disk of what a lesson reads of a cache, but for what all rows share."""
    num_bytes: int = cache["bytes"]["vocabulary"] - cache["shared"]
    return num_bytes + (cache["bytes"]["hidden"] if STATES in lesson else 0)


@click.command()
@options.work_of("lm_quality")
@click.option("--teacher", required=True, metavar="DIR_OR_ID", help="A causal language model.")
@options.corpus
@options.count("--train-lines", 400, "Of wiki.train.tokens.")
@options.count("--dev-lines", 100, "Of wiki.valid.tokens.")
@options.count("--max-length", 256, "Tokens of a row.", at_least=16)
@click.option("--student", "students", multiple=True, type=click.Choice(STUDENTS), default=STUDENTS, show_default=True)
@click.option("--lesson", "lessons", multiple=True, type=click.Choice(LESSONS), default=LESSONS, show_default=True)
@options.count("--layers", 6, "Of the students; evenly of the teacher's.")
@options.count("--width", 256, "Of the student of random weights.", at_least=64)
@options.amount("--epochs", 2.0)
@click.option("--lr", default="3.0e-4", show_default=True, help="Of the teacher's layers.")
@click.option("--shape-lr", default="1.0e-3", show_default=True, help="Of random weights.")
@click.option("--states-weight", default="1.0", show_default=True, help="Of hidden states beside next tokens.")
@options.amount("--share", 0.2, "Of the positions, where the teacher is least sure.")
@options.batch_size
@options.count("--seeds", 2)
@options.device
@options.as_json
def main(work: Path, as_json: bool, students: tuple[str, ...], lessons: tuple[str, ...], **given: Any) -> None:
    """Teach students from each form of next tokens and from the text, and compare bits a byte."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    settings = plain(given)
    runs = earlier_runs(work / "results.json", settings)
    for name, source in (("train", "wiki.train.tokens"), ("dev", "wiki.valid.tokens")):
        write_head(Path(given["corpus"]).resolve() / source, work / f"{name}.txt", given[f"{name}_lines"])
    study = Study(work, work, "", given)
    caches = earlier_runs(work / "results.json", settings, "caches")
    for name in dict.fromkeys(map(cache_of, (TEXT, *lessons))):
        caches[name] = caches.get(name) or make_cache(study, name)
    ends = {"teacher": scores_of(study, given["teacher"])}
    if "layers" in students:
        ends["layers, untrained"] = scores_of(study, make_student(study, "layers"))
    facts = {"settings": settings, "caches": caches, "ends": ends, "runs": runs}
    names = [f"{kind}: {lesson}" for kind in students for lesson in lessons]

    def train(name: str, seed: int) -> dict[str, Any]:
        kind, lesson = name.split(": ")
        return learn(study, kind, lesson, seed)

    for _ in complete(runs, names, given["seeds"], train):
        write_json(work / "results.json", facts)
    report.conclude(facts, tables(facts, students, lessons), [], as_json)
