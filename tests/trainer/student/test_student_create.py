from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hskcache.encoder import weights_digest
from hskcache.errors import MismatchError, SpecError, TeacherError
from trainer.student.create import (
    Interface,
    create_student,
    load_classifier,
    student_config,
)
from trainer.student.layers import from_teacher_layers, resolve_layers

TWO = Interface(vocab_size=40, label_names=("negative", "positive"))
SIZES: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
BERT: dict[str, Any] = SIZES | {"num_hidden_layers": 3}
FAMILIES: dict[str, Any] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES, num_hidden_layers=4, num_labels=3)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, num_hidden_layers=4, num_labels=3)),
    "electra": lambda: ElectraForSequenceClassification(
        ElectraConfig(**SIZES, num_hidden_layers=4, num_labels=3, embedding_size=8)
    ),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=40, dim=16, hidden_dim=24, n_layers=4, n_heads=2, num_labels=3)
    ),
}


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def same(first: PreTrainedModel, second: PreTrainedModel) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def saved(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """A pre-trained encoder: a folder whose checkpoint has no classifier."""
    torch.manual_seed(1)
    return saved(BertModel(BertConfig(**BERT)), tmp_path / "encoder")


@pytest.mark.parametrize(("name", "millions"), [("tinybert4", 14.5), ("tinybert6", 67.0)])
def test_named_students_have_the_papers_sizes(name: str, millions: float) -> None:
    """[TinyBERT, table 1] counts 14.5 and 67.0 million parameters with BERT's vocabulary."""
    config = student_config(name, Interface(30522, ("0", "1")))
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.2)
    assert config.num_attention_heads == 12


def test_a_student_s_config_carries_the_tokenizer_and_the_classes() -> None:
    interface = Interface(99, ("no", "maybe", "yes"), pad_token_id=7, max_positions=64, type_vocab_size=1)
    config = student_config("tinybert4", interface)
    assert (config.vocab_size, config.pad_token_id, config.max_position_embeddings, config.type_vocab_size) == (
        99,
        7,
        64,
        1,
    )
    assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert config.problem_type == "single_label_classification"


def test_a_regression_has_one_output() -> None:
    config = student_config("tinybert4", Interface(40, (), "regression"))
    assert (config.num_labels, config.problem_type) == (1, "regression")


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_config_without_weights_gives_its_architecture_with_our_vocabulary(layout: str, tmp_path: Path) -> None:
    DistilBertConfig(vocab_size=11, dim=16, hidden_dim=24, n_layers=2, n_heads=2).save_pretrained(tmp_path)
    source = tmp_path / "config.json" if layout == "file" else tmp_path
    model = create_student(str(source), TWO)
    assert isinstance(model, DistilBertForSequenceClassification)
    assert model.distilbert.embeddings.word_embeddings.weight.shape == (40, 16)
    assert len(model.distilbert.transformer.layer) == 2
    assert not model.training


def test_random_weights_follow_the_seed_alone(tmp_path: Path) -> None:
    BertConfig(**BERT).save_pretrained(tmp_path)
    torch.manual_seed(1)
    first = create_student(str(tmp_path), TWO, seed=5)
    torch.manual_seed(2)
    assert same(first, create_student(str(tmp_path), TWO, seed=5))
    assert not same(first, create_student(str(tmp_path), TWO, seed=6))


def test_the_global_generator_stays_where_it_was(tmp_path: Path, encoder: str) -> None:
    BertConfig(**BERT).save_pretrained(tmp_path / "config")
    state = torch.random.get_rng_state()
    create_student(str(tmp_path / "config"), TWO)
    from_teacher_layers(create_student(encoder, TWO), [1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_plain_encoder_keeps_its_weights_and_gets_a_seeded_classifier(encoder: str) -> None:
    first, second, third = (create_student(encoder, TWO, seed) for seed in (3, 3, 4))
    for name, tensor in BertModel.from_pretrained(encoder).state_dict().items():
        assert torch.equal(weights(first)[f"bert.{name}"], tensor)
    assert same(first, second)
    assert not torch.equal(first.classifier.weight, third.classifier.weight)
    assert first.config.id2label == {0: "negative", 1: "positive"}


def test_a_language_model_is_a_plain_encoder_too(tmp_path: Path) -> None:
    """Its checkpoint has neither pooler nor classifier: both are drawn."""
    source = saved(BertForMaskedLM(BertConfig(**BERT)), tmp_path)
    assert same(create_student(source, TWO), create_student(source, TWO))


def test_a_classifier_of_the_right_size_is_kept(tmp_path: Path) -> None:
    model = BertForSequenceClassification(BertConfig(**BERT))
    assert same(create_student(saved(model, tmp_path), TWO), model)


def test_a_classifier_of_another_size_is_refused_in_one_line(tmp_path: Path) -> None:
    source = saved(BertForSequenceClassification(BertConfig(**BERT, num_labels=3)), tmp_path)
    with pytest.raises(MismatchError, match="3 classes and 2 are asked for") as caught:
        create_student(source, TWO)
    assert "\n" not in str(caught.value)


def test_weights_need_a_vocabulary_that_covers_the_tokenizer(encoder: str) -> None:
    with pytest.raises(MismatchError, match="knows 40 token ids and the tokenizer has 41"):
        create_student(encoder, Interface(41, ("0", "1")))


def test_half_precision_checkpoints_are_trained_in_float32(tmp_path: Path) -> None:
    source = saved(BertModel(BertConfig(**BERT)).to(torch.bfloat16), tmp_path)
    assert {tensor.dtype for tensor in create_student(source, TWO).parameters()} == {torch.float32}


def test_a_digest_tells_students_apart_by_their_weights_alone(tmp_path: Path) -> None:
    BertConfig(**BERT).save_pretrained(tmp_path / "config")
    source = str(tmp_path / "config")
    first = weights_digest(create_student(source, TWO, seed=5))
    assert first == weights_digest(create_student(source, TWO, seed=5))
    other = create_student(source, TWO, seed=6)
    assert first != weights_digest(other)
    other.save_pretrained(tmp_path / "elsewhere")
    assert weights_digest(create_student(str(tmp_path / "elsewhere"), TWO)) == weights_digest(other)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not a valid JSON"),
        ("{}", "model_type"),
        ('{"model_type": "brt"}', "brt"),
        ('{"model_type": "bert", "hidden_size": "wide"}', "hidden_size"),
        ('{"model_type": "bert", "hidden_size": 30, "num_attention_heads": 7}', "not a multiple"),
    ],
)
def test_a_broken_config_is_one_line_that_names_it(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TeacherError, match=complaint) as caught:
        create_student(str(path), TWO)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["/no/such/folder", "./missing", "students/x.json", "tinybert5"])
