"""Description of logits."""

from typing import Any

from hskcache.describe.abc import Description
from hskcache.store.kinds.logits import LogitsField


class DescribedLogits(Description[LogitsField]):
    """A number a class."""

    holds = "the teacher's logits"
    key = "logits"
    entries = "classes"

    def told(self, field: LogitsField) -> str:
        """Number of the logits of a row."""
        return f"{field.num_labels} float32"

    def shown(self, stored: Any) -> list[float]:
        """The logits, rounded."""
        return [] if stored is None else [round(float(value), 6) for value in stored]

    def facts(self, stored: Any, label_names: list[str]) -> dict[str, Any]:
        """The logits, and what they are of."""
        return {self.key: self.shown(stored), "label_names": label_names}

    def line(self, shown: Any, label_names: list[str]) -> str:
        """Every logit after the name of its class."""
        names = label_names or [""] * len(shown)
        # A cache without logits may name its classes all the same.
        named = [f"{name} {value:+.3f}".strip() for name, value in zip(names, shown, strict=False)]
        return f"logits {', '.join(named) or 'none'}"
