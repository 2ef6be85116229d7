"""Folders of sentence-transformers, read without the library: an encoder, and what makes a vector of its states.

``modules.json`` lists the modules in the order in which they run, each with the folder of its own configuration.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hskcache.errors import TeacherError
from hskcache.hub import divided, is_path, looked_up
from hskcache.model.weights import read_tensors
from hskcache.spec import PoolingName

if TYPE_CHECKING:
    from torch import nn

MODULES = "modules.json"
_SETTINGS = "config_sentence_transformers.json"
# Names of the configuration of the encoder, the oldest last.
_ENCODER_SETTINGS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
# As version 5 and earlier write them, one of which is true.
_FLAGS: dict[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
_LONGEST = 1 << 20
"""Above it a tokenizer's limit says that there is none."""


@dataclass(frozen=True)
class DenseShape:
    """A linear layer after the pooling: its widths, whether it has a bias, and torch's name of what follows it."""

    in_features: int
    out_features: int
    bias: bool
    activation: str
    folder: str


@dataclass(frozen=True)
class SentenceModules:
    """Modules of a folder.

    Attributes:
        encoder: folder of the encoder and its tokenizer within it; empty where that is itself.
        pooling: of the encoder's last states.
        dense: layers that the pooled vector is led through, in order.
        normalize: whether it is divided by its length in the end.
        prompts: texts to put before a row, by name.
        default_prompt: the name of the one that is put there where none is asked for.
        max_length: tokens of a row at most; None where that is not said.
    """

    encoder: str
    pooling: PoolingName
    dense: tuple[DenseShape, ...]
    normalize: bool
    prompts: dict[str, str]
    default_prompt: str | None
    max_length: int | None

    @property
    def described(self) -> dict[str, Any]:
        """Facts that decide an embedding, as JSON: part of the identity of a teacher."""
        dense = [
            {"in": one.in_features, "out": one.out_features, "bias": one.bias, "activation": one.activation}
            for one in self.dense
        ]
        return {
            "pooling": self.pooling,
            "dense": dense,
            "normalize": self.normalize,
            "prompts": dict(sorted(self.prompts.items())),
            "default_prompt": self.default_prompt,
        }