def test_a_source_that_is_not_there_is_refused(source: str) -> None:
    with pytest.raises(TeacherError, match=source):
        create_student(source, TWO)


def test_weights_that_do_not_fit_their_config_are_refused(encoder: str) -> None:
    path = Path(encoder, "model.safetensors")
    kept = {name: tensor for name, tensor in load_file(path).items() if "layer.2" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=r"lacks \d+ weights"):
        create_student(encoder, TWO)


def test_a_damaged_checkpoint_is_one_line(encoder: str) -> None:
    path = Path(encoder, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TeacherError, match="cannot load a student from") as caught:
        create_student(encoder, TWO)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_classifier_is_not_loaded_as_one(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="lacks weights of a classifier"):
        load_classifier(encoder)
    BertConfig(**BERT).save_pretrained(tmp_path / "config")
    for source in ("tinybert4", str(tmp_path / "config")):
        with pytest.raises(TeacherError, match="has no weights"):
            load_classifier(source)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_in_order_are_the_teacher_itself(family: str) -> None:
    teacher = FAMILIES[family]().eval()
    assert same(from_teacher_layers(teacher, [1, 2, 3, 4]), teacher)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bottom_layers_compute_what_they_did_in_the_teacher(family: str) -> None:
    teacher = FAMILIES[family]().eval()
    student = from_teacher_layers(teacher, resolve_layers("bottom:2", 4))
    ids = torch.arange(3, 15).reshape(2, 6)
    with torch.no_grad():
        expected = teacher(ids, output_hidden_states=True).hidden_states
        states = student(ids, output_hidden_states=True).hidden_states
    assert student.config.num_hidden_layers == 2
    assert len(states) == 3
    for ours, theirs in zip(states, expected[:3], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_come_in_the_order_listed_and_survive_saving(family: str, tmp_path: Path) -> None:
    teacher = FAMILIES[family]().eval()
    student = from_teacher_layers(teacher, [4, 2])
    reloaded = AutoModelForSequenceClassification.from_pretrained(saved(student, tmp_path))
    assert same(reloaded, student)
    inside = "transformer.layer" if family == "distilbert" else "encoder.layer"
    assert teacher.config.num_hidden_layers == 4
    for place, layer in enumerate((4, 2)):
        ours = reloaded.base_model.get_submodule(f"{inside}.{place}").state_dict()
        theirs = teacher.base_model.get_submodule(f"{inside}.{layer - 1}").state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_student_shares_no_memory_with_its_teacher() -> None:
    teacher = FAMILIES["bert"]()
    before = {name: tensor.clone() for name, tensor in weights(teacher).items()}
    with torch.no_grad():
        for parameter in from_teacher_layers(teacher, [1, 3]).parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(teacher).items())


def test_a_teacher_that_repeats_one_layer_is_refused() -> None:
    teacher = AlbertForSequenceClassification(AlbertConfig(**SIZES, num_hidden_layers=4, embedding_size=8))
    with pytest.raises(TeacherError, match="0 lists of 4 layers"):
        from_teacher_layers(teacher, [1])


@pytest.mark.parametrize("layers", [[], [0], [5], [2, 2]])
def test_layers_the_teacher_cannot_give_are_refused(layers: list[int]) -> None:
    with pytest.raises(SpecError, match="layers"):
        from_teacher_layers(FAMILIES["bert"](), layers)


@pytest.mark.parametrize(
    ("scheme", "teacher_layers", "expected"),
    [
        ("bottom:3", 12, (1, 2, 3)),
        ("uniform:4", 12, (3, 6, 9, 12)),
        ("uniform:6", 12, (2, 4, 6, 8, 10, 12)),
        ("uniform:3", 4, (1, 3, 4)),
        ("6,2,4", 6, (6, 2, 4)),
    ],
)
def test_schemes_name_the_papers_layers(scheme: str, teacher_layers: int, expected: tuple[int, ...]) -> None:
    assert resolve_layers(scheme, teacher_layers) == expected


@given(st.integers(1, 48), st.data())
def test_uniform_layers_rise_to_the_last(teacher_layers: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, teacher_layers))
    layers = resolve_layers(f"uniform:{count}", teacher_layers)
    assert len(layers) == count
    assert layers[-1] == teacher_layers
    assert all(lower < higher for lower, higher in zip((0, *layers), layers, strict=False))


@pytest.mark.parametrize("scheme", ["", "top:3", "uniform:0", "bottom:5", "1,x", "1,1", "0,1", "2,5"])
def test_a_scheme_that_makes_no_sense_is_refused(scheme: str) -> None:
    with pytest.raises(SpecError, match="layers"):
        resolve_layers(scheme, 4)
