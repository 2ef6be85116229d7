"""Checkpoints that are not what they seem are refused in a sentence that names what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from hskcache.errors import TeacherError
from hskcache.model.load import CLASSIFIER, ENCODER, MASKED_LM, ModelDemands, ModelKind, load_config, load_model
from hskcache.runtime import quiet

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
Change = Callable[[dict[str, Tensor]], Any]


def saved(model: Any, folder: Path, change: Change | None = None, **config: Any) -> str:
    """The folder of a model, its tensors and its config.json changed as asked."""
    with quiet():
        model.save_pretrained(folder)
    path, settings = folder / "model.safetensors", folder / "config.json"
    if change is not None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})
    settings.write_text(json.dumps(json.loads(settings.read_text()) | config), encoding="utf-8")
    return str(folder)


def bert(kind: Any = BertForSequenceClassification, **changes: Any) -> Any:
    return kind(BertConfig(**SIZES | changes)).eval()


def load(source: str, kind: ModelKind = CLASSIFIER, **given: Any) -> Any:
    return load_model(source, ModelDemands(kind, "a teacher", "fine-tune it", **given))


def refusal(source: str, kind: ModelKind = CLASSIFIER, **given: Any) -> str:
    with pytest.raises(TeacherError) as caught:
        load(source, kind, **given)
    message = str(caught.value)
    assert source in message
    assert "\n" not in message
    return message


def put(*names: str) -> Change:
    return lambda tensors: tensors.update({name: torch.ones(16, 16) for name in names})


RELATIVE = [f"encoder.layer.{layer}.attention.self.distance_embedding.weight" for layer in range(2)]


@pytest.mark.parametrize("kind", [CLASSIFIER, ENCODER])
@pytest.mark.parametrize("new_head", [False, True])
def test_relative_positions_that_nothing_computes_are_refused(kind: ModelKind, new_head: bool, tmp_path: Path) -> None:
    change = put(*(f"bert.{name}" for name in RELATIVE))
    source = saved(bert(), tmp_path, change, position_embedding_type="relative_key_query")
    message = refusal(source, kind, new_head=new_head)
    assert "distance_embedding" in message
    assert "relative_key_query" in message


def test_the_same_in_a_checkpoint_of_the_encoder_alone(tmp_path: Path) -> None:
    source = saved(bert(BertModel), tmp_path, put(*RELATIVE))
    assert "distance_embedding" in refusal(source, ENCODER)
    assert "distance_embedding" in refusal(source, new_head=True)


def test_a_gate_that_a_bare_encoder_has_beside_its_layers_is_its_own(tmp_path: Path) -> None:
    assert "gate.weight" in refusal(saved(bert(BertModel), tmp_path, put("gate.weight")), ENCODER)


@pytest.mark.parametrize("new_head", [False, True])
def test_a_head_with_one_more_layer_is_refused(new_head: bool, tmp_path: Path) -> None:
    source = saved(bert(), tmp_path, put("extra.weight"), architectures=["MyBert"])
    assert "extra.weight" in refusal(source, new_head=new_head)


def test_of_an_encoder_with_a_head_of_its_own_the_head_is_left_behind_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bert()
    source = saved(model, tmp_path, put("extra.weight"), architectures=["MyBert"])
    loaded = load(source, ENCODER).model
    assert torch.equal(loaded.encoder.layer[1].output.dense.weight, model.bert.encoder.layer[1].output.dense.weight)
    assert "extra.weight" in capsys.readouterr().err


def test_a_class_of_another_name_whose_weights_all_fit_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(saved(bert(), tmp_path, architectures=["MyBert"]))
    said = capsys.readouterr().err
    assert "MyBert" in said
    assert said.count("\n") == 1


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    def wrap(tensors: dict[str, Tensor]) -> None:
        name = "bert.encoder.layer.0.attention.self.query"
        tensors[f"{name}.base_layer.weight"] = tensors.pop(f"{name}.weight")
        tensors[f"{name}.lora_A.default.weight"] = torch.ones(4, 16)

    assert "merge_and_unload" in refusal(saved(bert(), tmp_path, wrap))


def test_layers_that_the_config_does_not_count_are_refused(tmp_path: Path) -> None:
    message = refusal(saved(bert(), tmp_path, num_hidden_layers=1))
    assert "num_hidden_layers 1" in message
    assert "hsktrain create --from" in message


@pytest.mark.parametrize(
    ("config", "key", "tensor"),
    [
        ({"vocab_size": 50}, "vocab_size", "word_embeddings"),
        ({"max_position_embeddings": 64}, "max_position_embeddings", "position_embeddings"),
        ({"type_vocab_size": 1}, "type_vocab_size", "token_type_embeddings"),
        ({"intermediate_size": 32}, "intermediate_size", "intermediate.dense"),
        ({"hidden_size": 20}, "hidden_size", "["),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "num_labels", "classifier"),
    ],
)
def test_shapes_that_do_not_fit_the_config_are_named(
    config: dict[str, Any], key: str, tensor: str, tmp_path: Path
) -> None:
    message = refusal(saved(bert(), tmp_path, **config))
    assert f"correct {key}" in message
    assert tensor in message
    assert "report" not in message


def test_pruned_heads_of_an_old_checkpoint_are_refused(tmp_path: Path) -> None:
    def prune(tensors: dict[str, Tensor]) -> None:
        for name in ("query", "key", "value"):
            for part in ("weight", "bias"):
                key = f"bert.encoder.layer.0.attention.self.{name}.{part}"
                tensors[key] = tensors[key][:8].clone()
        key = "bert.encoder.layer.0.attention.output.dense.weight"
        tensors[key] = tensors[key][:, :8].clone()

    message = refusal(saved(bert(), tmp_path, prune, pruned_heads={"0": [1]}))
    assert "pruned_heads" in message
    assert "[16, 16]" in message


def test_a_head_of_another_size_may_be_left_to_the_caller_where_a_new_one_is_wanted(tmp_path: Path) -> None:
    source = saved(bert(num_labels=3), tmp_path)
    wanted = ModelDemands(CLASSIFIER, "a student", new_head=True, config=BertConfig(**SIZES))
    assert {entry.name for entry in load_model(source, wanted).drawn.resized} == {
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.parametrize("kind", [BertForTokenClassification, BertForMultipleChoice])
@pytest.mark.parametrize("new_head", [False, True])
def test_the_head_of_another_task_is_refused_though_it_fits(kind: Any, new_head: bool, tmp_path: Path) -> None:
    labels = 1 if kind is BertForMultipleChoice else 2
    source = saved(bert(kind, num_labels=labels), tmp_path)
    assert kind.__name__ in refusal(source, new_head=new_head)


@pytest.mark.parametrize(
    ("kind", "told"),
    [(BertModel, ""), (BertForMaskedLM, ""), (BertForPreTraining, ""), (BertForQuestionAnswering, "qa_outputs.bias")],
)
def test_an_encoder_without_this_head_gets_one_only_where_asked(
    kind: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bert(kind)
    source = saved(model, tmp_path)
    assert "lacks weights of a classifier" in refusal(source)
    loaded = load(source, new_head=True)
    assert {name.partition(".")[0] for name in loaded.drawn.new if "pooler" not in name} == {"classifier"}
    kept = model.base_model.embeddings.word_embeddings.weight
    assert torch.equal(loaded.model.bert.embeddings.word_embeddings.weight, kept)
    said = capsys.readouterr().err
    assert told in said
    assert bool(said) == bool(told)


def test_a_head_under_another_name_is_told_where_a_new_one_takes_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for part in ("weight", "bias"):
            tensors[f"head.classifier.{part}"] = tensors.pop(f"classifier.{part}")

    source = saved(bert(), tmp_path, rename)
    assert "lacks weights of a classifier" in refusal(source)
    load(source, new_head=True)
    assert "head.classifier.bias" in capsys.readouterr().err


def test_weights_under_the_prefix_of_a_wrapper_are_named(tmp_path: Path) -> None:
    def wrap(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[f"module.{name}"] = tensors.pop(name)

    assert "module.bert." in refusal(saved(bert(), tmp_path, wrap), new_head=True)


@pytest.mark.parametrize(
    "model",
    [
        lambda: DistilBertForMaskedLM(DistilBertConfig(vocab_size=40, dim=16, hidden_dim=24, n_layers=2, n_heads=2)),
        lambda: RobertaForMaskedLM(RobertaConfig(**SIZES)),
        lambda: RobertaModel(RobertaConfig(**SIZES)),
        lambda: bert(BertForPreTraining),
    ],
)
def test_heads_of_pretraining_and_poolers_are_harmless(
    model: Callable[[], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(model(), tmp_path)
    load(source, new_head=True)
    load(source, ENCODER)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [CLASSIFIER, ENCODER])
@pytest.mark.parametrize("name", ["fit_dense", "fit_denses.1"])
def test_a_projection_that_a_published_student_learned_through_is_harmless_and_told(
    kind: ModelKind, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(bert(), tmp_path, put(f"{name}.weight"))
    model = load(source, kind).model
    said = capsys.readouterr().err
    assert f"{source} brings a projection to its teacher's width ({name}.weight)" in said
    assert not any("fit_dense" in key for key in model.state_dict())


def test_a_projection_excuses_no_other_weight(tmp_path: Path) -> None:
    message = refusal(saved(bert(), tmp_path, put("fit_dense.weight", "fitted.weight")))
    assert "has 1 weight of its head" in message
    assert "fitted.weight" in message


@pytest.mark.parametrize("architectures", [None, ["TinyBertForPreTraining"]])
def test_a_bert_whose_configuration_names_no_type_is_read_and_told_once(
    architectures: list[str] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = untyped(saved(bert(), tmp_path), architectures)
    assert load(source).model.config.hidden_size == 16
    assert load_config(source, "a student").model_type == "bert"
    said = capsys.readouterr().err
    assert said.count(f"{source}: its config.json names no model_type; it is read as a BERT") == 1


@pytest.mark.parametrize("architectures", [None, ["RobertaForMaskedLM"]])
def test_another_kind_whose_configuration_names_no_type_is_refused(
    architectures: list[str] | None, tmp_path: Path
) -> None:
    roberta = RobertaModel(RobertaConfig(**SIZES, type_vocab_size=1))
    source = saved(roberta, tmp_path, lambda tensors: tensors.update(_prefixed(tensors, "roberta.")))
    message = refusal(untyped(source, architectures))
    assert ("lacks" in message) if architectures is None else ("model_type" in message)


def untyped(source: str, architectures: list[str] | None) -> str:
    path = Path(source, "config.json")
    config = json.loads(path.read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in {"model_type", "architectures"}}
    path.write_text(json.dumps(config | ({"architectures": architectures} if architectures else {})), encoding="utf-8")
    return source


def _prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensors.pop(name) for name in list(tensors)}


def test_a_masked_lm_leaves_the_other_heads_of_pretraining_behind(tmp_path: Path) -> None:
    source = saved(bert(BertForPreTraining), tmp_path, put("classifier.weight"))
    assert load(source, MASKED_LM).drawn.new == ()


def test_old_names_and_old_buffers_are_read_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bert()

    def age(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(32)[None]
        tensors["bert.embeddings.token_type_ids"] = torch.zeros(1, 32, dtype=torch.int64)

    ids = torch.arange(3, 9)[None]
    loaded = load(saved(model, tmp_path, age)).model
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "mapped",
    [{"AutoModelForSequenceClassification": "modeling.MyBert"}, {"AutoModel": "someone/repo--modeling.MyEncoder"}],
)
def test_code_of_its_own_is_refused_by_name(mapped: dict[str, str], tmp_path: Path) -> None:
    source = saved(bert(), tmp_path, auto_map=mapped)
    assert next(iter(mapped.values())) in refusal(source)


def test_code_that_transformers_has_taken_over_is_not_needed(tmp_path: Path) -> None:
    load(saved(bert(), tmp_path, auto_map={"AutoModelForSequenceClassification": "m.BertForSequenceClassification"}))


def test_an_unknown_kind_with_code_of_its_own_is_one_sentence(tmp_path: Path) -> None:
    mapped = {"AutoConfig": "configuration.My", "AutoModelForSequenceClassification": "modeling.MyBert"}
    message = refusal(saved(bert(), tmp_path, model_type="mine", auto_map=mapped))
    assert "code of its own" in message
    assert "trust_remote_code" not in message
