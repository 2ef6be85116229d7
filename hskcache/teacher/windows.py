"""A forward pass over rows that are longer than the teacher reads at once: window by window, put together again.

The logits of a row are the mean over its windows. The state of a token, what its attention scores, and the logits of a
teacher that answers token by token come from the window in which it stands most in the middle.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.inference import row_costs
from hskcache.teacher.capture import Captured, Wanted, capture
from hskcache.teacher.taps import Taps
from hskcache.text.windows import Windowing


def capture_windows(
    model: PreTrainedModel,
    taps: Taps,
    inputs: Mapping[str, Tensor],
    wanted: Wanted,
    windowing: Windowing,
    token_budget: int,
) -> Captured:
    """Capture as :func:`~hskcache.teacher.capture.capture` does, from rows of any length.

    Args:
        model: a teacher.
        taps: of it.
        inputs: of the rows, whole.
        wanted: what to keep beside the logits; no attention between tokens.
        windowing: that says what is read at once; where no row is longer, this is one pass over the rows as they are.
        token_budget: tokens of windows that are read at once, as rows are counted.

    Raises:
        TeacherError: something is wanted that cannot be seen of the model.
    """
    if inputs["input_ids"].shape[1] <= windowing.length:
        return capture(model, taps, inputs, wanted)
    device = inputs["input_ids"].device
    spread = windowing.spread(inputs["attention_mask"].sum(-1).cpu().numpy())
    rows_V, positions_VW = (torch.from_numpy(array).to(device) for array in (spread.rows_V, spread.positions_VW))
    merged, logits, by_token = Captured(), list[Tensor](), dict[Any, Tensor]()
    most = _at_once(windowing, token_budget)
    for first in range(0, len(rows_V), most):
        rows, positions = rows_V[first : first + most], positions_VW[first : first + most]
        seen = capture(model, taps, {name: all_[rows[:, None], positions] for name, all_ in inputs.items()}, wanted)
        window, place = (torch.from_numpy(one).to(device) for one in spread.is_taken_VW[first : first + most].nonzero())
        target = rows[window], positions[window, place]
        merging: list[tuple[dict[Any, Tensor], dict[Any, Tensor]]] = [
            (merged.hidden, seen.hidden),
            (merged.scores, seen.scores),
        ]
        if seen.logits is not None and seen.logits.dim() == 3:
            merging.append((by_token, {0: seen.logits}))
        elif seen.logits is not None:
            logits.append(seen.logits)
        for ours, theirs in merging:
            _merge(ours, theirs, target, (window, place), inputs["input_ids"].shape)
    merged.logits = by_token.get(0)
    if logits:
        # One row after the other: sums by index are in no certain order on a GPU.
        by_row = torch.split(torch.cat(logits), np.bincount(spread.rows_V).tolist())
        merged.logits = torch.stack([of_row.mean(0) for of_row in by_row])
    return merged


def _at_once(windowing: Windowing, token_budget: int) -> int:
    """Windows of a forward pass."""
    return max(1, token_budget // int(row_costs(np.array([windowing.length]))[0]))


def _merge(ours: dict, theirs: dict, target: tuple, source: tuple, shape: torch.Size) -> None:  # type: ignore[type-arg]
    """Put what is taken from some windows, [V, W, ...] by key, to its places in the rows, [B, L, ...]; else 0."""
    for key, values in theirs.items():
        if key not in ours:
            ours[key] = values.new_zeros((*shape, *values.shape[2:]))
        ours[key][target] = values[source]
