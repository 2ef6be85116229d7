"""A teacher with its tokenizer, made ready for capture, and the facts that identify it."""

import json
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hskcache.encoder import weights_digest
from hskcache.errors import TeacherError
from hskcache.runtime import quiet, resolve_device
from hskcache.spec import ComputeDtype
from hskcache.store.manifest import TeacherInfo
from hskcache.teacher.capture import prepare
from hskcache.text import load_tokenizer

# Where a configuration came from and what wrote it say nothing of what the model computes.
_NOT_IDENTITY = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "architectures",
        "id2label",
        "label2id",
        "_commit_hash",
    }
)


@dataclass(frozen=True)
class Teacher:
    """A model in eval mode on its device, its tokenizer, and its description."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: TeacherInfo

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self.model.device
        return device

    @property
    def pad_token_id(self) -> int:
        """The id that fills padding, which the attention mask hides."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def num_labels(self) -> int:
        """Width C of the logits."""
        return int(self.model.config.num_labels)


def load_teacher(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load a fine-tuned encoder and its tokenizer from a folder or the hub.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded, has no classification head, or cannot be captured.
    """
    place = resolve_device(device)
    with quiet():
        tokenizer = load_tokenizer(name)
    try:
        with quiet():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                name, dtype=getattr(torch, dtype), output_loading_info=True, trust_remote_code=False
            )
            model.to(place)
    except Exception as error:  # noqa: BLE001  (a damaged file makes each of the libraries below raise its own kind)
        raise TeacherError(f"cannot load a teacher from {name}: {shorten(str(error), 200)}") from None
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise TeacherError(
            f"{name} lacks weights of a classifier ({missing}); fine-tune it on the task first: hsktrain finetune "
            f"--model {name}"
        )
    prepare(model)
    return Teacher(model, tokenizer, describe(model, name))


def describe(model: PreTrainedModel, name: str) -> TeacherInfo:
    """The facts that identify a teacher; its weights' digest covers names, dtypes, shapes and bytes."""
    config = model.config
    return TeacherInfo(
        name=name,
        revision=getattr(config, "_commit_hash", None),
        weights_sha256=weights_digest(model),
        config={key: value for key, value in _plain(config.to_diff_dict()).items() if key not in _NOT_IDENTITY},
        model_type=config.model_type,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
    )


def _plain(value: Any) -> Any:
    """A configuration as JSON would give it back, so that it compares equal to a stored one."""
    return json.loads(json.dumps(value, default=str))
