"""See inside a teacher's forward pass without slowing it down.

Hidden states come from forward hooks on the encoder layers that are kept, and from no others. Attention comes from
``hskcache.attention``: for the layers whose attention scores positions, the one query row that is wanted is multiplied
with the keys. For the [CLS] row that is a [B, H, 1, L] product; no eager attention runs and no [L, L] matrix is made
unless the ``received`` score asks for one. Of layers whose attention is kept, query and key are kept as they pass by.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.attention import IMPLEMENTATION, listening
from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.selection.scores import SCORED, Attended, AttentionScore
from hskcache.timeline import span


@dataclass(frozen=True)
class Wanted:
    """Parts of a forward pass to keep.

    Attributes:
        hidden: hidden layers, 0 to T.
        scores: names of scores, and the attention layers, counted from 0, that score positions by them.
        attention: transformer layers, counted from 1, whose query and key are kept.
    """

    hidden: frozenset[int] = frozenset()
    scores: frozenset[tuple[str, int]] = frozenset()
    attention: frozenset[int] = frozenset()

    def __or__(self, other: "Wanted") -> "Wanted":
        return Wanted(self.hidden | other.hidden, self.scores | other.scores, self.attention | other.attention)


class Projected(NamedTuple):
    """Query and key of one self-attention, each [B, H, L, d], and the scaling of their product."""

    query_BHLd: Tensor
    key_BHLd: Tensor
    scaling: float


@dataclass
class Captured:
    """Parts of one forward pass that were kept.

    Attributes:
        logits: the teacher's output, [B, C] float32; None for an encoder without a classifier.
        hidden: wanted hidden layer -> states [B, L, D] in the teacher's dtype; layer 0 is the embedding output.
        scores: score and attention layer (counted from 0) -> score of every position [B, L] float32.
        attention: transformer layer (counted from 1) -> query and key.
        num_attentions: how often the model attended; counted where something of it is wanted.
    """

    logits: Tensor | None = None
    hidden: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    attention: dict[int, Projected] = field(default_factory=dict)
    num_attentions: int = 0


@dataclass
class _Recorder:
    wanted: Wanted
    valid_BL: Tensor
    captured: Captured

    def receive(self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
        layer = self.captured.num_attentions
        self.captured.num_attentions += 1
        if layer + 1 in self.wanted.attention:
            self.captured.attention[layer + 1] = Projected(query, key, scaling)
        for name in (name for name, place in self.wanted.scores if place == layer):
            score = SCORED[name]
            assert isinstance(score, AttentionScore)
            queries = query if score.every_query else query[:, :, :1]
            # In a teacher of 16 bits, products rounded to 16 bits would tie positions that differ.
            raw = torch.matmul(queries.float(), key.float().transpose(2, 3)) * scaling
            self.captured.scores[name, layer] = score.of(Attended(raw, mask, self.valid_BL))


def encoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The transformer layers in the order in which they run.

    Raises:
        TeacherError: the model has no single stack of ``num_hidden_layers`` layers.
    """
    count = model.config.num_hidden_layers
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if len(stacks) != 1:
        raise TeacherError(
            f"{type(model).__name__} has {len(stacks)} stacks of {count} layers where one was expected; use an "
            "encoder such as BERT, RoBERTa, DistilBERT, ELECTRA or MiniLM"
        )
    return list(stacks[0])


@contextmanager
def _hooks(model: PreTrainedModel, wanted: Collection[int], hidden: dict[int, Tensor]) -> Iterator[None]:
    """Keep the wanted hidden layers of the next forward pass in ``hidden``."""
    layers = encoder_layers(model)

    def keep_input(_module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        hidden[0] = args[0] if args else kwargs["hidden_states"]

    def keeper(layer: int) -> Any:
        def keep_output(_module: nn.Module, _args: Any, output: Any) -> None:
            hidden[layer] = output[0] if isinstance(output, tuple) else output

        return keep_output

    with ExitStack() as stack:
        if 0 in wanted:
            handle = layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)
            stack.callback(handle.remove)
        for layer in sorted(set(wanted) - {0}):
            stack.callback(layers[layer - 1].register_forward_hook(keeper(layer)).remove)
        yield


@span("forward")
def capture(model: PreTrainedModel, inputs: Mapping[str, Tensor], wanted: Wanted) -> Captured:
    """Run the teacher once over a padded batch and keep what is asked for.

    Args:
        model: a teacher made ready by :func:`prepare`.
        inputs: ``input_ids`` [B, L], ``attention_mask`` [B, L] and, where the model has them, ``token_type_ids``.
        wanted: what to keep beside the logits.
    """
    captured = Captured()
    recorder = _Recorder(wanted, inputs["attention_mask"].bool(), captured)
    listens = wanted.scores or wanted.attention
    with (
        listening(recorder.receive if listens else None),
        torch.inference_mode(),
        _hooks(model, wanted.hidden, captured.hidden),
    ):
        logits = getattr(model(**inputs), "logits", None)
        captured.logits = None if logits is None else logits.float()
    return captured


def prepare(model: PreTrainedModel) -> None:
    """Put the teacher in eval mode behind the capturing attention and prove on a small batch that it can be captured.

    Raises:
        TeacherError: the architecture does not go through transformers' attention interface once a layer, attends
            causally, or its layers' outputs are not its hidden states.
    """
    name = type(model).__name__
    config = model.config
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise TeacherError(f"{name} is a decoder; its [CLS] row cannot score positions: use an encoder such as BERT")
    if not model.is_backend_compatible():
        raise TeacherError(
            f"{name} computes attention in its own code, outside transformers' attention interface, and cannot be "
            "captured; use BERT, RoBERTa, DistilBERT, ELECTRA or another encoder that supports it"
        )
    model.set_attn_implementation(IMPLEMENTATION)
    model.eval()
    _probe(model, name)


def _probe(model: PreTrainedModel, name: str) -> None:
    layers = encoder_layers(model)
    if any(getattr(module, "is_causal", False) for module in model.modules()):
        raise TeacherError(
            f"{name} attends causally; its [CLS] row cannot score positions: use an encoder such as BERT"
        )
    pad = model.config.pad_token_id or 0
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, pad, pad]], device=model.device) % model.config.vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=model.device)}
    try:
        every = frozenset(range(len(layers)))
        captured = capture(model, inputs, Wanted(every | {len(layers)}, frozenset(("attention", i) for i in every)))
        with torch.inference_mode():
            expected = model(**inputs, output_hidden_states=True).hidden_states
    except Exception as error:  # noqa: BLE001  (whatever a model asks for beyond token ids, it is not given here)
        raise TeacherError(
            f"{name} does not run on token ids and a mask alone: {shorten(str(error), 200)}; use a plain encoder such "
            "as BERT"
        ) from None
    if captured.num_attentions != len(layers):
        raise TeacherError(
            f"{name} attends {captured.num_attentions} times in {counted(len(layers), 'layer')}, so its "
            "scores cannot be told "
            "apart; use an encoder with one self-attention a layer"
        )
    same = len(expected) == len(layers) + 1 and all(
        torch.allclose(captured.hidden[layer], states, rtol=1e-3, atol=1e-4, equal_nan=True)
        for layer, states in enumerate(expected)
    )
    if not same:
        raise TeacherError(
            f"the outputs of {name}'s layers are not the hidden states it reports, so they cannot be captured layer "
            "by layer; use BERT, RoBERTa, DistilBERT, ELECTRA or another plain encoder"
        )
