"""Worth of rows of pairs in general distillation, where the task has pairs: the error of second texts.

The same student learns from two packings of one corpus, over as many rows, tokens and steps; then its hidden states
are compared with the teacher's on pairs of RTE, text by text. Each step of the training is a command that a user would
type.
"""

from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click

from benchmarks.harness import commands, report
from benchmarks.harness.commands import run
from trainer.timing import Times, alternate

PACKINGS = {"single texts": "none", "pairs": "mixed"}
COPIED = "single texts, type 0 copied"
TEXTS = ("first text", "second text")


class Setting(NamedTuple):
    """Folder of a run, and the options that the user gave."""

    work: Path
    given: dict[str, Any]

    @property
    def teacher(self) -> str:
        """The pre-trained encoder."""
        return commands.base_model(self.given["base_model"])


def make_cache(setting: Setting, pairs: str) -> dict[str, Any]:
    """Run the encoder over the corpus once, packed in one way."""
    given, work = setting.given, setting.work
    text = commands.write_head(given["corpus"] / "wiki.train.tokens", work / "corpus.txt", given["corpus_lines"])
    built: dict[str, Any] = run(
        "hskcache", "build", "--teacher", setting.teacher, "--corpus", text, "--pairs", pairs, "--short-rows", 0,
        "--max-length", given["max_length"], "--keep", "full", "--student-layers", given["layers"], "--out",
        work / f"{pairs}.hsk", "--device", given["device"],
    )  # fmt: skip
    return built


def train(setting: Setting, pairs: str, seed: int, num_rows: int) -> Path:
    """General distillation on hidden states and the embedding, over the first rows of a cache."""
    given, out = setting.given, setting.work / "students" / f"{pairs}_{seed}"
    student = commands.student_config(setting.work / "student.json", given, num_heads=4, vocab_size=30_522)
    changes = {"epochs": given["epochs"], "learning_rate": given["lr"], "batch_size": 32, "losses.attention": "null"}
    run(
        "hsktrain", "fit", "--cache", setting.work / f"{pairs}.hsk", "--student", student, "--recipe",
        "tinybert-general", *(word for key, value in changes.items() for word in ("--set", f"general.{key}={value}")),
        "--rows", num_rows, "--seed", seed, "--out", out, "--device", given["device"],
    )  # fmt: skip
    return out


class Judge:
    """The teacher's hidden states of some pairs, and how far a student is from them."""

    def __init__(self, setting: Setting, rows: Path) -> None:
        import csv

        import torch
        from transformers import AutoModel, AutoTokenizer

        given = setting.given
        tokenizer, self.teacher = (
            AutoTokenizer.from_pretrained(setting.teacher),
            AutoModel.from_pretrained(setting.teacher),
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


def time_packing(setting: Setting) -> Times:
    """Seconds of packing the corpus in either way, tokenizing included."""
    from hskcache.spec import Packing
    from hskcache.text import load_tokenizer
    from hskcache.text.corpus import pack_corpus
    from hskcache.text.spool import Spool

    tokenizer, text = load_tokenizer(setting.teacher), setting.work / "corpus.txt"

    def pack(packing: Packing) -> None:
        with TemporaryDirectory() as folder:
            pack_corpus(text, tokenizer, 128, Spool(Path(folder), "bench", packing))

    packings = {"single texts": Packing(), "pairs": Packing(pairs="mixed", short_rows=0.1)}
    return alternate(
        {name: partial(pack, packing) for name, packing in packings.items()},
        setting.given["repetitions"],
    )


@click.command()
@commands.work_option("pairs")
@commands.glue_option
@commands.base_model_option
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: commands.shared("HSKCACHE_CORPUS", "corpus"),
    help="Folder with wiki.train.tokens.  [default: $HSKCACHE_CORPUS, else ../shared/corpus]",
)
@click.option("--corpus-lines", type=click.IntRange(min=1), default=1600, show_default=True)
@click.option("--max-length", type=click.IntRange(min=8), default=64, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=2, show_default=True, help="Of the student.")
@click.option("--width", type=click.IntRange(min=4), default=128, show_default=True, help="Of the student.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=6.0, show_default=True)
@click.option("--lr", default="1.0e-3", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of each packing.")
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Of packing.")
@report.device
@report.as_json
def main(work: Path, glue: Path, as_json: bool, **given: Any) -> None:
    """Distil one student from single texts and from pairs, and compare both with the teacher on pairs of RTE.

    Both packings are of the same text; training takes as many rows of either. The third line is the student of single
    texts with the embedding of token type 0 in the place of type 1.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    given["corpus"] = Path(given["corpus"]).resolve()
    setting = Setting(work, given)
    caches = {pairs: make_cache(setting, pairs) for pairs in PACKINGS.values()}
    num_rows = min(int(built["num_rows"]) for built in caches.values())
    judge = Judge(setting, glue.resolve() / "RTE" / "dev.tsv")
    errors: dict[str, list[dict[str, float]]] = {}
    for seed in range(given["seeds"]):
        for name, pairs in PACKINGS.items():
            student = train(setting, pairs, seed, num_rows)
            errors.setdefault(name, []).append(judge.errors(student))
            if pairs == "none":
                errors.setdefault(COPIED, []).append(judge.errors(student, copied=True))
    times = time_packing(setting)
    facts = {
        "num_rows": num_rows, "rows": {pairs: built["num_rows"] for pairs, built in caches.items()}, "errors": errors,
        "packing": times.facts() | {"ratio": times.ratio("pairs", "single texts")},
    }  # fmt: skip
    commands.write(work / "results.json", facts)
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
    low, high = times.spread("pairs", "single texts")
    packing = f"packing pairs / single texts: {times.ratio('pairs', 'single texts'):.3f} ({low:.3f} to {high:.3f})"
    report.conclude(facts, [report.table(title, ("learned from", *TEXTS), lines), packing], [], as_json)
