"""Adapters, such as LoRA's: a folder of small weights that mean something only together with their base model.

They are merged into the base with the library peft, where it is installed; what comes of it is an ordinary model.
Without peft transformers would load the base alone and say nothing.
"""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from hskcache import console
from hskcache.errors import TeacherError
from hskcache.model.weights import ADAPTER, has_tokenizer, weights_file
from hskcache.runtime import quiet

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_HEADS = ("classifier", "score", "out_proj")


def is_adapter(name: str) -> bool:
    """True if this is the folder of an adapter."""
    return (Path(name) / ADAPTER).is_file()


def base_of(name: str) -> str:
    """Folder or hub id of an adapter's base. Raises TeacherError if its record is damaged, or names no base."""
    base = str(_record(name).get("base_model_name_or_path") or "")
    if not base:
        raise TeacherError(f"{name} is an adapter, and its {ADAPTER} names no base_model_name_or_path; write it there")
    beside = Path(name) / base
    return str(beside) if beside.is_dir() and not Path(base).is_dir() else base


def tokenizer_of(name: str) -> str:
    """Place of a model's tokenizer: beside it, or, of an adapter without one, beside its base."""
    return base_of(name) if is_adapter(name) and not has_tokenizer(Path(name)) else name


def num_outputs(name: str) -> int | None:
    """Outputs of the head that an adapter brings along; None for one without a head."""
    heads = {
        key: len(tensor)
        for key, tensor in _tensors(name).items()
        if key.endswith(("weight", "bias")) and key.split(".")[-2] in _HEADS and "lora_" not in key
    }
    return heads[max(heads, key=lambda key: ("out_proj" in key, key))] if heads else None


def require_mergeable(name: str, called: str) -> None:
    """Raise TeacherError if it cannot be told what to merge an adapter into, or nothing can merge it."""
    if (file := weights_file(Path(name))) is not None:
        raise TeacherError(
            f"cannot load {called} from {name}: it has whole weights ({file.name}) and an adapter ({ADAPTER}) beside "
            "them; remove the one that does not count"
        )
    if importlib.util.find_spec("peft") is None:
        raise TeacherError(
            f"cannot load {called} from {name}: it is an adapter ({ADAPTER}) of {base_of(name)}, and merging the two "
            "needs peft: pip install peft"
        )


def merge(name: str, base: "PreTrainedModel") -> "tuple[PreTrainedModel, tuple[str, ...]]":
    """The base with an adapter merged into its weights, and the names of the weights that came whole with the adapter.

    ``base``: a model of the kind that the adapter was trained on; it is used up. Raises TeacherError if the adapter
    does not fit, or is of a kind that cannot be merged.
    """
    from peft import PeftModel, get_peft_model_state_dict

    kind = str(_record(name).get("peft_type", "unknown"))
    try:
        with quiet():
            adapted = PeftModel.from_pretrained(base, name)
            used = list(get_peft_model_state_dict(adapted))
            _check_used(name, used)
            merged: PreTrainedModel = adapted.merge_and_unload()
            # To train an adapter its base is frozen; what came of the two is a model like any other.
            merged.requires_grad_(True)
    except TeacherError:
        raise
    except Exception as error:  # noqa: BLE001  (each kind of adapter fails in a way of its own)
        reason = shorten(" ".join(str(error).split()), 200)
        raise TeacherError(
            f"{name} is an adapter of kind {kind} that cannot be merged into its base: {reason}"
        ) from None
    console.say(f"{name} is an adapter of kind {kind}: it is merged into {base_of(name)}")
    return merged, tuple(key.removeprefix("base_model.model.") for key in used if "lora_" not in key)


def _check_used(name: str, used: Iterable[str]) -> None:
    """Refuse weights of the adapter that have no place in its base; peft drops them without a word."""
    stored = _tensors(name)
    if differing := sorted(stored.keys() ^ set(used)):
        raise TeacherError(
            f"the weights of the adapter {name} do not fit its base: {differing[0]}, among {len(differing)}, is in one "
            f"and not in the other; correct base_model_name_or_path in its {ADAPTER}"
        )


def _tensors(name: str) -> "dict[str, Tensor]":
    folder = Path(name)
    file = next((folder / file_name for file_name in _WEIGHTS if (folder / file_name).is_file()), None)
    if file is None:
        raise TeacherError(f"{name} is an adapter without weights ({_WEIGHTS[0]}); download it again")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: dict[str, Tensor] = load_file(file)
            return tensors
        import torch

        loaded: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (each library has errors of its own)
        raise TeacherError(f"{file} is damaged: {shorten(' '.join(str(error).split()), 200)}") from None
    return loaded


def _record(name: str) -> dict[str, Any]:
    path = Path(name) / ADAPTER
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise TeacherError(f"{path} is damaged; download it again")
    return record
