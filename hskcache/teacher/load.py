"""A teacher with its tokenizer, made ready for capture, and the facts that identify it."""

from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hskcache.encoder import identifying_config, weights_digest
from hskcache.errors import TeacherError
from hskcache.runtime import quiet, resolve_device
from hskcache.spec import ComputeDtype
from hskcache.store.manifest import TeacherInfo
from hskcache.teacher.capture import prepare
from hskcache.text import load_tokenizer


@dataclass(frozen=True)
class Teacher:
    """A model in eval mode on its device, its tokenizer, and its description.

    ``num_labels`` is the width C of the logits; None for an encoder without a classifier.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: TeacherInfo
    num_labels: int | None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self.model.device
        return device

    @property
    def pad_token_id(self) -> int:
        """The id that fills padding, which the attention mask hides."""
        return int(self.tokenizer.pad_token_id or 0)


def load_teacher(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load a fine-tuned encoder and its tokenizer from a folder or the hub.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded, has no classification head, or cannot be captured.
    """
    model, tokenizer, missing = _load(AutoModelForSequenceClassification, name, device, dtype)
    if missing:
        raise TeacherError(
            f"{name} lacks weights of a classifier ({', '.join(missing[:3])}); fine-tune it on the task first: "
            f"hsktrain finetune --model {name}"
        )
    prepare(model)
    return Teacher(model, tokenizer, describe(model, name), int(model.config.num_labels))


def load_encoder(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load a pre-trained encoder and its tokenizer; a task head it may have is left behind, and so is its pooler.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded, lacks weights, or cannot be captured.
    """
    model, tokenizer, missing = _load(AutoModel, name, device, dtype)
    if hasattr(model, "pooler"):
        # Nothing of it is kept; where a checkpoint has none, it would be drawn anew and change the weights' digest.
        model.pooler = None
    if missing := [key for key in missing if not key.startswith("pooler.")]:
        raise TeacherError(f"{name} lacks weights of its own encoder ({', '.join(missing[:3])}); save it again")
    prepare(model)
    return Teacher(model, tokenizer, describe(model, name), None)


def _load(
    kind: Any, name: str, device: str, dtype: ComputeDtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """A model on its device, its tokenizer, and the names of weights that its checkpoint lacks."""
    place = resolve_device(device)
    with quiet():
        tokenizer = load_tokenizer(name)
    try:
        with quiet():
            model, loading = kind.from_pretrained(
                name, dtype=getattr(torch, dtype), output_loading_info=True, trust_remote_code=False
            )
            model.to(place)
    except Exception as error:  # noqa: BLE001  (a damaged file makes each of the libraries below raise its own kind)
        raise TeacherError(f"cannot load a teacher from {name}: {shorten(str(error), 200)}") from None
    return model, tokenizer, sorted(loading["missing_keys"])


def describe(model: PreTrainedModel, name: str) -> TeacherInfo:
    """The facts that identify a teacher; its weights' digest covers names, dtypes, shapes and bytes."""
    config = model.config
    return TeacherInfo(
        name=name,
        revision=getattr(config, "_commit_hash", None),
        weights_sha256=weights_digest(model),
        config=identifying_config(config),
        model_type=config.model_type,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
    )
