"""Students of any family of encoders: cut from layers of one, or drawn from its configuration."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from hskcache.errors import TeacherError
from trainer.student.create import Interface, create_student, load_classifier
from trainer.student.layers import from_teacher_layers

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "num_labels": 3,
}
TOKENS = {"bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "ModernBert": {**TOKENS, "local_attention": 4, "global_attn_every_n_layers": 3},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "MPNet": {},
    "DistilBert": {"hidden_dim": 24},
    "Electra": {"embedding_size": 8},
    "Esm": {"mask_token_id": 3},
    "EuroBert": {**TOKENS, "num_key_value_heads": 1, "head_dim": 8},
}
IDS = torch.arange(3, 15).reshape(2, 6)


def make(family: str) -> PreTrainedModel:
    config = getattr(transformers, f"{family}Config")(**SIZES, **FAMILIES[family])
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, f"{family}ForSequenceClassification")(config)
    return model.eval()


def layers(model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
    """Weights of each layer."""
    count = model.config.num_hidden_layers
    (stack,) = (
        module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count
    )
    return [dict(layer.state_dict()) for layer in stack]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_some_layers_has_them_and_is_read_back_as_it_was(family: str, tmp_path: Path) -> None:
    teacher = make(family)
    student = from_teacher_layers(teacher, [1, 3])
    for ours, theirs in zip(layers(student), (layers(teacher)[0], layers(teacher)[2]), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    student.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_classifier(str(tmp_path))(IDS).logits, student(IDS).logits)
        assert not torch.equal(student(IDS).logits, teacher(IDS).logits)


def test_layers_of_modernbert_attend_as_they_did() -> None:
    """Which layers see the whole row is said layer by layer, and goes with the layers."""
    teacher = make("ModernBert")
    assert teacher.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert from_teacher_layers(teacher, [1, 4]).config.layer_types == ["full_attention"] * 2


def test_a_layer_that_cannot_stand_first_is_refused() -> None:
    """ModernBERT's first layer has no norm before its attention, and a configuration cannot give it one."""
    with pytest.raises(TeacherError, match=r"layers 2, 3 of Modern.*attn_norm.*; keep layer 1 as the first"):
        from_teacher_layers(make("ModernBert"), [2, 3])


@pytest.mark.parametrize("family", [*FAMILIES, "Albert"])
def test_a_student_of_random_weights_answers_the_classes_that_are_asked_for(family: str, tmp_path: Path) -> None:
    config = {**SIZES, "num_hidden_layers": 2, **FAMILIES.get(family, {"embedding_size": 8})}
    getattr(transformers, f"{family}Config")(**config).save_pretrained(tmp_path)
    student = create_student(str(tmp_path), Interface(40, ("no", "yes")), seed=3)
    with torch.no_grad():
        assert student(IDS).logits.shape == (2, 2)
    assert student.config.id2label == {0: "no", 1: "yes"}
