"""``hskcache augment``: more rows for a student to learn from, out of those there are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console
from hskcache.cli.options import data_option, device_option, json_option
from hskcache.errors import SpecError
from hskcache.options import layout
from hskcache.ranges import FiniteRange, Whole
from hskcache.text.layout import Layout

if TYPE_CHECKING:
    from hskcache.augment import Augmentation, Finished

COPIES, MOST_COPIES = 20, 10_000


@click.command()
@data_option
@layout
@click.option("--masked-lm", metavar="DIR_OR_ID", help="Predicts words of one piece, such as bert-base-uncased.")
@click.option(
    "--vectors", type=click.Path(path_type=Path), help="Text file of word vectors (GloVe) for words of several pieces."
)
@click.option(
    "--vectors-limit",
    type=Whole(min=0),
    default=100_000,
    show_default=True,
    help="Vectors to read, the most frequent words first, as in the paper's code; 0: all.",
)
@click.option(
    "--copies",
    type=Whole(1, MOST_COPIES),
    help=f"Copies of a row at most, of a pair so many for each text.  [default: the task's, else {COPIES}]",
)
@click.option(
    "--pairs",
    type=click.Choice(["one-at-a-time", "both"]),
    default="one-at-a-time",
    show_default=True,
    help="Vary one text of a pair in a copy while the other stays, as the paper's code does, or both.",
)
@click.option(
    "--probability",
    type=FiniteRange(0, 1),
    default=0.4,
    show_default=True,
    help="That a word of a copy is replaced.",
)
@click.option(
    "--candidates",
    type=Whole(min=1),
    default=15,
    show_default=True,
    help="Best words of which one is drawn.",
)
@click.option(
    "--words",
    metavar="PATTERN",
    default="[a-z]+",
    show_default=True,
    help=r"Words that may be replaced, in the masked LM's spelling; other alphabets: \w+.",
)
@click.option(
    "--stop-words",
    metavar="WORDS",
    default="english",
    show_default=True,
    help="Words that stay: english (ours), published (the paper's code's), none, or a file with a word a line.",
)
@click.option(
    "--possessives/--no-possessives",
    default=True,
    show_default=True,
    help="Replace words that end in 's, too, of which that stays.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all draws.")
@click.option(
    "--batch-size",
    type=Whole(min=1),
    default=64,
    show_default=True,
    help="Sentences of 128 tokens for one call of the masked LM; changes no byte.",
)
@device_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file, of the same kind as --data.")
@json_option
def augment(data: str, layout: Layout, out: Path, as_json: bool, **given: Any) -> None:
    """Add copies of every row in which words are replaced by likely or similar ones, as TinyBERT does.

    The output has the columns of the data and two more, origin and copy, and is read with the same options. The same
    command goes on where an interrupted one stopped, and ends with the same bytes.
    """
    job = _job(data, layout, out, given)
    from hskcache.augment import augment as run

    for note in job.source.notes:
        console.say(note)
    with console.progress("rows") as bar:
        task = bar.add_task("augment", total=len(job.source))
        done = run(job, out, lambda rows: bar.advance(task, rows))
    if as_json:
        console.print_json(_facts(out, done))
    console.say(_summary(out, done))


def _job(data: str, layout: Layout, out: Path, given: dict[str, Any]) -> "Augmentation":
    """Check what costs nothing to check, then read the rows, then load what takes long."""
    from hskcache.augment import Augmentation, Chance, Proposer, eligible, load_vectors, open_source, output_suffix

    if given["masked_lm"] is None and given["vectors"] is None:
        raise SpecError("neither --masked-lm nor --vectors says what words are replaced by; give at least one of them")
    if out.suffix.lower() != output_suffix(data):
        raise SpecError(f"--out {out}: the rows of {data} are written as {output_suffix(data)}; give a name with that")
    words = eligible(given["words"], given["stop_words"], given["possessives"])
    task = layout.task
    copies = given["copies"] or (task.copies if task is not None else None) or COPIES
    source = open_source(data, layout)
    vectors = masked_lm = None
    if given["vectors"] is None:
        console.say("no --vectors: words that the masked LM has in several pieces stay as they are")
    else:
        vectors = load_vectors(given["vectors"], given["vectors_limit"] or None)
    if given["masked_lm"] is None:
        console.say("no --masked-lm: all words are replaced by their nearest vectors, without regard to the sentence")
    else:
        from hskcache.cli.jobs import require_teacher_extra

        require_teacher_extra()
        from hskcache.augment.masked_lm import load_masked_lm

        masked_lm = load_masked_lm(given["masked_lm"], given["device"])
    proposer = Proposer(words, given["candidates"], masked_lm, vectors, given["batch_size"])
    names = {
        "data": data,
        "task": None if task is None else task.name,
        "masked_lm": given["masked_lm"],
        "stop_words": given["stop_words"],
    }
    provenance = names | {"vectors": None if vectors is None else vectors.source}
    chance = Chance(copies, given["probability"], given["seed"], given["pairs"])
    return Augmentation(source, proposer, chance, provenance)


def _facts(out: Path, done: "Finished") -> dict[str, Any]:
    return {"out": str(out), "was_there": done.was_there, **done.record.model_dump(exclude={"kind", "done"})}


def _summary(out: Path, done: "Finished") -> str:
    counts = done.record.counts
    if done.was_there:
        return f"{out} is already finished: {counts.rows_in:,} rows in, {counts.rows_out:,} rows out"
    return (
        f"{out} is finished: {counts.rows_in:,} rows in, {counts.rows_out:,} rows out; words of the rows with "
        f"candidates of the masked LM {counts.masked_lm:,}, of vectors {counts.vectors:,}, left {counts.left:,}; words "
        f"replaced in the copies {counts.replaced_masked_lm:,} and {counts.replaced_vectors:,}"
    )
