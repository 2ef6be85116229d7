"""A folder without weights that are read: what else lies there is named, and random weights are for empty ones."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hskcache.errors import TeacherError
from hskcache.model.weights import fault, read_tensors, tensor_names, weights_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def whole(path: Path) -> None:
    save_file({"encoder.weight": torch.ones(4, 4)}, path, metadata={"format": "pt"})


def index(folder: Path, *present: str) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for name in present:
        whole(folder / names[name])


@pytest.mark.parametrize(
    "names", [(), ("config.json", "vocab.txt", "README.md", "optimizer.pt", "projection.safetensors")]
)
def test_a_configuration_alone_has_no_fault_and_no_weights(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    assert fault(tmp_path) is None
    assert weights_file(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("tf_model.h5", "TensorFlow"),
        ("bert_model.ckpt.index", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("onnx/model.onnx", "ONNX"),
        ("openvino_model.xml", "OpenVINO"),
        ("ggml-model-q4.gguf", "GGUF"),
        ("model.fp16.safetensors", "another name"),
        ("pytorch_model.fp16.bin", "another name"),
        ("model.safetensors.incomplete", "not finished"),
        ("pytorch_model.bin.part", "not finished"),
    ],
)
def test_weights_that_are_not_read_are_named(name: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"1" * 100)
    reason = fault(tmp_path)
    assert reason is not None
    assert name in reason
    assert word in reason


@pytest.mark.parametrize("beside", ["tf_model.h5", "model.safetensors.incomplete", "onnx/model.onnx"])
def test_beside_whole_weights_nothing_else_counts(beside: str, tmp_path: Path) -> None:
    whole(tmp_path / "model.safetensors")
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_bytes(b"1")
    assert fault(tmp_path) is None
    assert tensor_names(tmp_path) == {"encoder.weight"}


def test_pieces_are_whole_or_the_missing_one_is_named(tmp_path: Path) -> None:
    index(tmp_path, "a")
    assert "model-00002-of-00002.safetensors" in str(fault(tmp_path))
    index(tmp_path, "b")
    assert fault(tmp_path) is None
    assert tensor_names(tmp_path) == {"a", "b"}
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert "model-00001-of-00002.safetensors is empty" in str(fault(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    assert "damaged" in str(fault(tmp_path))


@pytest.mark.parametrize("kept", [0, 7, 20, -1, -60])
def test_a_file_that_is_cut_short_is_told_without_reading_its_weights(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole(path)
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    assert str(fault(tmp_path)).startswith("model.safetensors is ")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_not_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(POINTER)
    assert "git lfs pull" in str(fault(tmp_path))


def test_names_in_a_file_of_torch_are_read_without_its_weights(tmp_path: Path) -> None:
    torch.save({"bert.weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    assert tensor_names(tmp_path) == {"bert.weight"}


@pytest.mark.parametrize("form", ["safetensors", "bin", "old bin", "pieces"])
def test_some_tensors_are_read_whatever_they_are_in(form: str, tmp_path: Path) -> None:
    tensors = {name: torch.randn(2, 3) for name in ("a.weight", "b.weight", "c.weight")}
    if "bin" in form:
        torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
    elif form == "safetensors":
        save_file(tensors, tmp_path / "model.safetensors")
    else:
        places = {name: f"model-{number}.safetensors" for number, name in enumerate(tensors)}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        for name, file in places.items():
            save_file({name: tensors[name]}, tmp_path / file)
    assert tensor_names(tmp_path) == tensors.keys()
    found = read_tensors(tmp_path, ["a.weight", "c.weight"])
    assert found.keys() == {"a.weight", "c.weight"}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


def test_tensors_of_a_damaged_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing")
    with pytest.raises(TeacherError, match=r"pytorch_model\.bin is damaged"):
        read_tensors(tmp_path, ["a"])
