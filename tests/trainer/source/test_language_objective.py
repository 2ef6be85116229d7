"""Causal students learn next tokens: what their losses are, where they are taken, and that no [B, L, V] is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from language_models import FAMILIES, NUM_IDS
from torch import Tensor, nn
from torch.nn import functional as F

from hskcache.errors import MismatchError
from hskcache.output_head import OutputHead
from hskcache.selection.depth import LayerPair
from hskcache.store.kinds.vocabulary import VocabularyField
from trainer.batch import Batch, DrawnTarget, HiddenTarget, StatesTarget, TopTarget
from trainer.losses import LOSSES
from trainer.losses.matches import Matches
from trainer.recipe import Losses
from trainer.source.objective import Objective
from trainer.student.create import seeded

V, LENGTHS = 264, (11, 4, 8, 1)
GOLD = {"gold": {}}
KEPT = (1, 2, 5, 9, 12, 14)


def student(family: str = "llama", seed: int = 0, **changes: Any) -> Any:
    with seeded(seed):
        return FAMILIES[family](**changes).eval()


def batch(rows: slice = slice(None), totals: int = sum(LENGTHS) - len(LENGTHS), **targets: Any) -> Batch:
    """Padded rows of random tokens, all of whose tokens but the first are targets; one has none."""
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(3, NUM_IDS, (len(LENGTHS), max(LENGTHS)), generator=draw)
    lengths = torch.tensor(LENGTHS)[rows]
    mask = torch.arange(max(LENGTHS)) < lengths[:, None]
    places = torch.arange(max(LENGTHS)) < lengths[:, None] - 1
    return Batch(
        inputs={"input_ids": ids[rows].where(mask, 0), "attention_mask": mask.long()},
        labels=None,
        targets=targets,
        num_rows=len(LENGTHS),
        row_ids=tuple(range(len(LENGTHS)))[rows],
        totals={"inputs": totals},
        answered=places.flatten().nonzero()[:, 0],
    )


def losses(**terms: Any) -> Losses:
    return Losses.model_validate(terms)


def of(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Gradients by name."""
    model.zero_grad()
    loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def dense_logits(model: Any, given: Batch) -> Tensor:
    return model(**given.inputs).logits.flatten(0, 1)[given.answered]


@pytest.mark.parametrize("family", FAMILIES)
def test_gold_is_the_loss_of_transformers_with_labels_shifted(family: str) -> None:
    # Its embeddings are the head's weight, too, but for Qwen's.
    model, given = student(family), batch()
    labels = given.inputs["input_ids"].where(given.inputs["attention_mask"].bool(), -100)
    expected = model(**given.inputs, labels=labels).loss
    gradients = of(expected, model)
    total, terms = Objective(model, losses(**GOLD))(given)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms, {"gold": expected.detach()}, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of(total, model), gradients, rtol=1e-5, atol=1e-6)


def test_targets_of_the_rows_alone_are_learned() -> None:
    model, given = student(), batch()
    assert given.answered is not None
    some = replace(given, answered=given.answered[list(KEPT)], totals={"inputs": len(KEPT)})
    tokens = given.inputs["input_ids"].flatten()[given.answered + 1][list(KEPT)]
    expected = F.cross_entropy(dense_logits(model, given)[list(KEPT)], tokens)
    torch.testing.assert_close(Objective(model, losses(**GOLD))(some)[0], expected, rtol=1e-5, atol=1e-6)


def teacher_of(given: Batch, form: str, where: slice | list[int] = slice(None)) -> tuple[Any, Tensor]:
    """A target in one of the forms, and the logits [T, V] that it comes from."""
    assert given.answered is not None
    draw = torch.Generator().manual_seed(5)
    states, head = torch.randn(len(given.answered), 6, generator=draw), torch.randn(V, 6, generator=draw)
    logits = (states @ head.T)[where]
    gold = torch.zeros(len(logits))
    shared = given.answered[where], logits.logsumexp(1), gold
    match form:
        case "top":
            logp, ids = logits.log_softmax(1).topk(V - 1, 1)
            return TopTarget(*shared, ids, logp), logits
        case "sampled":
            draws = torch.multinomial(logits.softmax(1), 5, replacement=True, generator=draw)
            return DrawnTarget(*shared, draws.sort(1)[0]), logits
        case _:
            return StatesTarget(*shared, states[where], OutputHead(head)), logits


def expected_next(form: str, target: Any, teacher: Tensor, logq: Tensor) -> Tensor:
    if form == "sampled":
        return -logq.gather(1, target.ids_TK).mean(1)
    return (teacher.softmax(1) * (teacher.log_softmax(1) - logq)).sum(1)


@pytest.mark.parametrize("where", [slice(None), list(KEPT)], ids=["everywhere", "somewhere"])
@pytest.mark.parametrize("form", ["top", "sampled", "head"])
def test_next_and_gold_are_those_of_dense_logits(form: str, where: Any) -> None:
    # A top of all tokens but one has that one as its tail, so that its divergence is the whole one.
    model, given = student(), batch()
    target, teacher = teacher_of(given, form, where)
    given = replace(given, targets={"vocabulary": target})
    assert given.answered is not None
    logq = dense_logits(model, given).log_softmax(1)
    tokens = given.inputs["input_ids"].flatten()[given.answered + 1]
    expected = {
        "next": expected_next(form, target, teacher, logq[where]).sum() / len(given.answered),
        "gold": F.nll_loss(logq, tokens),
    }
    gradients = of(0.7 * expected["next"] + 0.2 * expected["gold"], model)
    total, terms = Objective(model, losses(next={"weight": 0.7}, gold={"weight": 0.2}))(given)
    torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()}, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of(total, model), gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["top", "sampled", "head"])
