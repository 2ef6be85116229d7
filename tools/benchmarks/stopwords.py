"""Share of QQP's words that augmentation varies under each of the two lists of stop words."""

import csv
from collections import Counter
from pathlib import Path

import click

from benchmarks.harness import options, report
from hskcache.augment.words import LETTERS, LISTS, eligible, find_words

TEXTS = ("question1", "question2")


def counted(file: Path) -> tuple[Counter[str], int]:
    """Counts of each word of lower-case letters in the texts of a file, and the number of its rows."""
    any_word, counts, rows = eligible(LETTERS, "none"), Counter[str](), 0
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            rows += 1
            for text in (row[name].lower() for name in TEXTS):
                counts.update(
                    word for span in find_words(text) if any_word(word := text[slice(*any_word.part(text, span))])
                )
    return counts, rows


@click.command()
@options.glue
@options.as_json
def main(glue: Path, as_json: bool) -> None:
    """Count the words of QQP-subset/train.tsv that --stop-words english and --stop-words published vary."""
    counts, rows = counted(glue.resolve() / "QQP-subset" / "train.tsv")
    rules = {name: eligible(LETTERS, name) for name in LISTS}
    varied = {name: set(filter(rule, counts)) for name, rule in rules.items()}
    shares = {name: sum(counts[word] for word in words) / counts.total() for name, words in varied.items()}
    left = {word: counts[word] for word in varied["published"] - varied["english"]}
    alone = sum(left.values()) / sum(counts[word] for word in varied["published"])
    facts = {"rows": rows, "words": counts.total(), "varied": shares, "left_alone": alone}
    lines = [[name, f"{100 * share:.1f} %"] for name, share in shares.items()]
    most = ", ".join(sorted(left, key=lambda word: -left[word])[:5])
    told = f"of those that the published list varies, ours leaves {100 * alone:.1f} % alone, most of all {most}"
    title = f"QQP, {rows:,} pairs, {counts.total():,} words of letters alone: share that is varied"
    report.conclude(facts, [report.table(title, ("stop words", "varied"), lines), told], [], as_json)
