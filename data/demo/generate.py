"""Generate a SYNTHETIC sentiment data set: sentences put together from word lists, written by nobody, about no film.

It serves demonstrations and tests that need a task of some depth without a download. Nothing measured on it says how
a model does on real text, and it is not to be mixed with real data.

The label (1 favourable, 0 not) follows from the order of words, not from which words occur:

- negation turns a judgement round: ``the plot is not dull``, ``hardly witty``, ``never drags``, ``anything but fresh``;
- of two clauses one decides: the main clause beside ``although``, what follows ``but``, the speaker's own words after
  what others are said to think; the other clause usually says the opposite;
- titles and neutral remarks carry judging words that judge nothing: ``based on a novel called the dull harbour``.

A sentence has 6 to 40 words in lower case, with blanks around punctuation as in SST-2. The same seed gives the same
rows on every machine and Python: only ``random.Random.random``, whose sequence Python promises to keep, is drawn from.

Run ``python generate.py --out synthetic-sentiment`` for ``train.tsv`` and ``dev.tsv``, with the header
``sentence<TAB>label`` and no sentence in both.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

MIN_WORDS = 6
MAX_WORDS = 40
_PUNCTUATION = {".", ",", ";"}
# A draw that repeats an earlier sentence is thrown away; so many in a row mean that few new ones are left.
_MAX_REPEATS = 1000

# Shares of sentences with two clauses that agree, with a conceded clause, and with a contrast; the rest have one.
AGREEMENT, CONCESSION, CONTRAST = 0.28, 0.12, 0.2
# Shares of negated clauses, and of contrasts whose first clause reports what others think.
NEGATION, HEARSAY_SHARE = 0.18, 0.4

SUBJECTS = (
    "the plot", "the story", "the acting", "the music", "the dialogue", "the ending", "the script", "the camera work",
    "the pacing", "the humor", "the lead actor", "the final scene", "the first half", "the second half", "the romance",
    "the villain", "this film", "this movie", "the whole thing", "the score", "the cast", "the opening",
)  # fmt: skip
ADJECTIVES = {
    1: (
        "good", "charming", "funny", "clever", "moving", "beautiful", "gripping", "warm", "fresh", "brilliant",
        "tender", "witty", "honest", "graceful", "memorable", "delightful", "inventive", "rich",
    ),
    0: (
        "bad", "dull", "boring", "clumsy", "flat", "tedious", "shallow", "awkward", "stale", "predictable",
        "lifeless", "ugly", "hollow", "annoying", "silly", "forgettable", "messy", "cold",
    ),
}  # fmt: skip
# Third person and plain form.
VERBS = {
    1: (("delights", "delight"), ("works", "work"), ("shines", "shine"), ("entertains", "entertain"),
        ("convinces", "convince"), ("succeeds", "succeed")),
    0: (("drags", "drag"), ("disappoints", "disappoint"), ("fails", "fail"), ("bores", "bore"),
        ("irritates", "irritate"), ("stumbles", "stumble")),
}  # fmt: skip
INTENSIFIERS = ("very", "really", "truly", "quite", "rather", "deeply", "utterly", "thoroughly", "remarkably", "so")
LINKS = ("is", "feels", "seems", "remains", "looks")
NEGATED_ADJECTIVES = (
    "is not {}", "is not at all {}", "is never {}", "is hardly {}", "is far from {}", "is anything but {}",
    "never feels {}", "hardly seems {}", "does not look {}", "is by no means {}",
)  # fmt: skip
NEGATED_VERBS = ("never {0}", "hardly ever {0}", "does not {1}", "does not really {1}", "rarely {0}")
DENIALS = ("nobody would call {subject} {adjective}", "i would never call {subject} {adjective}")
OPENINGS = (
    "in the end", "on a rainy tuesday", "seen at home", "after all these years", "as we left the theater",
    "for a picture about sailors", "in its new version", "with the lights down", "so far",
)  # fmt: skip
ENDINGS = (
    "from the opening scene to the last", "for most of its two hours", "on a small screen", "in every scene",
    "as far as i can tell", "the second time around", "once the train leaves the station", "all the same",
)  # fmt: skip
REMARKS = (
    "it was shot in {place} over {number} weeks", "it runs for {number} minutes", "the credits list {number} names",
    "we sat in row {number}", "a friend from {place} had bought the tickets", "there are {number} scenes in {place}",
    "it is based on a novel called the {adjective} {noun}", "it was first shown in {place}",
    "one song is called {adjective} {noun}", "the director also made the {adjective} {noun}",
)  # fmt: skip
PLACES = ("lisbon", "prague", "a small town", "the desert", "chicago", "the north", "an old hotel", "a harbor")
NUMBERS = ("two", "three", "seven", "nine", "twelve", "twenty", "forty", "ninety")
NOUNS = ("summer", "harbor", "letter", "garden", "river", "winter", "stranger", "road")
CONCESSIONS = ("although", "even though", "though")
CONTRASTS = (", but", ", yet", "; still ,", "; in fact ,", ", but in the end")
HEARSAY = (
    "my brother told me that", "critics wrote that", "the poster promised that", "everyone i know says that",
    "the trailer suggested that", "people had warned us that",
)  # fmt: skip

T = TypeVar("T")


class Draw:
    """Seeded choices built on ``random()`` alone; ``choice`` and ``shuffle`` may change between Python versions."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)  # noqa: S311  (the sequence is meant to be foreseeable)

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``, all equally likely."""
        return options[int(self._source.random() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self._source.random() < probability


def judgement(draw: Draw, label: int) -> str:
    """A clause that judges something: favourably for label 1, unfavourably for 0, in part by denying the opposite."""
    negated = draw.chance(NEGATION)
    polarity = 1 - label if negated else label
    subject = draw.pick(SUBJECTS)
    if draw.chance(0.25):
        third, plain = draw.pick(VERBS[polarity])
        return f"{subject} {draw.pick(NEGATED_VERBS).format(third, plain) if negated else third}"
    adjective = draw.pick(ADJECTIVES[polarity])
    if draw.chance(0.4):
        adjective = f"{draw.pick(INTENSIFIERS)} {adjective}"
    if draw.chance(0.25):
        adjective = f"{adjective} and {draw.pick(ADJECTIVES[polarity])}"
    if not negated:
        return f"{subject} {draw.pick(LINKS)} {adjective}"
    if draw.chance(0.15):
        return draw.pick(DENIALS).format(subject=subject, adjective=adjective)
    return f"{subject} {draw.pick(NEGATED_ADJECTIVES).format(adjective)}"


def core(draw: Draw, label: int) -> str:
    """The judging clauses of a sentence, of which the deciding one has ``label``."""
    deciding = judgement(draw, label)
    if draw.chance(AGREEMENT):
        return f"{deciding} and {judgement(draw, label)}"
    if draw.chance(CONCESSION / (1 - AGREEMENT)):
        conceded = f"{draw.pick(CONCESSIONS)} {judgement(draw, 1 - label)}"
        return f"{conceded} , {deciding}" if draw.chance(0.5) else f"{deciding} , {conceded}"
    if draw.chance(CONTRAST / (1 - AGREEMENT - CONCESSION)):
        if draw.chance(HEARSAY_SHARE):
            # What others say is right as often as it is wrong.
            first = f"{draw.pick(HEARSAY)} {judgement(draw, int(draw.chance(0.5)))}"
        else:
            first = judgement(draw, 1 - label)
        return f"{first} {draw.pick(CONTRASTS)} {deciding}"
    return deciding


def remark(draw: Draw) -> str:
    """A neutral clause; in some a judging word is part of a title."""
    adjective = draw.pick(ADJECTIVES[int(draw.chance(0.5))])
    words = {"place": draw.pick(PLACES), "number": draw.pick(NUMBERS), "adjective": adjective, "noun": draw.pick(NOUNS)}
    return draw.pick(REMARKS).format(**words)


def sentence(draw: Draw, label: int) -> str:
    """The judging clauses among none to several neutral pieces."""
    text = core(draw, label)
    if draw.chance(0.35):
        text = f"{draw.pick(OPENINGS)} , {text}"
    if draw.chance(0.35):
        text = f"{text} {draw.pick(ENDINGS)}"
    while draw.chance(0.4):
        text = f"{remark(draw)} ; {text}" if draw.chance(0.5) else f"{text} ; {remark(draw)}"
    return f"{text} ."


def num_words(text: str) -> int:
    """Words of a generated sentence, punctuation not counted."""
    return sum(piece not in _PUNCTUATION for piece in text.split())


def generate(num_rows: int, seed: int) -> list[tuple[str, int]]:
    """Distinct sentences with their labels, about half of them favourable.

    The first rows of a longer list are those of a shorter one with the same seed.

    Args:
        num_rows: how many.
        seed: picks the sequence.

    Returns:
        ``num_rows`` pairs of a sentence and its label, 1 favourable or 0 not.

    Raises:
        ValueError: ``num_rows`` is negative, or more than there are sentences to be found.
    """
    if num_rows < 0:
        raise ValueError(f"num_rows is {num_rows}; give 0 or more")
    draw = Draw(seed)
    rows: dict[str, int] = {}
    num_repeats = 0
    while len(rows) < num_rows:
        label = int(draw.chance(0.5))
        text = sentence(draw, label)
        if text not in rows and MIN_WORDS <= num_words(text) <= MAX_WORDS:
            rows[text] = label
            num_repeats = 0
        elif (num_repeats := num_repeats + 1) == _MAX_REPEATS:
            raise ValueError(f"no new sentence after {len(rows)} of {num_rows} rows; ask for fewer")
    return list(rows.items())


def write(folder: Path, train_rows: int, dev_rows: int, seed: int) -> None:
    """Write ``train.tsv`` and ``dev.tsv``, which share no sentence, under ``folder``."""
    rows = generate(train_rows + dev_rows, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train.tsv", rows[:train_rows]), ("dev.tsv", rows[train_rows:])):
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in part)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Write the two files where the command line says."""
    parser = argparse.ArgumentParser(description="Write a synthetic sentiment data set: train.tsv and dev.tsv.")
    parser.add_argument("--out", type=Path, default=Path("synthetic-sentiment"), help="folder (default: %(default)s)")
    parser.add_argument("--train-rows", type=int, default=20_000, help="rows of train.tsv (default: %(default)s)")
    parser.add_argument("--dev-rows", type=int, default=1000, help="rows of dev.tsv (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rows (default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.train_rows, arguments.dev_rows) < 1:
        parser.error("--train-rows and --dev-rows are at least 1")
    write(arguments.out, arguments.train_rows, arguments.dev_rows, arguments.seed)


if __name__ == "__main__":
    main()