def test_next_is_averaged_over_the_positions_that_are_kept_in_whatever_order_and_gold_over_all(form: str) -> None:
    kept = [9, 1, 14, 2, 12, 5]
    model, given = student(), batch()
    target, teacher = teacher_of(given, form, kept)
    given = replace(given, targets={"vocabulary": target}, totals={**given.totals, "vocabulary": len(kept)})
    assert given.answered is not None
    logq = dense_logits(model, given).log_softmax(1)
    tokens = given.inputs["input_ids"].flatten()[given.answered + 1]
    expected = {"next": expected_next(form, target, teacher, logq[kept]).mean(), "gold": F.nll_loss(logq, tokens)}
    gradients = of(0.7 * expected["next"] + 0.2 * expected["gold"], model)
    total, terms = Objective(model, losses(next={"weight": 0.7}, gold={"weight": 0.2}))(given)
    torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()}, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of(total, model), gradients, rtol=1e-4, atol=1e-5)
    alone = Objective(model, losses(next={}))(given)[0]
    torch.testing.assert_close(alone, expected["next"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["top", "sampled", "head"])
def test_slices_add_up(form: str) -> None:
    model, whole = student(), batch()
    target, _ = teacher_of(whole, form)
    both = losses(next={}, gold={"weight": 0.5})
    objective = Objective(model, both)
    total, terms = objective(replace(whole, targets={"vocabulary": target}))
    gradients = of(total, model)
    sums: dict[str, Tensor] = {}
    model.zero_grad()
    for rows, own in ((slice(0, 1), slice(0, 10)), (slice(1, 4), slice(10, None))):
        part = batch(rows)
        assert part.answered is not None
        at = {name: one[own] for name, one in vars(target).items() if isinstance(one, Tensor)}
        part = replace(part, targets={"vocabulary": replace(target, **at | {"index_T": part.answered})})
        loss, own_terms = objective(part)
        loss.backward()
        sums = {name: sums.get(name, torch.zeros(())) + one for name, one in own_terms.items()}
    torch.testing.assert_close(sums, terms)
    torch.testing.assert_close(
        {name: one.grad for name, one in model.named_parameters()}, gradients, rtol=1e-4, atol=1e-6
    )


def test_a_slice_without_targets_adds_nothing() -> None:
    model, given = student(), batch(slice(3, 4))
    total, _ = Objective(model, losses(**GOLD))(given)
    assert total.item() == 0
    assert all(not one.any() for one in of(total, model).values())


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[torch.Size]]:
    shapes: list[torch.Size] = []
    handle = module.register_forward_hook(lambda _module, _given, output: shapes.append(output.shape))
    try:
        yield shapes
    finally:
        handle.remove()


def test_logits_of_all_tokens_are_never_made() -> None:
    model = student()
    with outputs_of(model.get_output_embeddings()) as shapes:
        Objective(model, losses(**GOLD))(batch())[0].backward()
    # The first is the proof of the head; then one of no positions.
    assert shapes[1:] == [(len(LENGTHS), 0, V)]


def hidden_target(teacher: Any, given: Batch, layer: int) -> HiddenTarget:
    with torch.no_grad():
        states = teacher(**given.inputs, output_hidden_states=True).hidden_states[layer]
    index = given.inputs["attention_mask"].flatten().nonzero()[:, 0]
    return HiddenTarget(index, states.flatten(0, 1)[index], None, states.shape[-1])


def test_hidden_states_are_learned_beside_next_tokens_as_encoders_learn_them() -> None:
    # The last state of a causal model is the one behind its final norm, of student and teacher alike.
    teacher, model, given = student(seed=1), student(num_hidden_layers=2), batch()
    targets = {layer: hidden_target(teacher, given, layer) for layer in (2, 4)}
    pairs = {"hidden": (LayerPair(1, 2), LayerPair(2, 4))}
    given = replace(given, targets={"hidden": targets}, totals={"hidden": sum(LENGTHS), "inputs": 20})
    total, terms = Objective(model, losses(hidden={"weight": 2.0}, gold={"weight": 0.5}), Matches(pairs))(given)
    ours = model(**given.inputs, output_hidden_states=True).hidden_states
    index = targets[2].index_P
    expected = sum(
        F.mse_loss(ours[pair.student].flatten(0, 1)[index], targets[pair.teacher].values_PW) for pair in pairs["hidden"]
    )
    torch.testing.assert_close(terms["hidden"], expected.detach())
    torch.testing.assert_close(total, 2 * terms["hidden"] + 0.5 * terms["gold"])


@pytest.mark.parametrize("terms", [{"divergence": "reverse_kl"}, {"divergence": "jsd"}, {"temperature": 2.0}], ids=str)
@pytest.mark.parametrize("form", ["top", "sampled"])
def test_a_part_of_the_distribution_serves_forward_kl_at_temperature_1_alone(form: Any, terms: dict[str, Any]) -> None:
    matches = Matches(fields={"vocabulary": VocabularyField(form=form, vocab_size=V, count=8)})
    with pytest.raises(MismatchError, match="--vocabulary head"):
        Objective(student(), losses(next=terms), matches)
    whole = VocabularyField(form="head", vocab_size=V, width=6, encoding="int8", head_dtype="float32")
    Objective(student(), losses(next=terms), Matches(fields={"vocabulary": whole}))


def test_students_that_say_no_next_tokens_or_others_are_refused() -> None:
    fields = {"vocabulary": VocabularyField(form="top", vocab_size=V + 8, count=8)}
    with pytest.raises(MismatchError, match="the student says 264 token ids and the teacher said 272"):
        LOSSES["next"].check_student(student(), Matches(fields=fields))
    with pytest.raises(MismatchError, match="LlamaModel, which says no next tokens"):
        LOSSES["gold"].check_student(student().model, Matches())
