"""Small files in the forms in which GLUE's tasks are handed out, quirks included, with the rows that they hold.

The text is ours. The forms are those of the real files: SST-2 is lower-cased and spaced, with a blank before the tab;
CoLA has four columns and no header; RTE names its labels and QQP counts six columns, of which the questions hold quotes
that nobody closes, formulas, and line separators that are none.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NUM_ROWS = {"train": 150, "dev": 120}

SUBJECTS = (
    "a gull",
    "the old ferry",
    "my neighbour",
    "a choir of frogs",
    "the night train",
    "its captain",
    "the baker",
)
GOOD = ("sings well", "is a joy to watch", "arrives on time", "keeps every promise", "shines like new")
BAD = ("sings badly", "is a pain to watch", "never arrives", "breaks every promise", "rusts in the rain")
PLACES = ("by the lake", "in Zürich", "near the café", "on 3 May", "at 7 o'clock", "— or so they say")
# What a reader that knows CSV's quotes would swallow, join or split at.
QUIRKS = (
    '"', 'a 15" screen', '"quoted from end to end"', '"opened and not closed', 'closed and not opened"',
    'a ""double"" one', "[math]\\frac{1}{2} \\times 4[/math]", "a,comma; a | pipe", "#not a comment",
    "one\u2028two", "one\u0085two", "one\x0ctwo",
)  # fmt: skip


class Row(NamedTuple):
    """A row as a reader must give it back."""

    text: str
    pair: str | None
    label: str


@dataclass(frozen=True)
class Form:
    """How one task's files look.

    Attributes:
        folder: of its train.tsv and dev.tsv.
        task: the name of its preset.
        header: the first line, or None.
        line: a row's line, of its number, the part and the row.
        labels: its classes in the preset's order.
        with_pair: whether a row has two texts.
    """

    folder: str
    task: str
    header: str | None
    line: Callable[[int, str, Row], str]
    labels: tuple[str, ...]
    with_pair: bool = False

    def rows(self, part: str) -> list[Row]:
        """The rows of ``train`` or ``dev``, the classes by turns, the same at every call."""
        draw = random.Random(f"{self.folder} {part}")
        return [self._row(draw, index) for index in range(NUM_ROWS[part])]

    def content(self, part: str, end: str = "\n") -> str:
        """The whole file, every line with its end."""
        lines = [self.line(index, part, row) for index, row in enumerate(self.rows(part))]
        return "".join(f"{line}{end}" for line in ([self.header] if self.header else []) + lines)

    def write(self, folder: Path) -> None:
        """Both files, as bytes that no newline of a platform changes."""
        (folder / self.folder).mkdir()
        for part in NUM_ROWS:
            (folder / self.folder / f"{part}.tsv").write_bytes(self.content(part).encode())

    def _row(self, draw: random.Random, index: int) -> Row:
        label = index % 2
        subject = draw.choice(SUBJECTS)
        text = f"{subject} {draw.choice(GOOD if label else BAD)} {draw.choice(PLACES)}"
        if self.folder == "SST-2":
            return Row(f"{text.lower().replace('.', ' .')} , it 's said ", None, self.labels[label])
        # Every quirk as a whole text, at its beginning, at its end.
        quirk = QUIRKS[index % len(QUIRKS)]
        text = (f"{text}.", quirk, f"{quirk} {text}", f"{text} {quirk}")[index // 2 % 4]
        pair = f"{subject} {draw.choice(GOOD + BAD)}, {QUIRKS[-1 - index % len(QUIRKS)]}" if self.with_pair else None
        return Row(text, pair, self.labels[label])


def _cola(index: int, _part: str, row: Row) -> str:
    # The author's star stands beside what nobody says.
    return f"gj{index % 9:02d}\t{row.label}\t{'*' if row.label == '0' else ''}\t{row.text}"


def _qqp(index: int, part: str, row: Row) -> str:
    ids = (index, -1, -1) if part == "dev" else (360472 - 7 * index, 2 * index + 1, 2 * index + 2)
    return "\t".join([*map(str, ids), row.text, row.pair or "", row.label])


FORMS = {
    form.folder: form
    for form in (
        Form("SST-2", "sst2", "sentence\tlabel", lambda _index, _part, row: f"{row.text}\t{row.label}", ("0", "1")),
        Form("CoLA", "cola", None, _cola, ("0", "1")),
        Form(
            "RTE",
            "rte",
            "index\tsentence1\tsentence2\tlabel",
            lambda index, _part, row: f"{index}\t{row.text}\t{row.pair}\t{row.label}",
            ("entailment", "not_entailment"),
            with_pair=True,
        ),
        Form(
            "QQP-subset",
            "qqp",
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            _qqp,
            ("0", "1"),
            with_pair=True,
        ),
    )
}
