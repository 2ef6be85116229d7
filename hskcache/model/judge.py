"""Judgement of a load: what transformers reports of weights it did not use, did not find, or found in another shape.

transformers goes on in all three cases: weights without a place are dropped, places without weights are drawn anew, and
so are those whose shapes differ. A teacher or a student of such a load answers, only not with what it was trained to
know. Here each case is refused in a sentence, but for what is known to be harmless: heads of pre-training, poolers that
nothing reads, and buffers that older versions saved.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hskcache import console
from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.model.weights import LAYER_PROJECTIONS, SHARED_PROJECTION, tensor_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hskcache.model.load import ModelDemands

# Buffers that say nothing a model was trained to know, and poolers, which only some heads read.
_IDLE = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|num_batches_tracked)$|(^|\.)pooler\.")
# First parts of the names of heads that models are pre-trained with.
_PRETRAINING = frozenset(
    {
        "cls",
        "discriminator_predictions",
        "generator_lm_head",
        "generator_predictions",
        "lm_head",
        "lm_loss",
        "lm_predictions",
        "mask_predictions",
        "pred_layer",
        "predictions",
        "sop_classifier",
        "vocab_layer_norm",
        "vocab_projector",
        "vocab_transform",
    }
)
_SENTENCE_ORDER = ("seq_relationship", "sop_classifier", "discriminator_predictions")
# Tasks whose models are begun from, whatever is wanted; the head of any other is that task's own.
_BEGINNINGS = frozenset({"SequenceClassification", "MaskedLM", "PreTraining", "CausalLM", "NextSentencePrediction"})
_TASK = re.compile(r"For([A-Z]\w*)$|LMHeadModel$")
_ADAPTER = re.compile(r"lora_|\.base_layer\.|ia3_|adapter")
_LAYER = re.compile(r"\.layers?\.(\d+)\.")
# The entry of config.json that decides a shape, by what the tensor's name holds; the first that fits.
_DECIDED_BY = (
    ("word_embeddings", "vocab_size"),
    ("tok_embeddings", "vocab_size"),
    ("position_embeddings", "max_position_embeddings"),
    ("token_type_embeddings", "type_vocab_size"),
    ("rel_embeddings", "position_buckets"),
    ("intermediate", "intermediate_size"),
    ("lin1", "hidden_dim"),
    ("lin2", "hidden_dim"),
    ("ffn", "intermediate_size"),
    ("mlp", "intermediate_size"),
    ("attention", "num_attention_heads"),
    ("output.dense", "intermediate_size"),
)


class Resized(NamedTuple):
    """A weight whose shape in the checkpoint is not that of the model."""

    name: str
    theirs: tuple[int, ...]
    ours: tuple[int, ...]


class Judged(NamedTuple):
    """Weights of an accepted load that were drawn anew: the head's alone, and only where a new one may be.

    ``new``: names of weights that the checkpoint lacks; ``resized``: weights of the head that have another shape there.
    """

    new: tuple[str, ...]
    resized: tuple[Resized, ...]


def judge(name: str, model: "PreTrainedModel", loading: Mapping[str, Any], demands: "ModelDemands") -> Judged:
    """Accept or refuse a loaded model by what transformers says of its weights.

    ``loading``: the loading info of ``from_pretrained``. Raises TeacherError for weights of its own that nothing uses,
    that are missing, or that have another shape; or it was saved as a model of another task.
    """
    load = _Load(name, model, loading, demands)
    # In this order: the task explains what is missing, and what is missing or misshapen why others found no place.
    load.check_task()
    resized = load.check_shapes()
    new = load.check_missing()
    load.check_unused()
    load.tell_class()
    return Judged(new, resized)


class _Load:
    """One load, and the questions asked of it."""

    def __init__(
        self, name: str, model: "PreTrainedModel", loading: Mapping[str, Any], demands: "ModelDemands"
    ) -> None:
        self.name, self.model, self.demands = name, model, demands
        self.missing: list[str] = sorted(loading["missing_keys"])
        self.unused: list[str] = sorted(loading["unexpected_keys"])
        self.resized = sorted(
            Resized(key, tuple(theirs), tuple(ours)) for key, theirs, ours in loading["mismatched_keys"]
        )
        self.kind = type(model).__name__
        self.prefix = f"{model.base_model_prefix}."
        self.is_base = model.base_model is model

    def in_encoder(self, key: str) -> bool:
        """True if a weight of the model belongs to the encoder rather than to a head."""
        return self.is_base or key.startswith(self.prefix)

    @property
    def has_own_head(self) -> bool:
        """True if any weight of the model's head came from the checkpoint."""
        drawn = {*self.missing, *(entry.name for entry in self.resized)}
        head = [key for key in self.model.state_dict() if not self.in_encoder(key)]
        return any(key not in drawn for key in head)

    def check_shapes(self) -> tuple[Resized, ...]:
        """The resized weights of a head that may be drawn anew."""
        config = self.model.config
        for entry in self.resized:
            if self.demands.new_head and not self.in_encoder(entry.name):
                continue
            key = _decided_by(entry, config, self.in_encoder(entry.name))
            more = f", and {len(self.resized) - 1} more do not fit" if len(self.resized) > 1 else ""
            raise TeacherError(
                f"{self.name}: {entry.name} has the shape {list(entry.theirs)} in the weights and {list(entry.ours)} "
                f"by its config.json{more}; correct {key} there, or put back the weights that belong to "
                "it"
            )
        return tuple(self.resized)

    def check_missing(self) -> tuple[str, ...]:
        """The missing weights of a head that may be drawn anew, and of a pooler that none was trained for."""
        encoder = [key for key in self.missing if self.in_encoder(key) and not _IDLE.search(key)]
        if encoder:
            # Of a head that is left behind nothing is said.
            unplaced = next((f", and has {key} without a place" for key in self.unused if self.prefix in key), "")
            raise TeacherError(
                f"{self.name} lacks {counted(len(encoder), 'weight')} of its own encoder ({_some(encoder)})"
                f"{self._hint(self.unused) or unplaced}; save it again"
            )
        if self.missing and not self.demands.new_head and not self.is_base:
            raise TeacherError(
                f"{self.name} lacks weights of a {self.demands.kind.word} ({_some(self.missing)}); "
                f"{self.demands.remedy}"
            )
        return tuple(self.missing)

    def check_unused(self) -> None:
        """Refuse weights without a place, but for harmless ones."""
        left = [key for key in self.unused if not _IDLE.search(key)]
        if projections := [key for key in left if _is_projection(key)]:
            console.say(
                f"{self.name} brings a projection to its teacher's width ({_some(projections)}); it is no part of the "
                "model, and only hsktrain fit uses it"
            )
            left = [key for key in left if not _is_projection(key)]
        if encoder := [key for key in left if self._is_of_encoder(key)]:
            raise TeacherError(
                f"{self.name} has {counted(len(encoder), 'weight')} of its encoder that {self.kind} has no place for "
                f"({_some(encoder)}){self._hint(encoder)}; without them it would not be what it was trained to be: "
                "give another checkpoint"
            )
        head = [key for key in left if not self._is_harmless(key)]
        if not head:
            return
        if self.is_base or not self.has_own_head:
            # That an encoder is taken without its head is meant; that a new head replaces one may not be.
            if self.demands.new_head or self._is_unknown():
                console.say(
                    f"{self.name}: {counted(len(head), 'weight')} of its own head are left behind ({_some(head)})"
                )
            return
        raise TeacherError(
            f"{self.name} has {counted(len(head), 'weight')} of its head that {self.kind} has no place for "
            f"({_some(head)})"
            f"{self._hint(head)}; without them it would answer otherwise than it was trained to: give a checkpoint "
            f"that is wholly a {self.kind}"
        )

    def check_task(self) -> None:
        """Refuse a head that was trained for another task, though its shapes may fit."""
        names = self.architectures
        if self.is_base or not names or self.kind in names or self._is_unknown() or not self.has_own_head:
            return
        task = _TASK.search(names[0])
        if task is not None and task[1] not in {None, *_BEGINNINGS}:
            raise TeacherError(
                f"{self.name} is a {names[0]} by its config.json, and its head was trained for that; give a "
                f"{self.kind}, or correct architectures there"
            )

    def tell_class(self) -> None:
        """Tell of a class that transformers does not have, all of whose weights found a place nevertheless."""
        if self._is_unknown() and not self.is_base and self.has_own_head:
            console.say(f"{self.name} was saved as {self.architectures[0]} and is read as {self.kind}: all weights fit")

    @property
    def architectures(self) -> list[str]:
        """Names of the classes that saved the checkpoint."""
        return getattr(self.model.config, "architectures", None) or []

    def _is_unknown(self) -> bool:
        """True if the class that saved the checkpoint is none of transformers'."""
        import transformers

        names = self.architectures
        return bool(names) and not any(hasattr(transformers, name) or name == self.kind for name in names)

    def _is_of_encoder(self, key: str) -> bool:
        """True if an unused weight of the checkpoint belongs to the encoder."""
        if key.startswith(self.prefix):
            return True
        first = key.partition(".")[0]
        if first in dict(self.model.base_model.named_children()):
            return True
        if not self.is_base or first in _PRETRAINING:
            return False
        # Does the checkpoint set its encoder apart from its head? Assumed where it cannot be told.
        names = tensor_names(Path(self.name))
        return names is not None and not any(key.startswith(self.prefix) for key in names)

    def _is_harmless(self, key: str) -> bool:
        first = key.partition(".")[0]
        own = {ours.partition(".")[0] for ours in self.model.state_dict() if not self.in_encoder(ours)}
        if self.demands.kind.word == "masked LM":
            return first not in own or any(word in key for word in _SENTENCE_ORDER)
        # ModernBERT's masked LM shares its head with the classifier and adds a decoder.
        return first in _PRETRAINING or (first == "decoder" and first not in own)

    def _hint(self, keys: Iterable[str]) -> str:
        """Words on the likely cause, by the names of weights without a place; empty where there is none to see."""
        keys = list(keys)
        if any(_ADAPTER.search(key) for key in keys):
            return ": an adapter beside the weights; merge it into them first, with merge_and_unload() of peft"
        if any("distance_embedding" in key for key in keys):
            kind = getattr(self.model.config, "position_embedding_type", "relative_key")
            return f": position_embedding_type {kind}, which this version of transformers does not compute"
        layers = [int(match[1]) for key in keys if (match := _LAYER.search(key))]
        count = int(getattr(self.model.config, "num_hidden_layers", 0) or 0)
        if layers and min(layers) >= count:
            return (
                f": its config.json says num_hidden_layers {count}; correct it, or take some layers with hsktrain "
                "create --from"
            )
        return ""


def _decided_by(entry: Resized, config: Any, in_encoder: bool) -> str:
    """The entry of config.json that most likely decides a shape."""
    if not in_encoder and entry.theirs[1:] == entry.ours[1:]:
        return "num_labels (id2label)"
    if "attention" in entry.name and getattr(config, "pruned_heads", None):
        return "pruned_heads, which this version of transformers does not apply,"
    key = next((key for word, key in _DECIDED_BY if word in entry.name), "hidden_size")
    lone = [axis for axis, (theirs, ours) in enumerate(zip(entry.theirs, entry.ours, strict=False)) if theirs != ours]
    width = getattr(config, "hidden_size", None)
    # A table of the right length with rows of another width is a matter of the width.
    if key.endswith(("vocab_size", "position_embeddings")) and lone == [1] and entry.ours[1] == width:
        return "hidden_size"
    return key


def _is_projection(key: str) -> bool:
    """True if an unused weight is one through which a published student learned from hidden states."""
    return key.partition(".")[0] in {SHARED_PROJECTION, LAYER_PROJECTIONS}


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3])
