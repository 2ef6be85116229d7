"""Agreement of a model's answers with the labels: told to readers, and kept in manifests without being digested.

Of classes it is a count, of any number of classes a row a count of each, of scores a correlation. Two things are
noticed that a share alone does not tell: classes that stand in another order than they were taken in, and answers that
know no more than which class is the most frequent.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field as Key
from pydantic import model_validator

from hskcache.strict import Strict

_CONSTANT = 1e-12
"""Variance of scores, as a share of their size, below which they are the same."""


class Reordered(Strict):
    """Another order of the classes that fits the labels much better than the one that was taken.

    Attributes:
        order: for each output of the model the class that it answers for, by its index among the labels.
        num_agreed: rows whose label would be the answer.
    """

    order: list[int]
    num_agreed: int = Key(ge=0)


class ClassAgreement(Strict):
    """Answers of a classifier beside the labels.

    Attributes:
        num_rows: rows that have a label.
        num_agreed: those whose label is the most probable class.
        label_counts, answer_counts: [C] rows of each class, by label and by answer.
        reordered: an order that fits much better; None where there is none.
    """

    kind: Literal["classes"] = "classes"
    num_rows: int = Key(ge=0)
    num_agreed: int = Key(ge=0)
    label_counts: list[int] = Key(min_length=1)
    answer_counts: list[int] = Key(min_length=1)
    reordered: Reordered | None = None

    @model_validator(mode="after")
    def _check(self) -> "ClassAgreement":
        classes = range(len(self.label_counts))
        if len(self.answer_counts) != len(classes):
            raise ValueError("label_counts and answer_counts count other classes")
        if self.reordered is not None and sorted(self.reordered.order) != list(classes):
            raise ValueError("reordered.order is no order of the classes")
        return self

    @property
    def share(self) -> float:
        """Share of the rows that agree: the accuracy."""
        return self.num_agreed / max(1, self.num_rows)

    @property
    def majority(self) -> float:
        """The accuracy of always answering the class that is the most frequent among the labels."""
        return max(self.label_counts) / max(1, self.num_rows)

    @property
    def num_answered(self) -> int:
        """Classes that are answered for some row."""
        return sum(count > 0 for count in self.answer_counts)

    @property
    def is_chance(self) -> bool:
        """True if the answers know no more than the frequencies; of labels of one class, if none agrees."""
        if self.num_rows < 2:
            return False
        if self.majority == 1:
            return not self.num_agreed
        return self.num_answered < 2 or self.num_agreed <= max(self.label_counts)

    def summary(self) -> str:
        """The agreement in words, to be read after whose it is."""
        return f"agrees with {_percent(self.share)} of the labels"

    def chance(self, names: Sequence[str]) -> str | None:
        """Notice that the answers are chance, to be read after their owner; None where they are not."""
        if not self.is_chance:
            return None
        share = _percent(self.share)
        if self.num_answered == 1:
            answer = names[_largest(self.answer_counts)]
            return f"answers {answer} for every row, which agrees with {share} of the labels"
        return (
            f"agrees with {share} of the labels, and always answering {names[_largest(self.label_counts)]} would with "
            f"{_percent(self.majority)}"
        )

    def other_order(self, names: Sequence[str]) -> str | None:
        """Notice that another order of the classes fits better, to be read after their owner; None where none does."""
        if self.reordered is None:
            return None
        share = self.reordered.num_agreed / max(1, self.num_rows)
        return (
            f"agrees with {_percent(self.share)} of the labels where its outputs are taken for {', '.join(names)}, and "
            f"with {_percent(share)} where they are {', '.join(names[place] for place in self.reordered.order)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what follows from the counts."""
        return {"share": self.share, "majority": self.majority, **self.model_dump(mode="json")}

    def joined(self, other: "ClassAgreement") -> "ClassAgreement":
        """The agreement of these rows and others of the same classes; an order that only one of them shows is left."""
        ours, theirs = self.reordered, other.reordered
        both = None
        if ours is not None and theirs is not None and ours.order == theirs.order:
            both = Reordered(order=ours.order, num_agreed=ours.num_agreed + theirs.num_agreed)
        return ClassAgreement(
            num_rows=self.num_rows + other.num_rows,
            num_agreed=self.num_agreed + other.num_agreed,
            label_counts=_sums(self.label_counts, other.label_counts),
            answer_counts=_sums(self.answer_counts, other.answer_counts),
            reordered=both,
        )


