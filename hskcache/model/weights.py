"""Contents of a model's folder: weights that are read, weights that are not, and those that a download left unfinished.

Where a folder has no weights that transformers reads, it may still hold the weights of a trained model: of another
library, under another name, or a part of them. To begin from random weights is right only where there is none of these.
"""

import json
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from hskcache.counted import counted
from hskcache.errors import TeacherError

if TYPE_CHECKING:
    from torch import Tensor

# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER = "adapter_config.json"
# First parts of the names of projections to the teacher's width that TinyBERT's release saves with its students: one
# for all layers, or one for each hidden layer, the embedding output first.
SHARED_PROJECTION, LAYER_PROJECTIONS = "fit_dense", "fit_denses"

_OTHERS = {
    "TensorFlow": ("tf_model*.h5", "*.ckpt.*", "*.ckpt-*", "saved_model.pb"),
    "Flax": ("flax_model*.msgpack",),
    "ONNX": ("*.onnx", "onnx/*.onnx"),
    "OpenVINO": ("openvino*.xml", "openvino/*.xml"),
    "GGUF": ("*.gguf",),
    "Rust": ("rust_model.ot",),
    "Core ML": ("*.mlmodel", "*.mlpackage"),
    "torch under another name": ("*.safetensors", "pytorch_model*.bin", "model*.pt", "*.pth", "consolidated*"),
}
_UNFINISHED = ("*.incomplete", "*.part", "*.partial", "*.crdownload", ".cache/huggingface/download/*.incomplete")
# What training leaves beside weights.
_NOT_WEIGHTS = ("rng_state", "optimizer", "scheduler", "scaler", "projection")
_POINTER = b"version https://git-lfs"
_LENGTH_BYTES = 8
# A folder with none of these brings no tokenizer, though transformers may make up an empty one.
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def weights_file(folder: Path) -> Path | None:
    """The file of a folder from which transformers reads weights, or the index of their pieces; None without any."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def weights_bytes(folder: Path) -> int | None:
    """Bytes of the files of a folder from which transformers reads weights; None without any."""
    files = _files(folder)
    return sum(path.stat().st_size for path in files) if files else None


def has_tokenizer(folder: Path) -> bool:
    """True if a folder brings a tokenizer along."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def fault(folder: Path) -> str | None:
    """The reason for which weights of a folder cannot be read, in words that follow its name; None for none.

    A folder without any weights has no fault: it is a configuration alone.
    """
    file = weights_file(folder)
    if file is None:
        return _elsewhere(folder)
    pieces = [file]
    if file.name.endswith(".index.json"):
        try:
            pieces = _pieces(file)
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{file.name} is damaged; download it again"
        if missing := [path.name for path in pieces if not path.is_file()]:
            return (
                f"{len(missing)} of the {counted(len(pieces), 'file')} that {file.name} names are missing, "
                f"{missing[0]} among "
                "them; download the rest"
            )
    return next((f"{path.name} {reason}" for path in pieces if (reason := _damage(path)) is not None), None)


def tensor_names(folder: Path) -> frozenset[str] | None:
    """Names of the tensors in a folder's weights, of which none is read; None where that cannot be told."""
    file = weights_file(folder)
    try:
        if file is None:
            return None
        if file.name.endswith(".index.json"):
            return frozenset(json.loads(file.read_text(encoding="utf-8"))["weight_map"])
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, "pt") as tensors:
                return frozenset(tensors.keys())
        return frozenset(_load(file, "meta"))
    except Exception:  # noqa: BLE001  (each library has errors of its own, and the names only help to explain)
        return None


def read_tensors(folder: Path, names: Collection[str]) -> "dict[str, Tensor]":
    """Tensors of a folder's weights, some or all, on the CPU. Raises TeacherError if a file of them cannot be read.

    ``names``: those of ``tensor_names`` that are wanted.
    """
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            tensors |= _read(path, names)
        except Exception as error:  # noqa: BLE001  (each library has errors of its own)
            raise TeacherError(f"{path} is damaged: {shorten(' '.join(str(error).split()), 200)}") from None
    return tensors


def _read(path: Path, names: Collection[str]) -> "dict[str, Tensor]":
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys() if name in names}  # noqa: SIM118
    # Copies: the file is not to stay mapped for the sake of a few.
    return {name: tensor.clone() for name, tensor in _load(path, "cpu").items() if name in names}


def _load(path: Path, device: str) -> "dict[str, Tensor]":
    """The tensors in a file of torch."""
    import torch

    # Files from before torch 1.6 are no zip archives, and cannot be mapped.
    tensors: dict[str, Tensor] = torch.load(path, device, mmap=zipfile.is_zipfile(path), weights_only=True)
    return tensors


def _elsewhere(folder: Path) -> str | None:
    """The weights of a folder without any that are read, in words; None where it holds none at all."""
    if (folder / ADAPTER).is_file():
        return None
    if part := _first(folder, _UNFINISHED):
        return f"its download is not finished ({part}); download it again"
    for library, patterns in _OTHERS.items():
        if name := _first(folder, patterns):
            return (
                f"it has weights of {library} ({name}) and no {WEIGHTS[0]}, which is what is read; convert them first"
            )
    return None


def _first(folder: Path, patterns: tuple[str, ...]) -> str | None:
    names = (path.relative_to(folder).as_posix() for pattern in patterns for path in sorted(folder.glob(pattern)))
    return next((name for name in names if not name.startswith(_NOT_WEIGHTS)), None)


def _files(folder: Path) -> list[Path]:
    """The files from which transformers reads the weights of a folder; none where it has none."""
    file = weights_file(folder)
    if file is None:
        return []
    return _pieces(file) if file.name.endswith(".index.json") else [file]


def _pieces(index: Path) -> list[Path]:
    names: Iterator[str] = iter(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [index.parent / name for name in sorted(set(names))]


def _damage(path: Path) -> str | None:
    """The reason for which a file is no weights, in words that follow its name; None where it may be."""
    size = path.stat().st_size
    if size == 0:
        return "is empty; download it again"
    with path.open("rb") as file:
        head = file.read(max(_LENGTH_BYTES, len(_POINTER)))
        if head.startswith(_POINTER):
            return "is a pointer of git-lfs in place of weights; fetch them with git lfs pull"
        if path.suffix != ".safetensors":
            return None
        length = int.from_bytes(head[:_LENGTH_BYTES], "little")
        if length > size:
            return "is damaged or cut short; download it again"
        file.seek(_LENGTH_BYTES)
        try:
            tensors = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for key, entry in tensors.items() if key != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "is damaged; download it again"
    whole = _LENGTH_BYTES + length + end
    return None if size >= whole else f"is cut short: it has {size:,} of {whole:,} bytes; download it again"
