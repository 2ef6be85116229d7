"""A teacher is loaded as it was saved, told apart by its content alone, and refused in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2ForSequenceClassification

from hskcache.errors import CacheError, SpecError, TeacherError
from hskcache.teacher.load import Teacher, describe, load_teacher


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def refusal(folder: Path | str) -> str:
    with pytest.raises(CacheError) as error:
        load_teacher(str(folder), "cpu")
    assert isinstance(error.value, TeacherError)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_facts_are_those_of_the_model(teacher: Teacher) -> None:
    info = teacher.info
    assert (info.model_type, info.num_layers, info.num_heads, info.width) == ("bert", 4, 4, 32)
    assert info.vocab_size == len(teacher.tokenizer)
    assert teacher.num_labels == 2
    assert not teacher.model.training
    assert json.loads(json.dumps(info.config)) == info.config


def test_a_teacher_under_another_name_is_the_same_teacher(
    teacher: Teacher, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    other = load_teacher(str(copy(tiny_teacher_dir, tmp_path / "moved")), "cpu").info
    assert other.name != teacher.info.name
    assert other.model_copy(update={"name": teacher.info.name}) == teacher.info


def test_one_changed_weight_makes_another_teacher(tiny_teacher_dir: Path) -> None:
    model = load_teacher(str(tiny_teacher_dir), "cpu").model
    before = describe(model, "t")
    with torch.no_grad():
        model.bert.encoder.layer[2].output.LayerNorm.bias[3] += 1e-6
    after = describe(model, "t")
    assert after.weights_sha256 != before.weights_sha256
    assert after.config == before.config


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_is_that_of_every_weight(tiny_teacher_dir: Path, dtype: str) -> None:
    model = load_teacher(str(tiny_teacher_dir), "cpu", dtype).model  # type: ignore[arg-type]
    assert {tensor.dtype for tensor in model.parameters()} == {getattr(torch, dtype)}


def test_a_model_without_a_classifier_is_refused(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_teacher_dir, tmp_path / "headless")
    config = BertConfig.from_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    message = refusal(folder)
    assert "classifier" in message
    assert "hsktrain finetune" in message


def test_a_decoder_with_a_classifier_is_a_teacher_whose_attention_cannot_be_seen(
    tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    folder = copy(tiny_teacher_dir, tmp_path / "gpt")
    config = GPT2Config(vocab_size=150, n_embd=32, n_layer=2, n_head=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    taps = load_teacher(str(folder), "cpu").taps
    assert (len(taps.states), taps.attention) == (3, None)
    assert "attends causally" in taps.without_attention


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 4096])
def test_damaged_weights_are_one_sentence(tiny_teacher_dir: Path, tmp_path: Path, content: bytes) -> None:
    folder = copy(tiny_teacher_dir, tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(content)
    assert refusal(folder).startswith(f"cannot load a teacher from {folder}: ")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "unheard-of"}', '{"model_type": "bert"}'])
def test_a_damaged_config_is_one_sentence(tiny_teacher_dir: Path, tmp_path: Path, content: str) -> None:
    folder = copy(tiny_teacher_dir, tmp_path / "damaged")
    (folder / "config.json").write_text(content)
    refusal(folder)


def test_a_folder_without_weights_and_no_folder_at_all_are_refused(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_teacher_dir, tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    assert "cannot load a teacher" in refusal(folder)
    assert str(tmp_path / "nothing") in refusal(tmp_path / "nothing")


def test_code_of_the_model_s_own_is_not_run(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_teacher_dir, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_a_path_that_leads_nowhere_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("/nowhere", "./nowhere", "runs/first/teacher"):
        with pytest.raises(TeacherError, match=f"from {name}: there is no such folder"):
            load_teacher(name, "cpu")


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:63", "cpu:0:1"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(device: str) -> None:
    with pytest.raises(SpecError, match="--device"):
        load_teacher("/nowhere", device)
