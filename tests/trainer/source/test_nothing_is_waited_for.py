"""No part of a step asks for values that a GPU is still computing: shapes are known and nothing is read back.

On a CPU the operations that would wait for a GPU are seen as they are called. transformers has one of its own: in every
forward pass it asks whether a mask of padding hides anything (sdpa_mask in masking_utils).
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import student_of
from torch.utils._python_dispatch import TorchDispatchMode

from hskcache.cache import Cache
from hskcache.selection.depth import LayerPair
from trainer.loading import KnowledgeLoader
from trainer.losses.matches import Matches
from trainer.recipe import HiddenTerm, LabelTerm, Losses, SoftTerm
from trainer.source.objective import Objective
from trainer.source.source import cached_source

# Operations whose result, or its shape, depends on values: .item(), bool(), nonzero, masks as indices, unique.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal")
THEIRS = "masking_utils.py"


class _Refusing(TorchDispatchMode):
    """Fails where one of them is called; an index that is a mask is one, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [one for one in args[1] if one is not None and one.dtype == torch.bool] if name == "index" else []
        if name in WAITING or masks:
            frames = traceback.extract_stack()
            assert any(frame.filename.endswith(THEIRS) for frame in frames), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def test_what_waits_is_seen() -> None:
    values = torch.ones(3)
    for waits in (lambda: values[0].item(), lambda: values.nonzero(), lambda: values[values > 0]):
        with pytest.raises(AssertionError, match="waits for the device"), _Refusing():
            waits()
    with _Refusing():
        values.index_select(0, torch.tensor([1]))


@pytest.mark.parametrize("missing", ["zero", "ignore"])
@pytest.mark.parametrize("scheme", ["bitmask", "all", "pca"])
def test_a_step_reads_nothing_back(caches: Callable[[str], Cache], wide: Path, scheme: str, missing: Any) -> None:
    if scheme == "pca" and missing == "ignore":
        pytest.skip("coordinates along components are not columns")
    cache = caches(scheme)
    matches = Matches({"hidden": (LayerPair(1, 2), LayerPair(2, 4))}, {"hidden": cache.fields["hidden"]})
    losses = Losses(hidden=HiddenTerm(missing=missing), soft=SoftTerm(), label=LabelTerm())
    objective = Objective(student_of(cached_source(cache.root), wide), losses, matches).train()
    batches = iter(KnowledgeLoader(cache, batch_size=16))
    parameters = list(objective.parameters())
    # What the first step makes ready may be asked for.
    objective(next(batches))[0].backward()
    for _ in range(2):
        with _Refusing():
            loss, _ = objective(next(batches))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
