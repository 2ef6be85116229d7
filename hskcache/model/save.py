"""Models and weights on disk, for others to read.

A saved student is an ordinary checkpoint: its tokenizer gives what it takes and cuts at what it reads, and whoever may
read the folder may read its weights, which safetensors would write for their owner alone.
"""

import json
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache.encoder import num_positions, takes_token_types
from hskcache.errors import DamageError
from hskcache.runtime import quiet

_TOKENIZER = "tokenizer_config.json"
_TYPES = "token_type_ids"
_FORMAT = {"format": "pt"}


def save_model(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Save a model, and with it a tokenizer that gives what the model takes.

    ``folder``: made if missing. ``tokenizer``: a fast one; it is saved without the truncation and padding of its last
    call. Raises OSError if the disk is full or the folder cannot be written.
    """
    with quiet():
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
            tokenizer.save_pretrained(folder)
            _agree(model, tokenizer, folder / _TOKENIZER)
    make_readable(folder)


def _agree(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Let a saved tokenizer give what the model takes: no types that it does not tell apart, no longer rows."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not takes_token_types(model) and _TYPES in tokenizer.model_input_names:
        config["model_input_names"] = [name for name in tokenizer.model_input_names if name != _TYPES]
    positions = num_positions(model)
    if positions is not None and tokenizer.model_max_length > positions:
        config["model_max_length"] = positions
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_weights(module: nn.Module, path: Path, metadata: Mapping[str, str] = _FORMAT) -> None:
    """Save every tensor of a module's state under its name, so that the file is whole or absent.

    Tensors that share memory, because they are tied or parts of one, are saved each by itself. ``path``: a
    ``.safetensors`` file; ``metadata``: to be read without the tensors.
    """
    tensors = tensors_apart(module)
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=dict(metadata))
    temporary.chmod(_mode(path.parent))
    temporary.replace(path)


def tensors_apart(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a module's state by its name; of those that share memory copies, as safetensors asks for."""
    state: dict[str, Tensor] = module.state_dict()
    sharers = Counter(tensor.untyped_storage().data_ptr() for tensor in state.values())
    tensors = {}
    for name, tensor in state.items():
        shared = sharers[tensor.untyped_storage().data_ptr()] > 1
        tensors[name] = tensor.detach().clone() if shared else tensor.detach()
    return tensors


def load_weights(module: nn.Module, path: Path, device: torch.device | str = "cpu") -> None:
    """Load what :func:`save_weights` or a Trainer wrote into a module of the same shape, in place.

    ``module``: every tensor of its state comes from the file, by its own name or by that of one it is tied to. Raises
    DamageError if the file lacks a tensor, or holds one that has no place.
    """
    tensors = load_file(path, device=str(device))
    lacking, unused = module.load_state_dict(tensors, strict=False)
    state: dict[str, Tensor] = module.state_dict()
    loaded = {_place(state[name]) for name in tensors if name in state}
    if wrong := [*unused, *(name for name in lacking if _place(state[name]) not in loaded)]:
        raise DamageError(f"{path} does not hold the weights of this model: {min(wrong)}, among others; delete it")


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def make_readable(folder: Path) -> None:
    """Give weights the rights that other new files in their folder have."""
    mode = _mode(folder)
    for path in folder.glob("*.safetensors"):
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


def _mode(folder: Path) -> int:
    """Rights of a new file in a folder; the umask itself can only be read by changing it for all threads."""
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mode & 0o777
    finally:
        probe.unlink(missing_ok=True)
