"""What teachers and students have in common as models: which inputs they take, and which weights they are."""

import hashlib
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def takes_token_types(model: "PreTrainedModel") -> bool:
    """Whether the model tells segments apart: DistilBERT has no such input, RoBERTa a single type."""
    accepted = inspect.signature(model.forward).parameters
    return "token_type_ids" in accepted and getattr(model.config, "type_vocab_size", 0) > 1


def weights_digest(model: "PreTrainedModel") -> str:
    """SHA-256 over every tensor of the state dict in the order of names: name, dtype, shape and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
