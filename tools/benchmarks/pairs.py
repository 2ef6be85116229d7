"""Worth of rows of pairs in general distillation, where the task has pairs: the error of second texts.

The same student learns from two packings of one corpus, over as many rows, tokens and steps; then its hidden states
are compared with the teacher's on pairs of RTE, text by text. Each step of the training is a command that a user would
type.
"""

from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.commands import Study, run, sets, student_config
from benchmarks.harness.folders import write_head, write_json
from benchmarks.harness.measure import TO, ratio, take_turns
from trainer.timing import Times

PACKINGS = {"single texts": "none", "pairs": "mixed"}
COPIED = "single texts, type 0 copied"
TEXTS = ("first text", "second text")


def make_cache(study: Study, pairs: str) -> dict[str, Any]:
    """Run the encoder over the corpus once, packed in one way."""
    given, work = study.given, study.work
    text = write_head(given["corpus"] / "wiki.train.tokens", work / "corpus.txt", given["corpus_lines"])
    built: dict[str, Any] = run(
        "hskcache", "build", "--teacher", study.base_model, "--corpus", text, "--pairs", pairs, "--short-rows", 0,
        "--max-length", given["max_length"], "--keep", "full", "--student-layers", given["layers"], "--out",
        work / f"{pairs}.hsk", *study.place,
    )  # fmt: skip
    return built


def train(study: Study, pairs: str, seed: int, num_rows: int) -> Path:
    """General distillation on hidden states and the embedding, over the first rows of a cache."""
    given, out = study.given, study.work / "students" / f"{pairs}_{seed}"
    student = student_config(study.work / "student.json", given, num_heads=4, vocab_size=30_522)
    changes = {"epochs": given["epochs"], "learning_rate": given["lr"], "batch_size": 32, "losses.attention": "null"}
    run(
        "hsktrain", "fit", "--cache", study.work / f"{pairs}.hsk", "--student", student, "--recipe",
        "tinybert-general", *sets(f"general.{key}={value}" for key, value in changes.items()), "--rows", num_rows,
        "--seed", seed, "--out", out, *study.place,
    )  # fmt: skip
    return out


class Judge:
    """The teacher's hidden states of some pairs, and how far a student is from them."""

    def __init__(self, study: Study, rows: Path) -> None:
        import csv

        import torch
        from transformers import AutoModel, AutoTokenizer

        given = study.given
        tokenizer, self.teacher = (
            AutoTokenizer.from_pretrained(study.base_model),
            AutoModel.from_pretrained(study.base_model),
        )
        with rows.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        texts = [line["sentence1"] for line in lines], [line["sentence2"] for line in lines]
        batch = dict(
            tokenizer(*texts, truncation=True, max_length=given["max_length"], padding=True, return_tensors="pt")
        )
        special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
        self.texts = [(batch["token_type_ids"] == kind) & ~special for kind in (0, 1)]
        self.batch, self.layers = batch, given["layers"]
        self.states = self._states(self.teacher)

    def _states(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model.eval()(**self.batch, output_hidden_states=True).hidden_states

    def errors(self, student: Path, copied: bool = False) -> dict[str, float]:
        """Squared error of all layers that learn, by the teacher's squares, over the tokens of each text."""
        import torch
        from transformers import AutoModel

        from hskcache.selection.depth import layer_map
        from trainer.source.projections import FILE, SHARED, load

        model, project = AutoModel.from_pretrained(student), load(student / FILE)[SHARED]
        with torch.no_grad():
            if copied:
                model.embeddings.token_type_embeddings.weight[1] = model.embeddings.token_type_embeddings.weight[0]
            theirs = [self.states[layer] for layer in layer_map(self.layers, len(self.states) - 1)]
            ours = [project(states) for states in self._states(model)]
            found = {}
            for name, mask in zip(TEXTS, self.texts, strict=True):
                wrong = sum(
                    float((mine - other)[mask].square().sum()) for mine, other in zip(ours, theirs, strict=True)
                )
                found[name] = wrong / sum(float(other[mask].square().sum()) for other in theirs)
        return found


def time_packing(study: Study) -> Times:
    """Seconds of packing the corpus in either way, tokenizing included."""
    from hskcache.spec import Packing
    from hskcache.text import load_tokenizer
    from hskcache.text.corpus import pack_corpus
    from hskcache.text.spool import Spool

    tokenizer, text = load_tokenizer(study.base_model), study.work / "corpus.txt"

    def pack(packing: Packing) -> None:
        with TemporaryDirectory() as folder:
            pack_corpus(text, tokenizer, 128, Spool(Path(folder), "bench", packing))

    packings = {"single texts": Packing(), "pairs": Packing(pairs="mixed", short_rows=0.1)}
    sides = {name: partial(pack, packing) for name, packing in packings.items()}
    return take_turns("pack", sides, study.given["repetitions"])


@click.command()
@options.work_of("pairs")
@options.glue
@options.base_model
@options.corpus
@options.count("--corpus-lines", 1600)
@options.count("--max-length", 64, at_least=8)
@options.count("--layers", 2, "Of the student.")
@options.count("--width", 128, "Of the student.", at_least=4)
@options.amount("--epochs", 6.0)
@click.option("--lr", default="1.0e-3", show_default=True)
@options.count("--seeds", 2, "Runs of each packing.")
@options.repetitions(5, "Of packing.")
@options.device
@options.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Distil one student from single texts and from pairs, and compare both with the teacher on pairs of RTE.

    Both packings are of the same text; training takes as many rows of either. The third line is the student of single
    texts with the embedding of token type 0 in the place of type 1.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    given["corpus"] = Path(given["corpus"]).resolve()
    study = Study(work, glue.resolve() / "RTE", "rte", given)
    caches = {pairs: make_cache(study, pairs) for pairs in PACKINGS.values()}
    num_rows = min(int(built["num_rows"]) for built in caches.values())
    judge = Judge(study, study.glue / "dev.tsv")
    errors: dict[str, list[dict[str, float]]] = {}
    for seed in range(given["seeds"]):
        for name, pairs in PACKINGS.items():
            student = train(study, pairs, seed, num_rows)
            errors.setdefault(name, []).append(judge.errors(student))
            if pairs == "none":
                errors.setdefault(COPIED, []).append(judge.errors(student, copied=True))
    times = time_packing(study)
    facts = {
        "num_rows": num_rows, "rows": {pairs: built["num_rows"] for pairs, built in caches.items()}, "errors": errors,
        "packing": times.facts() | {"ratio": times.ratio("pairs", "single texts")},
    }  # fmt: skip
    write_json(work / "results.json", facts)
    lines = [
        [
            name,
            *(
                f"{mean(one[text] for one in found):.4f} ({', '.join(f'{one[text]:.4f}' for one in found)})"
                for text in TEXTS
            ),
        ]
        for name, found in errors.items()
    ]
    title = (
        f"relative squared error of hidden states on pairs of RTE, {num_rows:,} rows of at most {given['max_length']}"
    )
    packing = f"packing pairs / single texts: {ratio(times, 'pairs', 'single texts', TO)}"
    report.conclude(facts, [report.table(title, ("learned from", *TEXTS), lines), packing], [], as_json)
