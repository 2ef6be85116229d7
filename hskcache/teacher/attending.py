"""Proof of where a model's attention can be seen.

It is taken from transformers' attention interface where the model goes through it and that is proven to show what the
model's own eager attention computes; else from the whole maps that the model reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.attention import IMPLEMENTATION, listening
from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.rounding import is_close
from hskcache.selection.scores import Attended
from hskcache.teacher.probe import answer_of, run_probe

AttentionSource = Literal["queries", "maps"]
"""``queries``: query and key of every layer; ``maps``: the probabilities [B, H, L, L] that the model reports."""


CAUSAL = (
    "is a decoder; its [CLS] row cannot score positions",
    "attends causally; its [CLS] row cannot score positions",
)
"""Reasons for no attention of models that read from left to right."""


def find_attention(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], reported: Any
) -> tuple[AttentionSource | None, str]:
    """The place where attention is seen, and the reason why it is not, or not before the softmax."""
    layers = model.config.num_hidden_layers
    before = model.config._attn_implementation
    maps, reason = _maps(model, inputs, layers)
    if maps is None:
        _attend(model, before)
        return None, reason
    if not model.is_backend_compatible():
        return "maps", "computes attention in its own code, outside transformers' attention interface"
    _attend(model, IMPLEMENTATION)
    listened: list[Attended] = []
    valid = inputs["attention_mask"].bool()
    with listening(lambda query, key, mask, scaling: listened.append(_attended(query, key, mask, scaling, valid))):
        answer = answer_of(run_probe(model, inputs))
    if len(listened) != layers:
        problem = f"attends {len(listened)} times in {counted(layers, 'layer')} through transformers' interface"
    elif not is_close(answer, answer_of(reported)) or not _agree(listened, maps, valid):
        problem = "attends otherwise than transformers' attention interface shows"
    else:
        return "queries", ""
    _attend(model, "eager")
    return "maps", problem


def _attend(model: PreTrainedModel, implementation: str) -> None:
    """Choose the attention function of a model that leaves the choice; one that does not goes on with its own."""
    if model.config._attn_implementation != implementation:
        try:
            model.set_attn_implementation(implementation)
        except ValueError:
            return


def _maps(model: PreTrainedModel, inputs: Mapping[str, Tensor], layers: int) -> tuple[Sequence[Tensor] | None, str]:
    """Probabilities of every layer [B, H, L, L] as the model's eager attention reports them, or why there are none."""
    if getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "is_decoder", False):
        return None, CAUSAL[0]
    _attend(model, "eager")
    try:
        maps = getattr(run_probe(model, inputs, output_attentions=True), "attentions", None)
    except TeacherError:
        maps = None
    length = inputs["input_ids"].shape[1]
    if not maps or any(not isinstance(each, Tensor) or each.shape[-2:] != (length, length) for each in maps):
        return None, "does not report where it attends"
    if len(maps) != layers:
        return None, (
            f"attends {counted(len(maps), 'time')} in {counted(layers, 'layer')}, so its scores cannot be told apart"
        )
    if any(each.dim() != 4 or not is_close(each.sum(-1)[0], torch.ones_like(each.sum(-1)[0])) for each in maps):
        return None, "reports attention that does not add up to 1"
    if all(not bool(each[0].triu(1).any()) for each in maps):
        return None, CAUSAL[1]
    return maps, ""


def _attended(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, valid: Tensor) -> Attended:
    return Attended(torch.matmul(query.float(), key.float().transpose(2, 3)) * scaling, mask, valid)


def _agree(listened: Iterable[Attended], maps: Iterable[Tensor], valid_BL: Tensor) -> bool:
    """True if what the interface shows becomes the probabilities that the model reports, for queries that are real."""
    queries = valid_BL.nonzero(as_tuple=True)
    return all(
        attended.probabilities_BHQL.shape == reported.shape
        and is_close(attended.probabilities_BHQL.transpose(1, 2)[queries], reported.transpose(1, 2)[queries])
        for attended, reported in zip(listened, maps, strict=True)
    )
