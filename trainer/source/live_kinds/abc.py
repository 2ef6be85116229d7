"""Knowledge that a teacher in the loop keeps of a batch, and the target that it becomes.

Tensors are cloned on the way: what was made in inference mode cannot be saved for a backward pass.
"""

from typing import Any, NamedTuple

from torch import Tensor

from hskcache.build.positions import PaddedRows


class LiveLayer(NamedTuple):
    """One layer of a batch as the teacher left it behind.

    ``selector``: that kept it. ``layer``: teacher layer; None of a kind without layers. ``entries``: what the selector
    gave. ``rows``: the batch as the selection sees it.
    """

    selector: Any
    layer: int | None
    entries: Any
    rows: PaddedRows


class LiveTarget(NamedTuple):
    """A target of a batch, and the values in it that should be finite."""

    target: Any
    values: Tensor
