"""Description of logits."""

from typing import Any

from hskcache.counted import counted
from hskcache.describe.abc import Description
from hskcache.store.kinds.logits import LogitsField


class DescribedLogits(Description[LogitsField]):
    """A number a class, of a row or of each of its words."""

    holds = "the teacher's logits"
    key = "logits"
    entries = "classes"

    def told(self, field: LogitsField) -> str:
        """Number of the logits of a row, or of a word."""
        return f"{field.num_labels} float32" + (" a word" if field.of_words else "")

    def shown(self, stored: Any) -> list[Any]:
        """The logits, rounded; of words a list each."""
        if stored is None:
            return []
        return [self.shown(one) if getattr(one, "ndim", 0) else round(float(one), 6) for one in stored]

    def facts(self, stored: Any, label_names: list[str]) -> dict[str, Any]:
        """The logits, and what they are of."""
        return {self.key: self.shown(stored), "label_names": label_names}

    def line(self, shown: Any, label_names: list[str]) -> str:
        """Every logit after the name of its class."""
        if shown and isinstance(shown[0], list):
            return f"logits of {counted(len(shown), 'word')}"
        names = label_names or [""] * len(shown)
        # A cache without logits may name its classes all the same.
        named = [f"{name} {value:+.3f}".strip() for name, value in zip(names, shown, strict=False)]
        return f"logits {', '.join(named) or 'none'}"