def sentence_modules(name: str) -> SentenceModules | None:
    """Modules of a folder or a model of the hub; None where it is none of sentence-transformers.

    Raises TeacherError if it has modules that are not computed here, or that cannot be read.
    """
    listed = _json(name, MODULES)
    if listed is None:
        return None
    try:
        modules = [(str(one["type"]).rpartition(".")[2], str(one["path"])) for one in listed]
        return _read(name, [module for module in modules if module[0] != "Dropout"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TeacherError(f"{name}: its {MODULES}, or what that names, is not as expected ({error!r})") from None


def load_dense(name: str, modules: SentenceModules) -> "nn.Sequential | None":
    """The layers after the pooling, in eval mode on the CPU in float32; None where there are none.

    Raises TeacherError if their weights cannot be read, or are of other shapes.
    """
    import torch
    from torch import nn

    if not modules.dense:
        return None
    layers: list[nn.Module] = []
    for one in modules.dense:
        linear = nn.Linear(one.in_features, one.out_features, one.bias, device="meta")
        folder = (_path(name, f"{one.folder}/config.json") or Path(name)).parent
        for file in ("model.safetensors", "pytorch_model.bin"):
            # Of the hub, only what is asked for is fetched.
            _path(name, f"{one.folder}/{file}")
        keys = [f"linear.{key}" for key in linear.state_dict()]
        tensors = read_tensors(folder, keys)
        try:
            state = {key.removeprefix("linear."): tensor.float() for key, tensor in tensors.items()}
            linear.load_state_dict(state, assign=True)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TeacherError(f"{name}: the weights of {one.folder} do not fit its config.json: {reason}") from None
        layers += [linear, getattr(torch.nn, one.activation)()]
    return nn.Sequential(*layers).requires_grad_(False).eval()


def encoder_of(name: str, modules: SentenceModules | None) -> str:
    """The encoder of a folder or a model of the hub, which may stand in a folder of its own."""
    return name if modules is None or not modules.encoder else f"{name.rstrip('/')}/{modules.encoder}"


def _read(name: str, modules: list[tuple[str, str]]) -> SentenceModules:
    kinds = [kind for kind, _ in modules]
    if known := [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Dense", "Normalize"}]:
        raise TeacherError(
            f"{name} has the module {known[0]}, which is not computed here; a Transformer, its Pooling, Dense and "
            "Normalize are"
        )
    normalize, middle = kinds[-1] == "Normalize", kinds[2 : len(kinds) - (kinds[-1] == "Normalize")]
    if kinds[:2] != ["Transformer", "Pooling"] or set(middle) - {"Dense"}:
        raise TeacherError(
            f"{name} has the modules {', '.join(kinds)}; computed are a Transformer, its Pooling, then any Dense, and "
            "Normalize at the end"
        )
    encoder, dense = modules[0][1], [path for kind, path in modules if kind == "Dense"]
    settings = _json(name, _SETTINGS) or {}
    return SentenceModules(
        encoder=encoder,
        pooling=_pooling(name, modules[1][1]),
        dense=tuple(_dense(name, path) for path in dense),
        normalize=normalize,
        prompts=dict(settings.get("prompts") or {}),
        default_prompt=settings.get("default_prompt_name"),
        max_length=_max_length(name, encoder),
    )


def _pooling(name: str, folder: str) -> PoolingName:
    config = _needed(name, f"{folder}/config.json")
    said = config.get("pooling_mode", [mode for flag, mode in _FLAGS.items() if config.get(flag)] or "mean")
    modes = [said] if isinstance(said, str) else list(said)
    mode: Any = {"lasttoken": "last"}.get(modes[0], modes[0])
    if len(modes) > 1 or mode not in get_args(PoolingName):
        raise TeacherError(
            f"{name} pools by {' and '.join(modes)}, which is not computed here; {', '.join(get_args(PoolingName))} are"
        )
    if not config.get("include_prompt", True):
        raise TeacherError(f"{name} leaves its prompt out of the pooling, which is not computed here")
    pooling: PoolingName = mode
    return pooling


def _dense(name: str, folder: str) -> DenseShape:
    config = _needed(name, f"{folder}/config.json")
    activation = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh")
    word = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or word not in _ACTIVATIONS or config.get("use_residual"):
        what = "a residual connection" if config.get("use_residual") else activation
        raise TeacherError(f"{name}: {folder} has {what}, which is not computed here; {', '.join(_ACTIVATIONS)} are")
    return DenseShape(
        int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True)), word, folder
    )


def _max_length(name: str, encoder: str) -> int | None:
    """Tokens of a row at most, as the encoder's settings say it, or since version 6 its tokenizer's."""
    prefix = f"{encoder}/" if encoder else ""
    found = (_json(name, prefix + file) for file in _ENCODER_SETTINGS)
    settings: dict[str, Any] = next((one for one in found if one is not None), {})
    if settings.get("do_lower_case"):
        raise TeacherError(f"{name} lowers its texts before its tokenizer does, which is not done here")
    length = settings.get("max_seq_length") or (_json(name, f"{prefix}tokenizer_config.json") or {}).get(
        "model_max_length"
    )
    return int(length) if length is not None and 0 < length < _LONGEST else None


def _needed(name: str, file: str) -> Any:
    if (found := _json(name, file)) is None:
        raise TeacherError(f"{name} has no {file}, which its {MODULES} names; put it back")
    return found


def _json(name: str, file: str) -> Any:
    """Content of a file of a model; None where there is none."""
    path = _path(name, file)
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TeacherError(f"{name}: {file} cannot be read ({error})") from None


def _path(name: str, file: str) -> Path | None:
    """A file of a folder, or of the hub, which fetches it; None where there is none."""
    if is_path(name):
        path = Path(name) / file
        return path if path.is_file() else None
    from transformers.utils import cached_file

    kinds = ("gated_repo", "missing_entries", "connection_errors")
    repository, within = divided(name)
    with looked_up(name):
        found = cached_file(repository, file, **within, **{f"_raise_exceptions_for_{kind}": False for kind in kinds})
    return None if found is None else Path(found)
