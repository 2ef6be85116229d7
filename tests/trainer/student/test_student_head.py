"""A classifier with the same classes in another order keeps what each of its outputs means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
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

from hskcache.classes import class_names
from hskcache.errors import MismatchError, TeacherError
from trainer.student.compact import CompactBertConfig, CompactBertForSequenceClassification
from trainer.student.create import Interface, create_student

SIZES: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SHAPE: dict[str, Any] = SIZES | {"num_hidden_layers": 2}
NAMES = ("entailment", "neutral", "contradiction")
IDS = torch.tensor([[2, 5, 7, 3], [2, 9, 11, 3]])


def named(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def bert(*names: str, **changes: Any) -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**{**SHAPE, **named(*names), **changes}))


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "bert": bert,
    "roberta": lambda *names: RobertaForSequenceClassification(RobertaConfig(**SHAPE, **named(*names))),
    "electra": lambda *names: ElectraForSequenceClassification(
        ElectraConfig(**SHAPE, **named(*names), embedding_size=8)
    ),
    "distilbert": lambda *names: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=40, dim=16, hidden_dim=24, n_layers=2, n_heads=2, **named(*names))
    ),
    "compact_bert": lambda *names: CompactBertForSequenceClassification(
        CompactBertConfig(**SHAPE, **named(*names), head_size=4, embedding_rank=8)
    ),
}


def wanting(*names: str) -> Interface:
    return Interface(vocab_size=40, label_names=names)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        answers: torch.Tensor = model.eval()(input_ids=IDS).logits
    return answers


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_move_to_the_order_that_is_wanted(family: str, tmp_path: Path) -> None:
    teacher = FAMILIES[family](*NAMES)
    torch.nn.init.normal_(next(reversed(list(teacher.parameters()))))  # the bias, which begins as zeros
    teacher.save_pretrained(tmp_path)
    student = create_student(str(tmp_path), wanting("contradiction", "entailment", "neutral"))
    torch.testing.assert_close(logits(student), logits(teacher)[:, [2, 0, 1]])
    assert student.config.id2label == {0: "contradiction", 1: "entailment", 2: "neutral"}


def test_spelling_makes_no_other_class(tmp_path: Path) -> None:
    teacher = bert("NOT_ENTAILMENT", "ENTAILMENT")
    teacher.save_pretrained(tmp_path)
    student = create_student(str(tmp_path), wanting("entailment", "not entailment"))
    torch.testing.assert_close(logits(student), logits(teacher)[:, [1, 0]])


def test_the_same_order_leaves_every_bit(tmp_path: Path) -> None:
    bert(*NAMES).save_pretrained(tmp_path)
    same = create_student(str(tmp_path), wanting(*NAMES)).state_dict()
    other = create_student(str(tmp_path), wanting(*NAMES[::-1])).state_dict()
    assert {name for name in same if not torch.equal(same[name], other[name])} == {"classifier.weight"}


@pytest.mark.parametrize("wanted", [("neutral", "entailment", "other"), ("Neutral", "neutral", "entailment")])
def test_classes_that_are_the_same_in_part_are_refused(wanted: tuple[str, ...], tmp_path: Path) -> None:
    bert(*NAMES).save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match=r"same only in part.*correct id2label"):
        create_student(str(tmp_path), wanting(*wanted))


@pytest.mark.parametrize(
    ("had", "wanted", "told"),
    [
        (("NEGATIVE", "POSITIVE"), ("0", "1"), "the classes NEGATIVE, POSITIVE of {} are taken for 0, 1, in order"),
        (("LABEL_0", "LABEL_1"), ("neg", "pos"), ""),
        (("0", "1"), ("1", "2"), ""),
    ],
)
def test_classes_of_other_names_stay_where_they_are(
    had: tuple[str, ...],
    wanted: tuple[str, ...],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    teacher = bert(*had)
    teacher.save_pretrained(tmp_path)
    capsys.readouterr()
    student = create_student(str(tmp_path), wanting(*wanted))
    torch.testing.assert_close(logits(student), logits(teacher))
    assert told.format(tmp_path) in capsys.readouterr().err
    assert told or "taken for" not in capsys.readouterr().err


def test_a_new_classifier_is_not_moved_or_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = BertModel(BertConfig(**SHAPE, **named("b", "a")))
    encoder.save_pretrained(tmp_path)
    first = create_student(str(tmp_path), wanting("a", "b"))
    second = create_student(str(tmp_path), wanting("b", "a"))
    torch.testing.assert_close(logits(first), logits(second))
    assert "taken for" not in capsys.readouterr().err


def test_a_classifier_that_cannot_be_told_from_another_layer_is_refused(tmp_path: Path) -> None:
    # RoBERTa's hidden layer before the last has a row for each of 16 columns, and here there are 16 classes.
    names = tuple("abcdefghijklmnop")
    FAMILIES["roberta"](*names).save_pretrained(tmp_path)
    assert create_student(str(tmp_path), wanting(*names)).config.id2label[0] == "a"
    with pytest.raises(TeacherError, match="which of 2 layers"):
        create_student(str(tmp_path), wanting(*names[::-1]))


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_a_checkpoint_of_several_answers_is_refused(problem_type: str, tmp_path: Path) -> None:
    bert("toxic", "insult", problem_type=problem_type).save_pretrained(tmp_path)
    with pytest.raises(
        MismatchError, match=rf"problem_type ({problem_type}, and single_label|regression\), .*no loss)"
    ):
        create_student(str(tmp_path), wanting("toxic", "insult"))


def test_an_output_without_a_name_is_counted() -> None:
    config = BertConfig(**SHAPE, num_labels=2)
    config.id2label = {1: "a", 2: "b"}
    assert class_names(config) == ("LABEL_0", "a")
