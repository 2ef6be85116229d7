"""Rows of single texts: the texts of pairs each as a row, and a prompt before them, read as they are looked at."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

from hskcache.spec import Spec
from hskcache.text.examples import Examples, fingerprint
from hskcache.text.strings import Mapped

_BLOCK_ROWS = 1 << 12


class Alternating(Sequence[str]):
    """The texts of pairs, row after row: the first, then the second.

    Args:
        texts, pairs: [N] each.
    """

    def __init__(self, texts: Sequence[str], pairs: Sequence[str]) -> None:
        self._sides = texts, pairs

    def __len__(self) -> int:
        return 2 * len(self._sides[0])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            first, stop, step = index.indices(len(self))
            if step != 1 or first >= stop:
                return [self[place] for place in range(first, stop, step)]
            # Whole pairs at once: each look at a column may be one at the disk.
            sides = [side[first // 2 : (stop + 1) // 2] for side in self._sides]
            both = [text for pair in zip(*sides, strict=True) for text in pair]
            return both[first % 2 : first % 2 + stop - first]
        place = range(len(self))[index]
        return self._sides[place % 2][place // 2]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _BLOCK_ROWS):
            yield from self[first : first + _BLOCK_ROWS]


def with_prompt(prompt: str, texts: Sequence[str]) -> Sequence[str]:
    """Texts with the same words before each; the same where there are none."""
    return Mapped(lambda text: prompt + text, texts) if prompt else texts


def singles(examples: Examples) -> Examples:
    """The texts of some rows, each as a row; the same where rows are single texts."""
    if examples.pairs is None:
        return examples
    texts, numbers = Alternating(examples.texts, examples.pairs), examples.reading.numbers
    return replace(
        examples,
        texts=texts,
        pairs=None,
        labels=None,
        fingerprint=fingerprint(texts, None, None, examples.label_names),
        reading=replace(examples.reading, numbers=[number for number in numbers for _ in range(2)]),
    )


def prompted(examples: Examples, spec: Spec) -> Examples:
    """The rows with the prompt of a spec before each."""
    prompt = "" if spec.embedding is None else spec.embedding.prompt or ""
    return replace(examples, texts=with_prompt(prompt, examples.texts)) if prompt else examples
