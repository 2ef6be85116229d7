"""Folders of sentence-transformers, read without the library."""

import json
from pathlib import Path

import pytest
import torch
from embedders import DENSE_WIDTH, WIDTH, embedder, put
from safetensors.torch import load_file

from hskcache.errors import TeacherError
from hskcache.model.sentence import encoder_of, load_dense, sentence_modules


def test_modules_are_read_as_version_5_writes_them(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "seek: ", "passage": ""}, "default_prompt_name": "query"}
    found = sentence_modules(str(embedder(tiny_tokenizer_dir, tmp_path, "cls", ("Dense", "Normalize"), **prompts)))
    assert found is not None
    assert (found.encoder, found.pooling, found.normalize, found.max_length) == ("", "cls", True, 20)
    assert (found.prompts, found.default_prompt) == ({"query": "seek: ", "passage": ""}, "query")
    (dense,) = found.dense
    assert (dense.in_features, dense.out_features, dense.bias, dense.activation) == (WIDTH, DENSE_WIDTH, True, "Tanh")


def test_modules_are_read_as_version_6_writes_them(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path, modules=("Dropout",))
    put(folder / "1_Pooling" / "config.json", {"embedding_dimension": WIDTH, "pooling_mode": "lasttoken"})
    put(folder / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    config = json.loads((folder / "tokenizer_config.json").read_text())
    put(folder / "tokenizer_config.json", config | {"model_max_length": 48})
    found = sentence_modules(str(folder))
    assert found is not None
    assert (found.pooling, found.normalize, found.max_length) == ("last", False, 48)


def test_another_folder_has_no_modules(tiny_teacher_dir: Path) -> None:
    assert sentence_modules(str(tiny_teacher_dir)) is None
    assert encoder_of(str(tiny_teacher_dir), None) == str(tiny_teacher_dir)


def test_the_layers_after_the_pooling_compute_what_their_weights_say(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path, modules=("Dense",))
    found = sentence_modules(str(folder))
    assert found is not None
    head = load_dense(str(folder), found)
    assert head is not None
    weights, vectors = load_file(folder / "2_Dense" / "model.safetensors"), torch.randn(3, WIDTH)
    by_hand = torch.tanh(vectors @ weights["linear.weight"].T + weights["linear.bias"])
    torch.testing.assert_close(head(vectors), by_hand)
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_an_encoder_in_a_folder_of_its_own_is_found(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path)
    listed = json.loads((folder / "modules.json").read_text())
    put(folder / "modules.json", [listed[0] | {"path": "0_Transformer"}, *listed[1:]])
    assert encoder_of(str(folder), sentence_modules(str(folder))) == str(folder / "0_Transformer")


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "pools by mean and cls"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pools by weightedmean"),
        ("1_Pooling/config.json", {"include_prompt": False}, "leaves its prompt out"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "has os.system, which is not computed here"),
        ("2_Dense/config.json", {"use_residual": True}, "a residual connection"),
        ("2_Dense/config.json", {"in_features": "many"}, "is not as expected"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lowers its texts"),
    ],
)
def test_what_is_not_computed_is_refused(
    tiny_tokenizer_dir: Path, tmp_path: Path, file: str, change: dict[str, object], words: str
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path, modules=("Dense",))
    config = json.loads((folder / file).read_text())
    put(folder / file, config | change)
    with pytest.raises(TeacherError, match=words):
        sentence_modules(str(folder))


@pytest.mark.parametrize(
    ("modules", "words"),
    [(("CNN",), "the module CNN"), (("Normalize", "Dense"), "modules Transformer, Pooling, Normalize, Dense")],
)
def test_other_modules_or_orders_are_refused(
    tiny_tokenizer_dir: Path, tmp_path: Path, modules: tuple[str, ...], words: str
) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path, modules=modules)
    with pytest.raises(TeacherError, match=words):
        sentence_modules(str(folder))


def test_weights_that_do_not_fit_are_refused(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    folder = embedder(tiny_tokenizer_dir, tmp_path, modules=("Dense",))
    config = json.loads((folder / "2_Dense" / "config.json").read_text())
    put(folder / "2_Dense" / "config.json", config | {"out_features": 5})
    found = sentence_modules(str(folder))
    assert found is not None
    with pytest.raises(TeacherError, match="weights of 2_Dense do not fit its config"):
        load_dense(str(folder), found)
