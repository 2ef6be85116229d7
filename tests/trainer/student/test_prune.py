import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hskcache.encoder import weights_digest
from hskcache.errors import SpecError, TeacherError
from trainer.student import CompactBertConfig, CompactBertForSequenceClassification, CompactBertModel
from trainer.student.importance import LayerImportance
from trainer.student.layers import from_teacher_layers
from trainer.student.prune import Pruning, factor, prunable_layers, prune

HEADS, HEAD_SIZE, FFN = 4, 8, 24
SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "num_hidden_layers": 4,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
}
ALL = (1, 2, 3, 4)
IDS = torch.arange(1, 15).reshape(2, 7)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])


def bert() -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()


def scores_of(seed: int = 0) -> dict[int, LayerImportance]:
    draw = np.random.default_rng(seed)
    return {layer: LayerImportance(draw.random(HEADS), draw.random(FFN)) for layer in ALL}


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, attention_mask=MASK).logits


def silenced(teacher: PreTrainedModel, layer: int, heads: set[int], neurons: set[int]) -> None:
    """Let these heads and neurons of a layer contribute nothing."""
    block = teacher.bert.encoder.layer[layer - 1]
    with torch.no_grad():
        for head in heads:
            block.attention.output.dense.weight[:, head * HEAD_SIZE : (head + 1) * HEAD_SIZE] = 0
        for neuron in neurons:
            block.output.dense.weight[:, neuron] = 0


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 99), st.integers(1, HEADS), st.integers(1, FFN))
def test_cutting_is_silencing_all_but_the_most_important(seed: int, heads: int, ffn: int) -> None:
    """The student answers as the teacher with the other heads' and neurons' output weights at zero."""
    teacher, scores = bert(), scores_of(seed)
    student = prune(teacher, Pruning(ALL, heads, ffn), scores)
    for layer in ALL:
        best_heads = set(np.argsort(scores[layer].heads)[-heads:].tolist())
        best_neurons = set(np.argsort(scores[layer].neurons)[-ffn:].tolist())
        assert student.heads[layer] == tuple(sorted(best_heads))
        assert student.neurons[layer] == tuple(sorted(best_neurons))
        silenced(teacher, layer, set(range(HEADS)) - best_heads, set(range(FFN)) - best_neurons)
    torch.testing.assert_close(logits(student.model), logits(teacher), rtol=0, atol=1e-5)


def test_what_contributes_nothing_is_cut_without_a_trace() -> None:
    """In every layer another head and other neurons are silent and have no importance; the logits stay."""
    teacher, scores = bert(), scores_of()
    for layer in ALL:
        silenced(teacher, layer, {layer - 1}, {layer, layer + 10})
        scores[layer].heads[layer - 1] = 0
        scores[layer].neurons[[layer, layer + 10]] = 0
    student = prune(teacher, Pruning(ALL, HEADS - 1, FFN - 2), scores)
    for layer in ALL:
        assert set(student.heads[layer]) == set(range(HEADS)) - {layer - 1}
        assert set(student.neurons[layer]) == set(range(FFN)) - {layer, layer + 10}
    torch.testing.assert_close(logits(student.model), logits(teacher), rtol=0, atol=1e-6)


def test_kept_weights_are_the_teacher_s_own() -> None:
    teacher, scores = bert(), scores_of()
    student = prune(teacher, Pruning((4, 2), 2, 5), scores)
    assert student.model.config.num_hidden_layers == 2
    for place, layer in enumerate((4, 2)):
        ours = student.model.bert.encoder.layer[place].state_dict()
        theirs = teacher.bert.encoder.layer[layer - 1].state_dict()
        columns = [head * HEAD_SIZE + i for head in student.heads[layer] for i in range(HEAD_SIZE)]
        neurons = list(student.neurons[layer])
        for name in ("query", "key", "value"):
            assert torch.equal(ours[f"attention.self.{name}.weight"], theirs[f"attention.self.{name}.weight"][columns])
            assert torch.equal(ours[f"attention.self.{name}.bias"], theirs[f"attention.self.{name}.bias"][columns])
        assert torch.equal(ours["attention.output.dense.weight"], theirs["attention.output.dense.weight"][:, columns])
        assert torch.equal(ours["intermediate.dense.bias"], theirs["intermediate.dense.bias"][neurons])
        for name in ("attention.output.dense.bias", "attention.output.LayerNorm.weight", "output.dense.bias"):
            assert torch.equal(ours[name], theirs[name])


def test_ties_go_to_the_lowest_numbers() -> None:
    same = {layer: LayerImportance(np.ones(HEADS), np.ones(FFN)) for layer in ALL}
    student = prune(bert(), Pruning((1,), 2, 3), same)
    assert (student.heads, student.neurons) == ({1: (0, 1)}, {1: (0, 1, 2)})


def test_layers_alone_give_the_student_of_those_layers() -> None:
    teacher = bert()
    student = prune(teacher, Pruning((1, 2))).model
    assert type(student) is BertForSequenceClassification
    assert weights_digest(student) == weights_digest(from_teacher_layers(teacher, [1, 2]))
    assert torch.equal(logits(student), logits(from_teacher_layers(teacher, [1, 2])))


