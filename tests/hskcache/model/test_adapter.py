"""An adapter is merged into its base where peft is installed, and named where it is not."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from hskcache.errors import TeacherError
from hskcache.model.adapter import tokenizer_of
from hskcache.model.load import CLASSIFIER, ModelDemands, load_config, load_model

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
TEACHER = ModelDemands(CLASSIFIER, "a teacher", "fine-tune it")
IDS = torch.arange(3, 9)[None]
RANK = 4


def adapter(folder: Path, base: Path, outputs: int | None = 3) -> str:
    """An adapter of the queries as peft writes one, with a classifier of so many outputs."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(2):
        name = f"base_model.model.bert.encoder.layer.{layer}.attention.self.query"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, 16, generator=draw)
        tensors[f"{name}.lora_B.weight"] = torch.randn(16, RANK, generator=draw)
    if outputs is not None:
        tensors["base_model.model.classifier.weight"] = torch.randn(outputs, 16, generator=draw)
        tensors["base_model.model.classifier.bias"] = torch.randn(outputs, generator=draw)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    record = {
        "peft_type": "LORA",
        "task_type": None if outputs is None else "SEQ_CLS",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 8,
        "target_modules": ["query"],
        "modules_to_save": None if outputs is None else ["classifier"],
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(record))
    return str(folder)


def saved(kind: Any, folder: Path, **changes: Any) -> Path:
    kind(BertConfig(**SIZES | changes)).save_pretrained(folder)
    return folder


def by_hand(name: str, base: Path) -> torch.Tensor:
    """The logits of a base with the adapter added to its weights, alpha / r = 2."""
    tensors = load_file(Path(name) / "adapter_model.safetensors")
    model = BertForSequenceClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True).eval()
    state = model.state_dict()
    for key, tensor in tensors.items():
        place = key.removeprefix("base_model.model.")
        if place.startswith("classifier"):
            state[place].copy_(tensor)
        elif "lora_A" in place:
            other = tensors[key.replace("lora_A", "lora_B")]
            state[place.replace("lora_A.", "")].add_(2 * other @ tensor)
    with torch.inference_mode():
        logits: torch.Tensor = model(IDS).logits
    return logits


def refusal(source: str, wanted: ModelDemands = TEACHER) -> str:
    with pytest.raises(TeacherError) as caught:
        load_model(source, wanted)
    message = str(caught.value)
    assert source in message
    assert "\n" not in message
    return message


def test_without_peft_it_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    base = saved(BertModel, tmp_path / "base")
    message = refusal(adapter(tmp_path / "lora", base))
    assert "pip install peft" in message
    assert str(base) in message


def test_whole_weights_beside_an_adapter_are_refused(tmp_path: Path) -> None:
    source = adapter(tmp_path / "lora", tmp_path / "base")
    saved(BertForSequenceClassification, tmp_path / "lora")
    message = refusal(source)
    assert "model.safetensors" in message
    assert "adapter_config.json" in message


def test_its_configuration_is_the_base_s_with_its_own_outputs(tmp_path: Path) -> None:
    source = adapter(tmp_path / "lora", saved(BertModel, tmp_path / "base"))
    config = load_config(source, "a teacher")
    assert (config.num_labels, config.hidden_size) == (3, 16)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_record_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    assert "adapter_config.json" in refusal(str(tmp_path))


def test_its_tokenizer_is_its_own_or_that_of_its_base(tmp_path: Path) -> None:
    base = saved(BertModel, tmp_path / "base")
    source = adapter(tmp_path / "lora", base)
    assert tokenizer_of(source) == str(base)
    (tmp_path / "lora" / "tokenizer.json").write_text("{}")
    assert tokenizer_of(source) == source
    assert tokenizer_of("bert-base-uncased") == "bert-base-uncased"


@pytest.mark.parametrize("kind", [BertModel, BertForSequenceClassification])
def test_it_is_merged_into_its_base(kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = saved(kind, tmp_path / "base")
    source = adapter(tmp_path / "lora", base)
    capsys.readouterr()
    model, drawn = load_model(source, TEACHER)
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, by_hand(source, base))
    assert drawn == ((), ())
    assert not any("lora" in name for name in model.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert str(base) in capsys.readouterr().err


def test_a_pooler_that_neither_has_is_refused(tmp_path: Path) -> None:
    """It was drawn at random when the adapter was trained, and never saved."""
    assert "pooler" in refusal(adapter(tmp_path / "lora", saved(BertForMaskedLM, tmp_path / "base")))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base = saved(BertModel, tmp_path / "base", num_hidden_layers=1)
    assert "do not fit its base" in refusal(adapter(tmp_path / "lora", base))
    wide = saved(BertModel, tmp_path / "wide", hidden_size=32)
    assert "cannot be merged" in refusal(adapter(tmp_path / "lora2", wide))


def test_a_student_may_begin_from_one_without_a_classifier(tmp_path: Path) -> None:
    source = adapter(tmp_path / "lora", saved(BertModel, tmp_path / "base"), outputs=None)
    assert "classifier" in refusal(source)
    _, drawn = load_model(source, ModelDemands(CLASSIFIER, "a student", new_head=True))
    assert set(drawn.new) == {"classifier.weight", "classifier.bias"}
