"""See inside a teacher's forward pass without slowing it down.

Hidden states are kept where they pass by, see :mod:`hskcache.teacher.taps`, those of the wanted layers alone. Attention
comes from ``hskcache.attention``: for the layers whose attention scores positions, the one query row that is wanted is
multiplied with the keys. For the [CLS] row that is a [B, H, 1, L] product; no eager attention runs and no [L, L] matrix
is made unless the ``received`` score asks for one. Of layers whose attention is kept, query and key are kept as they
pass by. A model that attends in code of its own reports whole maps, [B, H, L, L] a layer, which scores are taken from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hskcache.attention import listening
from hskcache.errors import TeacherError
from hskcache.output_head import without_logits
from hskcache.selection.scores import SCORED, Attended, AttentionScore
from hskcache.spec import SCORES
from hskcache.teacher.taps import Taps, tapped
from hskcache.timeline import span


@dataclass(frozen=True)
class Wanted:
    """Parts of a forward pass to keep.

    Attributes:
        hidden: hidden layers, 0 to T.
        scores: names of scores, and the attention layers, counted from 0, that score positions by them.
        attention: transformer layers, counted from 1, whose query and key are kept.
        final: whether the states that go into a language model's head are kept.
        next: names of scores of positions by what the teacher says of the next token.
        logits: whether somebody makes logits of next tokens of the final states, for which the head is passed over.
    """

    hidden: frozenset[int] = frozenset()
    scores: frozenset[tuple[str, int]] = frozenset()
    attention: frozenset[int] = frozenset()
    final: bool = False
    next: frozenset[str] = frozenset()
    logits: bool = False

    def __or__(self, other: "Wanted") -> "Wanted":
        return Wanted(
            self.hidden | other.hidden,
            self.scores | other.scores,
            self.attention | other.attention,
            self.final or other.final,
            self.next | other.next,
            self.logits or other.logits,
        )


_QUERIES = 512
"""Queries whose attention to all keys is looked at at once, where a score asks for that of all."""


class Projected(NamedTuple):
    """Query and key of one self-attention, each [B, H, L, d], and the scaling of their product."""

    query_BHLd: Tensor
    key_BHLd: Tensor
    scaling: float


@dataclass
class Captured:
    """Parts of one forward pass that were kept.

    Attributes:
        logits: the teacher's output, [B, C] float32; None for an encoder without a classifier and a language model.
        hidden: wanted hidden layer -> states [B, L, D] in the teacher's dtype; layer 0 is the embedding output.
        scores: score and attention layer (counted from 0), or None of a score that no layer gives -> score of every
            position [B, L] float32.
        attention: transformer layer (counted from 1) -> query and key.
        final: states that go into a language model's head [B, L, D], in its dtype, where they are wanted.
        asked: names of scores by the next token that positions are to have; whoever passes over the head gives them.
        num_attentions: how often the model attended; counted where something of it is wanted by its queries.
    """

    logits: Tensor | None = None
    hidden: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[tuple[str, int | None], Tensor] = field(default_factory=dict)
    attention: dict[int, Projected] = field(default_factory=dict)
    final: Tensor | None = None
    asked: frozenset[str] = frozenset()
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
            score = _attention_score(name)
            for first in range(0, query.shape[2] if score.every_query else 1, _QUERIES):
                queries = query[:, :, first : first + (_QUERIES if score.every_query else 1)]
                # In a teacher of 16 bits, products rounded to 16 bits would tie positions that differ.
                raw = torch.matmul(queries.float(), key.float().transpose(2, 3)) * scaling
                part = score.of(Attended(raw, mask, self.valid_BL, first))
                self.captured.scores[name, layer] = part + self.captured.scores[name, layer] if first else part

    def read(self, maps: tuple[Tensor, ...]) -> None:
        """Score positions by whole maps of probabilities, [B, H, L, L] a layer."""
        for name, layer in self.wanted.scores:
            score = _attention_score(name)
            seen = maps[layer] if score.every_query else maps[layer][:, :, :1]
            # What a softmax leads from to the same probabilities.
            self.captured.scores[name, layer] = score.of(Attended(seen.float().log(), None, self.valid_BL))


def _attention_score(name: str) -> AttentionScore:
    score = SCORED[name]
    assert isinstance(score, AttentionScore)
    return score


@span("forward")
def capture(model: PreTrainedModel, taps: Taps, inputs: Mapping[str, Tensor], wanted: Wanted) -> Captured:
    """Run the teacher once over a padded batch and keep what is asked for.

    Args:
        model: a teacher.
        taps: of it, as :func:`~hskcache.teacher.taps.find_taps` found them.
        inputs: ``input_ids`` [B, L], ``attention_mask`` [B, L] and, where the model has them, ``token_type_ids``.
        wanted: what to keep beside the logits.

    Raises:
        TeacherError: something is wanted that cannot be seen of the model.
    """
    require_seen(taps, wanted, type(model).__name__)
    captured = Captured(asked=wanted.next)
    recorder = _Recorder(wanted, inputs["attention_mask"].bool(), captured)
    listens = taps.attention == "queries" and (wanted.scores or wanted.attention)
    asked = {"output_attentions": True} if taps.attention == "maps" and wanted.scores else {}
    with (
        listening(recorder.receive if listens else None),
        torch.inference_mode(),
        tapped(model, {layer: taps.states[layer] for layer in wanted.hidden}, captured.hidden),
        without_logits(model, taps.output_head) as final,
    ):
        output = model(**inputs, **asked)
        if asked:
            recorder.read(output.attentions)
        logits = getattr(output, "logits", None) if taps.output_head is None else None
        captured.logits = None if logits is None else logits.float()
        captured.final = final[0] if wanted.final else None
    return captured


def require_seen(taps: Taps, wanted: Wanted, name: str) -> None:
    """Raise TeacherError unless all that is wanted can be seen of a model; says what can. ``name``: of the model."""
    if wanted.final and taps.output_head is None:
        raise TeacherError(
            f"{name} is no language model, so nothing can be kept of next tokens; leave --vocabulary out"
        )
    if wanted.hidden and not taps.states:
        raise TeacherError(f"{name} {taps.without_states}, so none can be kept; {_serves(taps)}")
    if taps.attention is None and (wanted.scores or wanted.attention):
        kept = "" if wanted.scores else ", so attention scores cannot be kept"
        raise TeacherError(f"{name} {taps.without_attention}{kept}; {_serves(taps)}")
    raw = sorted(score for score, _ in wanted.scores if _attention_score(score).before_softmax)
    if taps.attention == "maps" and (wanted.attention or raw):
        kept = f"positions cannot be scored by {raw[0]}" if raw else "attention scores cannot be kept"
        raise TeacherError(f"{name} {taps.without_attention}, so {kept}; {_serves(taps)}")


def _serves(taps: Taps) -> str:
    """Parts of a spec that a model can serve, in words."""
    if not taps.states:
        return "logits alone can be cached of it: --keep none"
    scores = sorted(name for name, score in SCORED.items() if _serves_score(name, score, taps))
    return f"it can serve logits and hidden states, whose positions --score {', '.join(scores)} can choose"


def _serves_score(name: str, score: object, taps: Taps) -> bool:
    """True if a score can choose positions of a model that does not show its queries."""
    if isinstance(score, AttentionScore):
        return taps.attention == "maps" and not score.before_softmax
    return not SCORES[name].targets_alone
