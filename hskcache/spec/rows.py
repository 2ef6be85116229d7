"""Rules by which rows are made and read: how a corpus is packed, and long rows in windows."""

from pydantic import Field

from hskcache.counted import counted
from hskcache.spec.words import PairsName
from hskcache.strict import Strict

_PAIRS: dict[PairsName, str] = {
    "none": "single texts",
    "next": "pairs of a text and what follows it",
    "random": "pairs of texts of two documents",
    "mixed": "pairs, half with what follows the first text, half with one of another document",
}


class Packing(Strict):
    """Rule by which a corpus becomes rows of tokens [TinyBERT 3.3]; it says nothing of the rows of a task.

    Attributes:
        pairs: ``none``: rows are single texts; ``next``: two texts, the second what follows the first in its document;
            ``random``: the second is of another document; ``mixed``: each of these in half of the rows.
        short_rows: share of rows whose length is drawn instead of as long as it may be.
        copies: how often the corpus is packed, with other cuts and partners each time.
        mask: share of words that are masked; 0 masks none.
        seed: of all that is drawn.
    """

    pairs: PairsName = "none"
    short_rows: float = Field(default=0.0, ge=0.0, le=1.0)
    copies: int = Field(default=1, ge=1)
    mask: float = Field(default=0.0, ge=0.0, lt=1.0)
    seed: int = Field(default=0, ge=0)

    @property
    def resolved(self) -> "Packing":
        """The same without a seed where nothing is drawn: the same rows have the same digest."""
        return Packing() if self == Packing(seed=self.seed) else self

    @property
    def told(self) -> str:
        """Description for a person."""
        words = [_PAIRS[self.pairs]]
        if self.short_rows:
            words.append(f"{self.short_rows:.4g} of the rows shortened")
        if self.copies > 1:
            words.append(counted(self.copies, "copy", "copies"))
        if self.mask:
            words.append(f"{self.mask:.4g} of the words masked")
        if self.resolved != Packing():
            words.append(f"seed {self.seed}")
        return "; ".join(words)


class Windows(Strict):
    """Windows in which a teacher reads rows that are longer than it reads at once, see :mod:`hskcache.text.windows`.

    Attributes:
        overlap: tokens of a text that neighbouring windows share at least.
        length: tokens of a window, special tokens included; None: as many as the teacher reads.
    """

    overlap: int = Field(ge=0)
    length: int | None = Field(default=None, ge=3)

    @property
    def told(self) -> str:
        """Description for a person, of a resolved spec."""
        return f"of more than {self.length} tokens read in windows that share {counted(self.overlap, 'token')}"
