"""Sizes of caches that differ in what is kept by position alone; rows are tokenized and a teacher loaded once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from hskcache.build.estimate import estimate
from hskcache.build.job import Job, respecified
from hskcache.build.keeping import Keeping
from hskcache.build.resolving import language_spec
from hskcache.plan.model import PlanChoice
from hskcache.spec import Keep, Length, Spec, format_tokens


class KeepChoice(NamedTuple):
    """Choice of what is kept of hidden states.

    Attributes:
        keep: the short form; None for nothing.
        encoding: of the values; None where there are none.
        others: further options by the name that :class:`~hskcache.build.keeping.Keeping` has for them.
    """

    keep: Keep | None
    encoding: str | None
    others: tuple[tuple[str, str | int | bool], ...] = ()

    @property
    def words(self) -> str:
        """The short form as ``--keep`` takes it."""
        if self.keep is None:
            return "none"
        layers, tokens, fraction, share = self.keep
        parts = [f"{layers}l"] if layers is not None else []
        parts += format_tokens(tokens, share)
        parts += [f"{fraction!r}h"] if fraction < 1.0 else []
        return "_".join(parts) or "full"

    @property
    def options(self) -> list[str]:
        """All of it as ``hskcache build`` takes it."""
        words = ["--keep", self.words] + ([] if self.encoding is None else ["--encoding", self.encoding])
        for name, value in self.others:
            flag = name.replace("_", "-")
            words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
        return words


class CandidateSizes:
    """Sizes of candidates, each estimated once.

    Attributes:
        job: of the rows and the teacher, whatever it keeps.
        keeping: options that say all else.
        budget_bytes: of the whole cache.

    Args:
        advance: called after each that the teacher ran for.
    """

    def __init__(self, job: Job, keeping: Keeping, budget_bytes: int, advance: Callable[[], object]) -> None:
        self.job, self.keeping, self.budget_bytes, self._advance = job, keeping, budget_bytes, advance
        self._known: dict[KeepChoice, PlanChoice] = {}
        self._compressed: dict[str | None, float] = {}

    def of(self, kept: KeepChoice) -> PlanChoice:
        """The size as ``hskcache estimate`` tells it. Raises SpecError where nothing would be kept of a corpus."""
        if kept not in self._known:
            guess = estimate(respecified(self.job, self._spec(kept)))
            self._advance()
            num_bytes = sum(guess.num_bytes.values())
            self._compressed[kept.encoding] = num_bytes / sum(guess.most_bytes.values())
            self._known[kept] = PlanChoice(
                keep=kept.words,
                encoding=kept.encoding,
                options=kept.options,
                num_bytes=num_bytes,
                bytes_per_row=round(num_bytes / max(guess.num_rows, 1), 2),
                by_field=guess.num_bytes,
                fits=num_bytes <= self.budget_bytes,
            )
        return self._known[kept]

    def job_of(self, choice: PlanChoice) -> Job:
        """Job of a choice that was sized."""
        kept = next(kept for kept in self._known if kept.options == choice.options)
        return respecified(self.job, self._spec(kept))

    def fits(self, kept: KeepChoice) -> bool:
        """True if a cache is within the budget; the teacher only runs where its shapes do not tell."""
        if kept in self._known:
            return self._known[kept].fits
        return self._most_bytes(kept) <= self.budget_bytes or self.of(kept).fits

    def is_likely(self, kept: KeepChoice) -> bool:
        """True if a cache is within the budget where it is compressed as well as the last one of its encoding."""
        return self._most_bytes(kept) * self._compressed.get(kept.encoding, 1.0) <= self.budget_bytes

    def _most_bytes(self, kept: KeepChoice) -> int:
        """Bytes by shapes alone, for which no teacher runs."""
        return sum(respecified(self.job, self._spec(kept)).layout.num_bytes.values())

    def _spec(self, kept: KeepChoice) -> Spec:
        """The spec that the same options give with this ``--keep`` and ``--encoding``."""
        vocabulary = self.job.spec.vocabulary
        if kept.keep is None:
            whole = None if vocabulary is None else vocabulary.model_copy(update={"length": Length()})
            return self.job.spec.with_sections({"hidden": None, "vocabulary": whole})
        changes: dict[str, Any] = {"keep": kept.words, "encoding": kept.encoding, **dict(kept.others)}
        asked = language_spec(self.job.teacher, replace(self.keeping, **changes).spec())
        return self.job.spec.with_sections({"hidden": asked.hidden, "vocabulary": asked.vocabulary})
