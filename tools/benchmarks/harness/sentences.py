"""Sentences to embed, of GLUE and WikiText, and a student's start that gives embeddings before it has learned."""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from benchmarks.harness.commands import run
from benchmarks.harness.folders import replace

_MODULES = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling",
    "2_Normalize",
)
_SHARES = {"QQP": 0.4, "SST-2": 0.3, "CoLA": 0.15}
"""Shares of the sentences; WikiText has the rest."""


def column(file: Path, *names: str | int) -> Iterator[str]:
    """Texts of some columns of a file of GLUE, row after row; one without a header has numbers for names."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(rows) if isinstance(names[0], str) else []
        places = [header.index(name) if isinstance(name, str) else name for name in names]
        for row in rows:
            yield from (row[place].strip() for place in places)


def wiki_sentences(file: Path) -> Iterator[str]:
    """Sentences of WikiText's paragraphs, without its headings and those of fewer than five words."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith(" ="):
                yield from (f"{one.strip()} ." for one in line.strip(" .\n").split(" . ") if len(one.split()) > 4)


def write_sentences(out: Path, glue: Path, corpus: Path, count: int) -> dict[str, int]:
    """Write so many different sentences, an object a line; returns how many are of each source."""
    sources: dict[str, Iterable[str]] = {
        "QQP": column(glue / "QQP-subset" / "train.tsv", "question1", "question2"),
        "SST-2": column(glue / "SST-2" / "train.tsv", "sentence"),
        "CoLA": column(glue / "CoLA" / "train.tsv", 3),
        "WikiText-2": wiki_sentences(corpus / "wiki.train.tokens"),
    }
    texts: dict[str, None] = {}
    counts = {}
    for name, found in sources.items():
        before = len(texts)
        wanted = round(_SHARES[name] * count) if name in _SHARES else count - before
        fresh = (text for text in dict.fromkeys(found) if text and text not in texts)
        texts.update(dict.fromkeys(islice(fresh, wanted)))
        counts[name] = len(texts) - before
    replace(out, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    return counts


def create_start(teacher: Path, layers: str, out: Path) -> Path:
    """Some layers of an embedder with its modules, which so gives embeddings itself; one that is there stays."""
    if (out / "modules.json").is_file():
        return out
    run("hsktrain", "create", "--from", teacher, "--layers", layers, "--out", out)
    for name in reversed(_MODULES):
        if (source := teacher / name).is_dir():
            shutil.copytree(source, out / name, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy(source, out / name)
    return out