@pytest.mark.parametrize(
    ("cut", "kind"),
    [
        (Pruning(ALL, HEADS, FFN), BertForSequenceClassification),
        (Pruning((1,), ffn=3), BertForSequenceClassification),
        (Pruning((1,), heads=1), CompactBertForSequenceClassification),
        (Pruning((1,), embedding_rank=32), CompactBertForSequenceClassification),
    ],
)
def test_a_student_of_bert_s_shapes_is_a_plain_bert(cut: Pruning, kind: type) -> None:
    student = prune(bert(), cut, scores_of()).model
    assert type(student) is kind
    assert student.config.model_type == ("bert" if kind is BertForSequenceClassification else "compact_bert")
    assert not student.training
    assert student.config.num_labels == 3


def test_full_rank_gives_the_same_logits() -> None:
    teacher = bert()
    student = prune(teacher, Pruning(ALL, embedding_rank=32)).model
    torch.testing.assert_close(logits(student), logits(teacher), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 7, 31])
def test_a_lower_rank_is_the_truncated_singular_value_decomposition(rank: int) -> None:
    """As if the word embedding were its best approximation of that rank."""
    teacher = bert()
    student = prune(teacher, Pruning(ALL, embedding_rank=rank)).model
    table = student.bert.embeddings.word_embeddings.weight
    expansion = student.bert.embeddings.word_expansion.weight
    assert (table.shape, expansion.shape) == ((50, rank), (32, rank))
    words = teacher.bert.embeddings.word_embeddings
    left, values, right = np.linalg.svd(words.weight.detach().numpy().astype(np.float64), full_matrices=False)
    best = torch.from_numpy(left[:, :rank] * values[:rank] @ right[:rank]).float()
    torch.testing.assert_close((table @ expansion.T).detach(), best, rtol=0, atol=1e-6)
    words.weight.data = best
    torch.testing.assert_close(logits(student), logits(teacher), rtol=0, atol=1e-5)


def test_the_factors_are_u_s_and_orthonormal_v() -> None:
    words = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    table, expansion = factor(words, 4)
    torch.testing.assert_close(expansion.T @ expansion, torch.eye(4))
    np.testing.assert_allclose(table.norm(dim=0), np.linalg.svd(words.numpy())[1][:4], rtol=1e-5)


def test_an_encoder_without_a_classifier_can_be_cut() -> None:
    teacher = bert().bert
    student = prune(copy.deepcopy(teacher), Pruning((1, 2, 3), 3, 20, 32), scores_of()).model
    assert type(student) is CompactBertModel
    assert type(prune(teacher, Pruning((1,))).model) is BertModel
    with torch.no_grad():
        assert student(IDS).last_hidden_state.shape == (2, 7, 32)
        states = student.embeddings(IDS), teacher.embeddings(IDS)
    torch.testing.assert_close(*states, rtol=0, atol=1e-5)


def test_the_student_shares_no_memory_with_its_teacher() -> None:
    teacher = bert()
    digest = weights_digest(teacher)
    for cut in (Pruning(ALL, HEADS, FFN, 32), Pruning((2, 1), 2, 3)):
        student = prune(teacher, cut, scores_of())
        with torch.no_grad():
            for parameter in student.model.parameters():
                parameter.add_(1.0)
    assert weights_digest(teacher) == digest
    assert teacher.config.num_attention_heads == HEADS


def test_the_global_generator_stays_where_it_was() -> None:
    teacher = bert()
    state = torch.random.get_rng_state()
    prune(teacher, Pruning((1,), 2, 3, 4), scores_of())
    assert torch.equal(torch.random.get_rng_state(), state)


OTHERS: dict[str, Any] = {
    "RobertaForSequenceClassification": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES)),
    "ElectraForSequenceClassification": lambda: ElectraForSequenceClassification(ElectraConfig(**SIZES)),
    "CompactBertForSequenceClassification": lambda: CompactBertForSequenceClassification(
        CompactBertConfig(**SIZES, head_size=4)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_teachers_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(TeacherError, match=f"{name} cannot be pruned; give a plain BERT") as caught:
        prune(OTHERS[name](), Pruning((1,)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cut", "complaint"),
    [
        (Pruning(ALL, heads=5), "--heads 5: the teacher has 4; ask for 1 to 4"),
        (Pruning(ALL, heads=0), "--heads 0"),
        (Pruning(ALL, ffn=25), "--ffn 25: the teacher has 24"),
        (Pruning(ALL, embedding_rank=33), "--embedding-rank 33: the teacher has 32"),
        (Pruning((1, 5)), "layers 1 to 4"),
        (Pruning(()), "layers"),
    ],
)
def test_a_cut_out_of_range_is_refused(cut: Pruning, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        prune(bert(), cut, scores_of())


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, (1, 2, 3, 4)),
        ("3", (1, 2, 3)),
        ("bottom:2", (1, 2)),
        ("uniform:2", (2, 4)),
        ("4,1", (4, 1)),
    ],
)
def test_layers_are_named_as_for_other_students_and_a_number_alone_is_the_first_so_many(
    layers: str | None, expected: tuple[int, ...]
) -> None:
    assert prunable_layers(layers, 4) == expected


@pytest.mark.parametrize("layers", ["0", "5", "uniform:9", "top", ""])
def test_layers_that_the_teacher_lacks_are_refused(layers: str) -> None:
    with pytest.raises(SpecError, match="--layers"):
        prunable_layers(layers, 4)
