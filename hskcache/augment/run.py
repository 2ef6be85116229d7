"""The whole augmentation: rows in, rows and then their copies out, chunk by chunk, resumable at any moment."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from hskcache.augment.candidates import Origin, Proposer, Sentence
from hskcache.augment.copies import Chance, copies_of
from hskcache.augment.output import Counts, Output, Progress
from hskcache.augment.source import RewritableRows
from hskcache.augment.words import has_possessive
from hskcache.locks import sole_writer
from hskcache.store.files import canonical_json, sha256_hex

CHUNK_ROWS = 64
"""Rows whose words are looked up together and written at once; moves no byte of the output."""


@dataclass(frozen=True, eq=False)
class Augmentation:
    """Rows to augment, and the means; ``provenance``, names of files and such, decides nothing."""

    source: RewritableRows
    proposer: Proposer
    chance: Chance
    provenance: dict[str, Any] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """All that decides the bytes of the output, as JSON gives it back.

        Rules that came later are told where they change something, so that files of before are known again.
        """
        proposer, eligible = self.proposer, self.proposer.eligible
        chance = self.chance._asdict()
        pairs = chance.pop("pairs")
        request: dict[str, Any] = {
            "data": self.source.facts,
            "masked_lm": None if proposer.masked_lm is None else proposer.masked_lm.facts,
            "vectors_sha256": None if proposer.vectors is None else proposer.vectors.sha256,
            "words": eligible.pattern.pattern,
            "stop_words_sha256": sha256_hex(canonical_json(sorted(eligible.stop_words))),
            "candidates": proposer.num_candidates,
            **chance,
        }
        if pairs == "one-at-a-time" and len(self.source.texts(0)) > 1:
            request["pairs"] = pairs
        texts = (text for row in range(len(self.source)) for text in self.source.texts(row))
        if eligible.possessives and any(map(has_possessive, texts)):
            request["possessives"] = True
        if proposer.vectors is not None and proposer.vectors.limit is not None:
            request["vectors_limit"] = proposer.vectors.limit
        value: dict[str, Any] = json.loads(json.dumps(request))
        return value


class Finished(NamedTuple):
    """The record of a finished file, and whether it stood there before."""

    record: Progress
    was_there: bool


def augment(
    job: Augmentation, out: Path, on_rows: Callable[[int], None] = lambda _rows: None, chunk_rows: int = CHUNK_ROWS
) -> Finished:
    """Write the augmented file, or finish one that was cut off; a finished one is left as it is.

    ``on_rows``: called with the number of rows of the source done since the last call; first with those done before.
    ``chunk_rows``: rows that are looked up and written together. Raises MismatchError if something else stands at
    ``out``, DamageError if the rows of an unfinished file are not those that were recorded, TeacherError if the masked
    LM gives values that are not finite, CacheError if the file cannot be written.
    """
    with sole_writer(out, is_file=True):
        return _augment(job, out, on_rows, chunk_rows)


def _augment(job: Augmentation, out: Path, on_rows: Callable[[int], None], chunk_rows: int) -> Finished:
    output = Output(out, job.request())
    done = output.finished()
    if done is not None:
        on_rows(done.counts.rows_in)
        return Finished(done, was_there=True)
    progress = output.begin()
    on_rows(progress.counts.rows_in)
    start, before = perf_counter(), progress.seconds
    if not progress.num_bytes:
        progress = output.append(*_originals(job, progress))
    for data, counts in _chunks(job, progress.counts.rows_in, chunk_rows):
        seconds = round(before + perf_counter() - start, 3)
        update = {"counts": progress.counts + counts, "seconds": seconds}
        progress = output.append(data, progress.model_copy(update=update))
        on_rows(counts.rows_in)
    return Finished(output.finish(progress.model_copy(update={"provenance": job.provenance})), was_there=False)


def _originals(job: Augmentation, progress: Progress) -> tuple[bytes, Progress]:
    """The bytes of all rows as they are: they come first, so that the first N rows are the data without its copies."""
    source = job.source
    lines = [source.head, *(source.line(row, source.texts(row), 0) for row in range(len(source)))]
    counts = progress.counts + Counts(rows_out=len(source))
    return "".join(lines).encode(), progress.model_copy(update={"counts": counts})


def _chunks(job: Augmentation, first: int, chunk_rows: int) -> Iterator[tuple[bytes, Counts]]:
    """The bytes of the copies of some rows after the other, from row ``first`` on, and what was done for them."""
    source, known = job.source, _Known(job, first)
    for start in range(first, len(source), chunk_rows):
        rows = range(start, min(start + chunk_rows, len(source)))
        sentences = known.look_up([text for row in rows for text in source.texts(row)])
        lines, counts = list[str](), Counts()
        for row in rows:
            columns = [sentences[text] for text in source.texts(row)]
            copies = copies_of(row, columns, job.chance)[1:]
            lines += [source.line(row, copy.texts, copy.number) for copy in copies]
            replaced = sum((copy.replaced for copy in copies), Counter[Origin]())
            counts += _counts(columns, len(copies), replaced)
        yield "".join(lines).encode(), counts


class _Known:
    """Candidates of texts; those of a text that comes again, from row ``first`` on, are kept until its last row."""

    def __init__(self, job: Augmentation, first: int) -> None:
        source = job.source
        self.proposer = job.proposer
        self.to_come = Counter(text for row in range(first, len(source)) for text in source.texts(row))
        self.kept: dict[str, Sentence] = {}

    def look_up(self, texts: list[str]) -> dict[str, Sentence]:
        """The sentences of some texts, which are those that come next."""
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        self.kept |= {sentence.text: sentence for sentence in self.proposer.propose(new)}
        sentences = {text: self.kept[text] for text in texts}
        self.to_come.subtract(texts)
        for text in sentences:
            if not self.to_come[text]:
                del self.kept[text], self.to_come[text]
        return sentences


def _counts(columns: list[Sentence], rows_out: int, replaced: Counter[Origin]) -> Counts:
    origins = Counter(choice.origin for sentence in columns for choice in sentence.choices)
    return Counts(
        rows_in=1,
        rows_out=rows_out,
        masked_lm=origins["masked_lm"],
        vectors=origins["vectors"],
        left=sum(sentence.num_left for sentence in columns),
        replaced_masked_lm=replaced["masked_lm"],
        replaced_vectors=replaced["vectors"],
    )
