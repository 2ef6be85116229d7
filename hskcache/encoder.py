"""Traits that teachers and students share as models: the inputs that they take, and their identity."""

import hashlib
import inspect
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module, ModuleList
    from transformers import PreTrainedModel

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


def takes_token_types(model: "PreTrainedModel") -> bool:
    """True if the model tells segments apart: DistilBERT has no such input, RoBERTa a single type."""
    accepted = inspect.signature(model.forward).parameters
    return "token_type_ids" in accepted and getattr(model.config, "type_vocab_size", 0) > 1


def layer_stacks(model: "PreTrainedModel") -> "dict[str, ModuleList]":
    """Lists of as many modules as the model has layers, by name; the transformer layers where it is a single one."""
    from torch.nn import ModuleList

    count = model.config.num_hidden_layers
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, ModuleList) and len(module) == count}


def weights_digest(model: "Module") -> str:
    """SHA-256 over every tensor of the state dict in the order of names: name, dtype, shape and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def num_positions(model: "PreTrainedModel") -> int | None:
    """The longest row the model can read, in tokens; None where positions come from no table."""
    for name, module in model.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and hasattr(module, "num_embeddings"):
            # RoBERTa counts positions from its padding id + 1, so the first rows of the table are never read.
            return int(module.num_embeddings) - (0 if module.padding_idx is None else module.padding_idx + 1)
        if name.endswith("embed_positions") and hasattr(module, "num_embeddings"):
            # RoFormer looks its angles up; others begin some rows below the first position.
            return min(int(module.num_embeddings), int(model.config.max_position_embeddings))
    return None


def trained_length(model: "PreTrainedModel") -> int | None:
    """Tokens of the longest row the model was trained on, where it reads longer ones without an error.

    Rotary and relative positions go on beyond what was trained, to answers that nothing vouches for. None where a table
    bounds the rows, see :func:`num_positions`, or the configuration does not tell.
    """
    trained = getattr(model.config, "max_position_embeddings", None)
    return int(trained) if trained is not None and trained > 0 and num_positions(model) is None else None


def identifying_config(config: Any) -> dict[str, Any]:
    """Entries of a model's configuration that say what it computes, as JSON gives them back, for comparison."""
    plain: dict[str, Any] = json.loads(json.dumps(config.to_diff_dict(), default=str))
    return {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}
