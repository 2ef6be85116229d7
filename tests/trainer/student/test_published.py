"""Students as TinyBERT's authors publish them: a BERT without a type, its projection and heads among its weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from tiny import weights_of
from torch import nn
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification

from hskcache.cache import Cache
from trainer.cli import main as hsktrain
from trainer.source.projections import FILE, load

STILL = ["epochs=1", "batch_size=24", "learning_rate=1e-12"]
SHARED = ["general.losses.embedding.shared_projection", "general.losses.hidden.shared_projection"]
WORDS = "(fit_dense.bias, fit_dense.weight); it is no part of the model, and only hsktrain fit uses it"


def publish(
    folder: Path, tokenizer: Path, kind: Any, projections: dict[str, nn.Linear], form: str = "bin", **changes: Any
) -> Path:
    """A student's folder in the form of the release: no ``model_type``, one file of weights, vocab.txt.

    Args:
        folder: to make.
        tokenizer: whose vocabulary it has.
        kind: of model, its heads saved as they are.
        projections: by the names of their modules.
        form: ``bin``, ``old bin`` as of 2020, or ``safetensors``.
        changes: of config.json.
    """
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    sizes |= {"vocab_size": len(vocabulary), "max_position_embeddings": 64, "type_vocab_size": 2}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        tensors = dict(kind(BertConfig(**sizes)).state_dict())
    for name, projection in projections.items():
        tensors |= {f"{name}.{part}": tensor.detach() for part, tensor in projection.state_dict().items()}
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    folder.mkdir()
    if "bin" in form:
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # Such entries stand in the published file.
    odd = {"cell": {}, "structure": [], "emb_size": 16, "pre_trained": "", "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(sizes | odd | changes), encoding="utf-8")
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def invoke(*args: object) -> Result:
    return CliRunner().invoke(hsktrain, [*map(str, args)], catch_exceptions=False)


def general_args(corpus: Path, student: object, out: Path, *changes: str) -> list[object]:
    settings = [word for one in (*(f"general.{one}" for one in STILL), *changes) for word in ("--set", one)]
    given = ["--cache", corpus, "--student", student, "--recipe", "tinybert-general", "--device", "cpu"]
    return ["fit", *given, *settings, "--out", out]


@pytest.fixture(scope="module")
def corpus(written: Callable[..., Cache]) -> Path:
    return written(corpus=True).root


def layered() -> dict[str, nn.Linear]:
    return {f"fit_denses.{layer}": nn.Linear(16, 32) for layer in range(3)}


@pytest.mark.parametrize("form", ["bin", "old bin", "safetensors"])
def test_a_general_student_goes_on_with_its_encoder_and_its_projection(
    form: str, corpus: Path, tiny_tokenizer_dir: Path, tmp_path: Path
) -> None:
    projection = nn.Linear(16, 32)
    student = publish(tmp_path / "student", tiny_tokenizer_dir, BertForPreTraining, {"fit_dense": projection}, form)
    result = invoke(*general_args(corpus, student, tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if str(student) in line or "goes on with" in line]
    assert told == [
        f"{student}: its config.json names no model_type; it is read as a BERT",
        f"{student} brings a projection to its teacher's width {WORDS}",
        "general: goes on with the student's projection (shared, 16 -> 32)",
    ]
    kept = load(tmp_path / "out" / FILE)["shared"]
    torch.testing.assert_close(kept.weight, projection.weight, rtol=0, atol=1e-9)
    torch.testing.assert_close(kept.bias, projection.bias, rtol=0, atol=1e-9)
    published = BertForPreTraining.from_pretrained(student).bert.state_dict()
    for name, tensor in weights_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, published[name], rtol=0, atol=1e-9)


def test_projections_of_the_layers_are_those_of_the_layers(
    corpus: Path, tiny_tokenizer_dir: Path, tmp_path: Path
) -> None:
    projections = layered()
    student = publish(tmp_path / "student", tiny_tokenizer_dir, BertForPreTraining, projections)
    refused = invoke(*general_args(corpus, student, tmp_path / "refused"))
    assert refused.exit_code == 2
    assert all(f"--set {setting}=false" in refused.stderr for setting in SHARED)
    result = invoke(*general_args(corpus, student, tmp_path / "out", *(f"{setting}=false" for setting in SHARED)))
    assert "general: goes on with the student's projection (layers 0, 1, 2, 16 -> 32)" in result.stderr
    kept = load(tmp_path / "out" / FILE)
    for layer in range(3):
        theirs = projections[f"fit_denses.{layer}"].weight
        torch.testing.assert_close(kept[f"layer_{layer:02d}"].weight, theirs, rtol=0, atol=1e-9)


def test_a_task_student_answers_and_goes_on(
    written: Callable[..., Cache], tiny_tokenizer_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    projection = {"fit_dense": nn.Linear(16, 32)}
    student = publish(tmp_path / "student", tiny_tokenizer_dir, BertForSequenceClassification, projection)
    rows = ["--task", "sst2", "--device", "cpu"]
    scored = invoke("evaluate", "--model", student, "--data", tsv_file, *rows)
    assert scored.exit_code == 0, scored.stderr
    assert "it is no part of the model" in scored.stderr
    stages = [word for name in ("intermediate", "prediction") for one in STILL for word in ("--set", f"{name}.{one}")]
    given = ["--cache", written().root, "--student", student, "--eval-data", tsv_file, "--recipe", "tinybert-task"]
    result = invoke("fit", *given, *rows, *stages, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "intermediate: goes on with the student's projection (shared, 16 -> 32)" in result.stderr
    theirs = torch.load(student / "pytorch_model.bin")["classifier.weight"]
    torch.testing.assert_close(weights_of(tmp_path / "out")["classifier.weight"], theirs, rtol=0, atol=1e-9)


def test_a_student_of_the_hub_goes_on_with_its_projection(
    corpus: Path, tiny_tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit, kept = "0" * 40, tmp_path / "hub" / "models--tiny--published"
    (kept / "snapshots").mkdir(parents=True)
    publish(kept / "snapshots" / commit, tiny_tokenizer_dir, BertForPreTraining, {"fit_dense": nn.Linear(16, 32)})
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    result = invoke(*general_args(corpus, "tiny/published", tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert "general: goes on with the student's projection (shared, 16 -> 32)" in result.stderr


def with_tensor(student: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = torch.load(student / "pytorch_model.bin")
    tensors.pop(name, None)
    torch.save(tensors if tensor is None else tensors | {name: tensor}, student / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("fit_dense.bias", None, "its projection fit_dense is not whole ('fit_dense.bias'); put it back, or give"),
        ("fit_dense.bias", torch.ones(31), "its projection fit_dense is not whole (weights [32, 16] and biases [31]"),
        ("fit_denses.a.weight", torch.ones(2, 2), "its projection fit_denses.a is not whole"),
        (
            "ranking.weight",
            torch.ones(2, 2),
            "has 1 weight of its head that BertForSequenceClassification has no",
        ),
        ("bert.embeddings.word_embeddings.weight", None, "lacks 1 weight of its own encoder"),
    ],
)
def test_what_is_not_whole_and_heads_of_other_names_are_refused(
    name: str,
    tensor: torch.Tensor | None,
    complaint: str,
    written: Callable[..., Cache],
    tiny_tokenizer_dir: Path,
    tsv_file: Path,
    tmp_path: Path,
) -> None:
    projection = {"fit_dense": nn.Linear(16, 32)}
    student = publish(tmp_path / "student", tiny_tokenizer_dir, BertForSequenceClassification, projection)
    with_tensor(student, name, tensor)
    given = ["--cache", written().root, "--student", student, "--eval-data", tsv_file, "--recipe", "tinybert-task"]
    result = invoke("fit", *given, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change", [{"architectures": ["RobertaForMaskedLM"]}, {"hidden_size": None}, {"model_type": "no-such"}]
)
def test_a_configuration_that_is_none_of_a_bert_is_refused(
    change: dict[str, Any], corpus: Path, tiny_tokenizer_dir: Path, tmp_path: Path
) -> None:
    student = publish(tmp_path / "student", tiny_tokenizer_dir, BertForPreTraining, {}, **change)
    if change.get("hidden_size", 0) is None:
        config = json.loads((student / "config.json").read_text(encoding="utf-8"))
        (student / "config.json").write_text(json.dumps(dict(list(config.items())[1:])), encoding="utf-8")
    result = invoke(*general_args(corpus, student, tmp_path / "out"))
    assert result.exit_code == 2
    assert "cannot load a student" in result.stderr


def test_a_file_beside_the_weights_comes_before_what_is_among_them(tiny_tokenizer_dir: Path, tmp_path: Path) -> None:
    from trainer.run.learner import projections_of
    from trainer.source.projections import save

    student = publish(tmp_path / "student", tiny_tokenizer_dir, BertForPreTraining, {"fit_dense": nn.Linear(16, 32)})
    newer = nn.Linear(16, 32)
    save({"shared": newer}, student)
    assert torch.equal(projections_of(str(student))["shared"].weight, newer.weight)
    shutil.copytree(student, tmp_path / "shape", ignore=shutil.ignore_patterns("*.bin"))
    assert projections_of("tinybert4") == projections_of(str(student / "config.json")) == {}
