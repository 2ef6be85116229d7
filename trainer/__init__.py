"""Train students: from a cache, or plainly on labels.

``fit`` trains a student from a cache, as ``hsktrain fit`` does, and ``finetune`` a model on labels, as
``hsktrain finetune``: by keywords, or as a ``FitRequest`` or a ``FinetuneRequest`` asks for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.run.keywords import finetune, fit
    from trainer.run.request import FinetuneRequest, FitRequest, FromCache, FromTeacher, Machine

__all__ = ["FinetuneRequest", "FitRequest", "FromCache", "FromTeacher", "Machine", "finetune", "fit"]

_DOORS = {"finetune": "keywords", "fit": "keywords"}


def __getattr__(name: str) -> Any:
    """Load what trains on first use: it needs torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"trainer.run.{_DOORS.get(name, 'request')}"), name)
