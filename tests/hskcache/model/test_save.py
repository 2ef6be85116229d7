"""What is saved works outside: rights, shared memory, and a tokenizer that gives what the model takes."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    NomicBertConfig,
    NomicBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hskcache.errors import DamageError
from hskcache.model.load import CLASSIFIER, ModelDemands, load_model
from hskcache.model.save import load_weights, save_model, save_weights

BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


class Shared(nn.Module):
    """Parts of one storage, two names of one weight, and a weight that is laid out in columns."""

    def __init__(self, value: float) -> None:
        super().__init__()
        fused = torch.full((6, 4), value) + torch.arange(24).reshape(6, 4)
        self.query, self.key = (nn.Parameter(part) for part in fused[:4].chunk(2))
        self.word = nn.Parameter(torch.full((3, 2), value))
        self.out = nn.Linear(2, 3, bias=False)
        self.out.weight = self.word
        self.turned = nn.Parameter(torch.full((2, 5), value).t())


def test_weights_that_share_memory_are_saved_and_come_back(tmp_path: Path) -> None:
    first, second = Shared(1.0), Shared(7.0)
    save_weights(first, tmp_path / "w.safetensors")
    load_weights(second, tmp_path / "w.safetensors")
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor)
    assert second.out.weight is second.word
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_file_in_which_a_tied_weight_stands_once_is_whole(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    module, other = Shared(1.0), Shared(7.0)
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items() if name != "out.weight"}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.out.weight, module.word)
    del tensors["key"]
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
    with pytest.raises(DamageError, match="key"):
        load_weights(other, tmp_path / "w.safetensors")


def test_a_model_whose_weights_were_fused_can_be_saved_once_loaded(tmp_path: Path) -> None:
    """transformers splits them into views of one storage, which save_model of safetensors refuses."""
    config = NomicBertConfig(vocab_size=40, max_position_embeddings=32, **BERT)
    NomicBertForSequenceClassification(config).save_pretrained(tmp_path / "nomic")
    model = load_model(str(tmp_path / "nomic"), ModelDemands(CLASSIFIER, "a student")).model
    assert all(tensor.numel() * 4 == tensor.untyped_storage().nbytes() for tensor in model.parameters())
    save_weights(model, tmp_path / "w.safetensors")
    saved = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())
    save_model(model, tmp_path / "again")
    again = load_model(str(tmp_path / "again"), ModelDemands(CLASSIFIER, "a student")).model
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_weights_are_readable_by_whoever_may_read_the_folder(umask: int, tmp_path: Path) -> None:
    model = BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=32, **BERT))
    save_model(model, tmp_path / "student")
    save_weights(model, tmp_path / "best.safetensors")
    for path in (*(tmp_path / "student").iterdir(), tmp_path / "best.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


STUDENTS = {
    "one type": lambda size: RobertaForSequenceClassification(
        RobertaConfig(vocab_size=size, max_position_embeddings=34, type_vocab_size=1, **BERT)
    ),
    "no types": lambda size: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=size, dim=16, hidden_dim=24, n_layers=1, n_heads=2, max_position_embeddings=32)
    ),
    "two types": lambda size: BertForSequenceClassification(
        BertConfig(vocab_size=size, max_position_embeddings=32, **BERT)
    ),
}


@pytest.mark.parametrize("kind", STUDENTS)
def test_the_tokenizer_gives_what_the_model_takes(kind: str, tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    # The last call before saving must not decide what later ones give.
    tokenizer("the film is funny", truncation=True, max_length=4, padding="max_length")
    student: PreTrainedModel = STUDENTS[kind](len(tokenizer))
    save_model(student, tmp_path, tokenizer)
    outside = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    long = "the film is funny " * 40
    rows = saved(["the film", long], ["its plot", long], truncation=True, padding=True, return_tensors="pt")
    assert rows["input_ids"].shape == (2, 32)
    assert ("token_type_ids" in rows) == (kind == "two types")
    assert outside(**rows).logits.isfinite().all()
    assert len(saved("the film is funny", "its plot")["input_ids"]) > 4
    assert "token_type_ids" in tokenizer.model_input_names
