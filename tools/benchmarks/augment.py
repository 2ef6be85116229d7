"""Cost of augmenting rows beyond the masked LM's own forward passes, and the gain of batching them."""

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.folders import packaged_model, write_head
from benchmarks.harness.measure import environment, ratio, synchronise, take_turns
from trainer.timing import Times

if TYPE_CHECKING:
    from hskcache.augment import Augmentation
    from hskcache.augment.masked_lm import MaskedLM

WHOLE, BARE, SINGLE = "augment", "bare forward", "a call for each word"
MINILM = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
# With the default of 0.02 all words are almost equally likely and every tenth is a close call; so spread are a trained
# model's logits.
INITIALIZER_RANGE = 0.1


def random_masked_lm(device: str) -> "MaskedLM":
    """A BERT of MiniLM's shape with random weights of seed 0, and a real tokenizer of 30,522 pieces."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from hskcache.augment.masked_lm import prepare
    from hskcache.text import load_tokenizer

    tokenizer = load_tokenizer(packaged_model("--masked-lm"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), initializer_range=INITIALIZER_RANGE, **MINILM)
        model = BertForMaskedLM(config).to(device)
    return prepare(model, tokenizer, "random weights")


def make_job(rows: Path, given: dict[str, Any]) -> "Augmentation":
    """The augmentation with the command's defaults, and SST-2's number of copies."""
    from hskcache.augment import Augmentation, Chance, Proposer, eligible, load_vectors, open_source
    from hskcache.augment.masked_lm import load_masked_lm
    from hskcache.text.layout import Layout

    device, name = given["device"], given["masked_lm"]
    lm = random_masked_lm(device) if name is None else load_masked_lm(name, device)
    vectors = None if given["vectors"] is None else load_vectors(given["vectors"])
    proposer = Proposer(eligible("[a-z]+", "english"), 15, lm, vectors, given["batch_size"])
    source = open_source(str(rows), Layout("sst2", None, None, None, None))
    return Augmentation(source, proposer, Chance(copies=20, probability=0.4, seed=0))


def chunks(job: "Augmentation") -> list[list[Any]]:
    """The masked LM's inputs of every chunk of rows."""
    from hskcache.augment.run import CHUNK_ROWS

    rows = range(len(job.source))
    parts = [rows[first : first + CHUNK_ROWS] for first in range(0, len(rows), CHUNK_ROWS)]
    texts: dict[str, None] = {}
    found = []
    for part in parts:
        # As the augmentation does, look up a sentence where it comes first.
        new = [text for row in part for text in job.source.texts(row) if text not in texts]
        texts |= dict.fromkeys(new)
        found.append(job.proposer.masked_texts(list(dict.fromkeys(new))))
    return found


def forward_alone(job: "Augmentation", batch_size: int) -> Callable[[], None]:
    """The model with its head over all positions, over batches that are padded and on the device already."""
    import torch

    from hskcache.augment.predict import batches, padded

    lm = job.proposer.masked_lm
    assert lm is not None
    inputs = [
        padded(lm, [texts[number] for number in numbers])[0]
        for texts in chunks(job)
        for numbers in batches(texts, batch_size)
    ]

    def run() -> None:
        with torch.inference_mode():
            for batch in inputs:
                _ = lm.model(**batch).logits
        synchronise(str(lm.device))

    return run


def whole(job: "Augmentation", folder: Path) -> Callable[[], None]:
    """Run from the prepared job to a finished file in a fresh place below ``folder``."""
    from hskcache.augment import augment

    numbers = count()

    def run() -> None:
        augment(job, folder / str(next(numbers)) / "rows.tsv")

    return run


def measure(job: "Augmentation", given: dict[str, Any]) -> tuple[Times, Times]:
    """Seconds of the augmentation and the bare forward, and of the augmentation and single calls."""
    with tempfile.TemporaryDirectory(prefix="augment-") as folder:
        augmentation = whole(job, Path(folder))
        batched = {BARE: forward_alone(job, given["batch_size"]), WHOLE: augmentation}
        times = take_turns("augment", batched, given["repetitions"])
        single = {SINGLE: forward_alone(job, batch_size=1), WHOLE: augmentation}
        return times, take_turns(SINGLE, single, given["single_repetitions"], warmup=0)


@click.command()
@options.count("--rows", 64, "Rows of SST-2's training set.")
@options.glue
@click.option("--masked-lm", metavar="DIR_OR_ID", help="[default: random weights in the shape of MiniLM]")
@click.option("--vectors", type=click.Path(path_type=Path), help="Word vectors.  [default: none]")
@options.count("--batch-size", 64, "Sentences of a call.")
@options.repetitions(5)
@options.count("--single-repetitions", 1, "Of one call for each word.")
@options.resolved_device
@options.as_json
def main(glue: Path, as_json: bool, **given: Any) -> None:
    """Time a whole augmentation against the masked LM's bare forward passes over the same batches, alternating.

    The augmentation begins with rows and models in memory and ends with a finished file; loading them is outside.
    """
    from hskcache.runtime import quiet

    about = environment(given["device"])
    with quiet(), tempfile.TemporaryDirectory(prefix="augment-") as folder:
        # With its header.
        file = write_head(glue / "SST-2" / "train.tsv", Path(folder) / "rows.tsv", given["rows"] + 1)
        job = make_job(file, given)
        lengths = [len(text) for texts in chunks(job) for text in texts]
        times, alone = measure(job, given)
    words = f"{len(lengths):,} words, {sum(lengths):,} tokens"
    rows = [
        [BARE, f"{times.median(BARE):.2f}", "1", f"{len(lengths) / times.median(BARE):,.0f}"],
        [WHOLE, f"{times.median(WHOLE):.2f}", ratio(times, WHOLE, BARE), f"{len(lengths) / times.median(WHOLE):,.0f}"],
        [SINGLE, f"{alone.median(SINGLE):.2f}", "", f"{len(lengths) / alone.median(SINGLE):,.0f}"],
    ]
    gain = alone.ratio(SINGLE, WHOLE)
    header = ("side", "seconds", "/ bare (quartiles)", "words/s")
    title = f"{given['rows']} rows of SST-2, {words}, {given['masked_lm'] or 'random MiniLM'}, {about['device']}"
    facts = {"settings": given, "environment": about, **times.facts(), "single": alone.facts()}
    facts |= {"num_words": len(lengths), "num_tokens": sum(lengths), "gain_of_batches": gain}
    texts = [report.table(title, header, rows), f"single calls / augment: {gain:.2f}"]
    targets = [report.Target("augment / bare forward", times.ratio(WHOLE, BARE), 1.25)]
    report.conclude(facts, texts, targets, as_json)
