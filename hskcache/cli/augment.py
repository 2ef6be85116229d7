"""``hskcache augment``: more rows for a student to learn from, out of those there are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hskcache import console
from hskcache.cli.options import data_option
from hskcache.completion import places
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.options import as_json, device, gathered, layout, seed
from hskcache.ranges import FiniteRange, Whole
from hskcache.runtime import require_teacher_extra
from hskcache.text.layout import Layout

if TYPE_CHECKING:
    from hskcache.augment import Augmentation, Finished, Pairs

COPIES, MOST_COPIES = 20, 10_000


@dataclass(frozen=True)
class AugmentRequest:
    """Rows to add copies to, as the options say it that are called alike."""

    data: str
    layout: Layout
    masked_lm: str | None
    vectors: Path | None
    vectors_limit: int
    copies: int | None
    pairs: "Pairs"
    probability: float
    candidates: int
    words: str
    stop_words: str
    possessives: bool
    seed: int
    batch_size: int
    device: str


@click.command()
@data_option
@layout
@click.option(
    "--masked-lm",
    metavar="DIR_OR_ID",
    help="Predicts words of one piece, such as bert-base-uncased.",
    shell_complete=places,
)
@click.option(
    "--vectors", type=click.Path(path_type=Path), help="Text file of word vectors (GloVe) for words of several pieces."
)
@click.option(
    "--vectors-limit",
    type=Whole(min=0),
    default=100_000,
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
    help="Vary one text of a pair in a copy while the other stays, as the paper's code does, or both.",
)
@click.option("--probability", type=FiniteRange(0, 1), default=0.4, help="That a word of a copy is replaced.")
@click.option("--candidates", type=Whole(min=1), default=15, help="Best words of which one is drawn.")
@click.option(
    "--words",
    metavar="PATTERN",
    default="[a-z]+",
    help=r"Words that may be replaced, in the masked LM's spelling; other alphabets: \w+.",
)
@click.option(
    "--stop-words",
    metavar="WORDS",
    default="english",
    help="Words that stay: english (ours), published (the paper's code's), none, or a file with a word a line.",
)
@click.option(
    "--possessives/--no-possessives", default=True, help="Replace words that end in 's, too, of which that stays."
)
@seed("all draws", click.INT)
@click.option(
    "--batch-size",
    type=Whole(min=1),
    default=64,
    help="Sentences of 128 tokens for one call of the masked LM; changes no byte.",
)
@device
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file, of the same kind as --data.")
@as_json
@gathered(AugmentRequest, "request")
def augment(request: AugmentRequest, out: Path, as_json: bool) -> None:
    """Add copies of every row in which words are replaced by likely or similar ones, as TinyBERT does.

    The output has the columns of the data and two more, origin and copy, and is read with the same options. The same
    command goes on where an interrupted one stopped, and ends with the same bytes.
    """
    job = _job(request, out)
    from hskcache.augment import augment as run

    for note in job.source.notes:
        console.say(note)
    with console.advancing("augment", len(job.source)) as advance:
        done = run(job, out, advance)
    if as_json:
        facts = done.record.model_dump(exclude={"kind", "done"})
        console.print_json({"out": str(out), "was_there": done.was_there, **facts})
    console.say(_summary(out, done))


def _job(request: AugmentRequest, out: Path) -> "Augmentation":
    """Check what costs nothing to check, then read the rows, then load what takes long."""
    from hskcache.augment import Augmentation, Chance, Proposer, eligible, load_vectors, open_source, output_suffix

    if request.masked_lm is None and request.vectors is None:
        raise SpecError("neither --masked-lm nor --vectors says what words are replaced by; give at least one of them")
    suffix = output_suffix(request.data)
    if out.suffix.lower() != suffix:
        raise SpecError(f"--out {out}: the rows of {request.data} are written as {suffix}; give a name with that")
    words = eligible(request.words, request.stop_words, request.possessives)
    task = request.layout.task
    copies = request.copies or (task.copies if task is not None else None) or COPIES
    source = open_source(request.data, request.layout)
    vectors = masked_lm = None
    if request.vectors is None:
        console.say("no --vectors: words that the masked LM has in several pieces stay as they are")
    else:
        vectors = load_vectors(request.vectors, request.vectors_limit or None)
    if request.masked_lm is None:
        console.say("no --masked-lm: all words are replaced by their nearest vectors, without regard to the sentence")
    else:
        require_teacher_extra()
        from hskcache.augment.masked_lm import load_masked_lm

        masked_lm = load_masked_lm(request.masked_lm, request.device)
    proposer = Proposer(words, request.candidates, masked_lm, vectors, request.batch_size)
    names = {"data": request.data, "task": None if task is None else task.name}
    words_of = {"masked_lm": request.masked_lm, "stop_words": request.stop_words}
    provenance = names | words_of | {"vectors": None if vectors is None else vectors.source}
    chance = Chance(copies, request.probability, request.seed, request.pairs)
    return Augmentation(source, proposer, chance, provenance)


def _summary(out: Path, done: "Finished") -> str:
    counts = done.record.counts
    if done.was_there:
        return f"{out} is already finished: {counted(counts.rows_in, 'row')} in, {counted(counts.rows_out, 'row')} out"
    return (
        f"{out} is finished: {counted(counts.rows_in, 'row')} in, {counted(counts.rows_out, 'row')} out; "
        "words of the rows with "
        f"candidates of the masked LM {counts.masked_lm:,}, of vectors {counts.vectors:,}, left {counts.left:,}; words "
        f"replaced in the copies {counts.replaced_masked_lm:,} and {counts.replaced_vectors:,}"
    )