class FlagsAgreement(Strict):
    """Answers beside the labels where a row may have any number of classes.

    Attributes:
        num_rows: rows that have a label.
        num_agreed: those whose classes are answered, all of them and no other.
        label_counts, answer_counts, both_counts: [C] rows of each class, by label, by answer and by both.
    """

    kind: Literal["flags"] = "flags"
    num_rows: int = Key(ge=0)
    num_agreed: int = Key(ge=0)
    label_counts: list[int] = Key(min_length=1)
    answer_counts: list[int] = Key(min_length=1)
    both_counts: list[int] = Key(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "FlagsAgreement":
        if len({len(self.label_counts), len(self.answer_counts), len(self.both_counts)}) > 1:
            raise ValueError("label_counts, answer_counts and both_counts count other classes")
        return self

    @property
    def share(self) -> float:
        """Share of the rows that agree: the subset accuracy."""
        return self.num_agreed / max(1, self.num_rows)

    @property
    def f1(self) -> float:
        """F1 of all pairs of a row and a class together: the micro F1."""
        return 2 * sum(self.both_counts) / max(1, sum(self.label_counts) + sum(self.answer_counts))

    @property
    def is_chance(self) -> bool:
        """True if every row has the same classes by the answers, and not all have by their labels."""
        constant = all(count in {0, self.num_rows} for count in self.answer_counts)
        return self.num_rows > 1 and constant and any(0 < count < self.num_rows for count in self.label_counts)

    def summary(self) -> str:
        """The agreement in words, to be read after whose it is."""
        return f"agrees with all labels of {_percent(self.share)} of the rows (micro F1 {self.f1:.3f})"

    def chance(self, names: Sequence[str]) -> str | None:
        """Notice that the answers are chance, to be read after their owner; None where they are not."""
        if not self.is_chance:
            return None
        answered = [name for name, count in zip(names, self.answer_counts, strict=False) if count]
        return f"answers {', '.join(answered) or 'no class'} for every row"

    def other_order(self, names: Sequence[str]) -> str | None:
        """Nothing: another order of the classes is not looked for."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what follows from the counts."""
        return {"share": self.share, "f1_micro": self.f1, **self.model_dump(mode="json")}

    def joined(self, other: "FlagsAgreement") -> "FlagsAgreement":
        """The agreement of these rows and others of the same classes."""
        return FlagsAgreement(
            num_rows=self.num_rows + other.num_rows,
            num_agreed=self.num_agreed + other.num_agreed,
            label_counts=_sums(self.label_counts, other.label_counts),
            answer_counts=_sums(self.answer_counts, other.answer_counts),
            both_counts=_sums(self.both_counts, other.both_counts),
        )


class ScoreAgreement(Strict):
    """Scores of a model beside the labels, as moments, of which those of more rows can be made.

    Attributes:
        num_rows: rows that have a label.
        label_mean, answer_mean: of the rows.
        label_variance, answer_variance: about those, divided by the number of rows.
        covariance: likewise.
    """

    kind: Literal["scores"] = "scores"
    num_rows: int = Key(ge=0)
    label_mean: float
    answer_mean: float
    label_variance: float = Key(ge=0)
    answer_variance: float = Key(ge=0)
    covariance: float

    @property
    def mean_squared_error(self) -> float:
        """Mean squared error of the answers as scores."""
        spread = self.label_variance + self.answer_variance - 2 * self.covariance
        return max(0.0, spread) + (self.label_mean - self.answer_mean) ** 2

    @property
    def is_constant(self) -> bool:
        """True if every row has the same answer."""
        return self.answer_variance <= _CONSTANT * max(self.answer_mean**2, self.label_variance)

    @property
    def pearson(self) -> float:
        """The correlation; 0 where either side is constant."""
        if self.is_constant or not self.label_variance:
            return 0.0
        return self.covariance / math.sqrt(self.label_variance * self.answer_variance)

    @property
    def is_chance(self) -> bool:
        """True if the answers tell nothing of the labels; never where all labels are one score."""
        return self.num_rows > 1 and self.label_variance > 0 and self.pearson <= 0

    def summary(self) -> str:
        """The agreement in words, to be read after whose it is."""
        error = f"mean squared error {self.mean_squared_error:.4g}"
        if not self.label_variance:
            return f"cannot be compared with the labels, which are {self.label_mean:.4g} in every row ({error})"
        return f"agrees with the labels by a correlation of {self.pearson:.3f} ({error})"

    def chance(self, names: Sequence[str]) -> str | None:
        """Notice that the answers are chance, to be read after their owner; None where they are not."""
        if not self.is_chance:
            return None
        if self.is_constant:
            return f"gives every row the score {self.answer_mean:.4g}"
        return f"gives scores that do not rise with the labels (correlation {self.pearson:.3f})"

    def other_order(self, names: Sequence[str]) -> str | None:
        """Nothing: scores have no order."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what follows from the moments."""
        derived = {"pearson": self.pearson, "mean_squared_error": self.mean_squared_error}
        return {**derived, **self.model_dump(mode="json")}

    def joined(self, other: "ScoreAgreement") -> "ScoreAgreement":
        """The agreement of these rows and others."""
        num_rows = self.num_rows + other.num_rows
        ours, theirs = self.num_rows / max(1, num_rows), other.num_rows / max(1, num_rows)
        label, answer = other.label_mean - self.label_mean, other.answer_mean - self.answer_mean
        apart = ours * theirs
        return ScoreAgreement(
            num_rows=num_rows,
            label_mean=self.label_mean + theirs * label,
            answer_mean=self.answer_mean + theirs * answer,
            label_variance=ours * self.label_variance + theirs * other.label_variance + apart * label**2,
            answer_variance=ours * self.answer_variance + theirs * other.answer_variance + apart * answer**2,
            covariance=ours * self.covariance + theirs * other.covariance + apart * label * answer,
        )


Agreement: TypeAlias = Annotated[ClassAgreement | FlagsAgreement | ScoreAgreement, Key(discriminator="kind")]


def told(agreement: "Agreement", who: str, names: Sequence[str]) -> str | None:
    """A line for people: how far a teacher agrees, and what to do where that looks wrong; None where no row tells.

    ``names``: the classes, in the order in which its outputs were taken.
    """
    if not agreement.num_rows:
        return None
    if (order := agreement.other_order(names)) is not None:
        assert isinstance(agreement, ClassAgreement)
        assert agreement.reordered is not None
        named = ", ".join(f'"{output}": "{names[place]}"' for output, place in enumerate(agreement.reordered.order))
        return (
            f"{who} {order}: its classes seem to be in that order; if so, set id2label to {{{named}}} in its "
            "config.json, label2id likewise, or give --task a .yaml with the labels in that order, and run it again"
        )
    if (chance := agreement.chance(names)) is not None:
        return (
            f"{who} {chance}: it seems to know nothing of these rows; see that it is fine-tuned on this task, and that "
            "texts and labels are the right columns"
        )
    return f"{who} {agreement.summary()}"


def joined(one: "Agreement | None", other: "Agreement | None") -> "Agreement | None":
    """The agreement of the rows of both; None where either is not known or they are of different kinds."""
    if isinstance(one, ScoreAgreement) and isinstance(other, ScoreAgreement):
        return one.joined(other)
    if isinstance(one, ClassAgreement) and isinstance(other, ClassAgreement):
        return one.joined(other) if len(one.label_counts) == len(other.label_counts) else None
    if isinstance(one, FlagsAgreement) and isinstance(other, FlagsAgreement):
        return one.joined(other) if len(one.label_counts) == len(other.label_counts) else None
    return None


def _sums(ours: Sequence[int], theirs: Sequence[int]) -> list[int]:
    return [one + other for one, other in zip(ours, theirs, strict=True)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _largest(counts: Sequence[int]) -> int:
    return counts.index(max(counts))
