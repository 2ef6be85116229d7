"""What is captured is what the eager model computes, and capturing makes no [L, L] matrix unless it is asked for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from direct import CLOSE, raw_scores
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from hskcache.attention import scores_between
from hskcache.selection.length import received_score
from hskcache.teacher.capture import Captured, Wanted, capture
from hskcache.teacher.taps import find_taps

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
COMMON = {"vocab_size": 100, "max_position_embeddings": 40, "initializer_range": 0.3}
DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": {**COMMON, **SIZE},
    "Roberta": {**COMMON, **SIZE, "pad_token_id": 1},
    "DistilBert": {**COMMON, **DISTIL},
    "Electra": {**COMMON, **SIZE, "embedding_size": 16},
}
LENGTHS = (9, 14, 1, 5)


def make(kind: str, attention: str = "eager", **config: Any) -> PreTrainedModel:
    """A model of random weights, the same for every kind of attention."""
    settings = getattr(transformers, f"{kind}Config")(**config)
    settings._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = getattr(transformers, f"{kind}ForSequenceClassification")(settings)
    return model.eval()


def batch(pad: int, with_types: bool) -> dict[str, Tensor]:
    """Four rows of different lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, 100, mask.shape, generator=generator).masked_fill(~mask, pad)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if with_types:
        inputs["token_type_ids"] = (torch.arange(mask.shape[1]) > 4).long().expand(mask.shape) * mask
    return inputs


@pytest.fixture(scope="module", params=ENCODERS)
def seen(request: pytest.FixtureRequest) -> tuple[Callable[..., Captured], Any, list[Tensor], Tensor]:
    """A capturing function of a model, and what the eager model of the same weights says of the same batch."""
    kind, config = request.param, ENCODERS[request.param]
    inputs = batch(config.get("pad_token_id", 0), with_types=kind in {"Bert", "Electra"})
    twin = make(kind, **config)
    with torch.no_grad():
        expected = twin(**inputs, output_hidden_states=True, output_attentions=True)
    model = make(kind, "sdpa", **config)
    taps = find_taps(model)
    return (
        lambda *args: capture(model, taps, inputs, wanted(*args)),
        expected,
        raw_scores(twin, inputs),
        inputs["attention_mask"].bool(),
    )


def wanted(hidden: Any, score: Any = "attention", layers: Any = (), attention: Any = ()) -> Wanted:
    return Wanted(frozenset(hidden), frozenset((score, layer) for layer in layers), frozenset(attention))


def assert_close(found: Tensor, expected: Tensor, valid: Tensor) -> None:
    torch.testing.assert_close(found[valid], expected[valid], rtol=CLOSE, atol=CLOSE)


def test_hidden_states_and_logits_are_those_of_the_eager_model(seen: Any) -> None:
    run, expected, _, valid = seen
    captured = run([0, 2, 3])
    torch.testing.assert_close(captured.logits, expected.logits, rtol=CLOSE, atol=CLOSE)
    assert sorted(captured.hidden) == [0, 2, 3]
    for layer, states in captured.hidden.items():
        assert_close(states, expected.hidden_states[layer], valid)
    assert float(expected.hidden_states[3].std()) > 0.1


def test_attention_is_the_mean_over_heads_of_the_cls_row(seen: Any) -> None:
    run, expected, _, valid = seen
    captured = run([1], "attention", [0, 2])
    assert sorted(captured.scores) == [("attention", 0), ("attention", 2)]
    for (_, layer), scores in captured.scores.items():
        torch.testing.assert_close(scores, expected.attentions[layer][:, :, 0].mean(1), rtol=CLOSE, atol=CLOSE)
        # Padding has no share, so the real tokens have all of it; and no two models agree by being flat.
        torch.testing.assert_close(scores.masked_fill(~valid, 0).sum(-1), torch.ones(len(LENGTHS)))
        assert float(scores[0, : LENGTHS[0]].std()) > 1e-3


def test_attention_logit_is_the_mean_over_heads_before_the_softmax(seen: Any) -> None:
    run, _, raw, valid = seen
    captured = run([1], "attention-logit", [0, 1, 2])
    for layer in range(3):
        assert_close(captured.scores["attention-logit", layer], raw[layer][:, :, 0].mean(1), valid)


def test_received_is_the_mean_over_heads_and_real_queries(seen: Any) -> None:
    run, expected, _, valid = seen
    captured = run([1], "received", [0, 1, 2])
    for layer in range(3):
        by_hand = torch.stack(
            [
                probabilities[:, :length].mean((0, 1))
                for probabilities, length in zip(expected.attentions[layer], LENGTHS, strict=True)
            ]
        )
        assert_close(captured.scores["received", layer], by_hand, valid)
        torch.testing.assert_close(by_hand, received_score(expected.attentions[layer], valid), rtol=CLOSE, atol=CLOSE)


def test_query_and_key_of_the_wanted_layers_give_the_eager_scores(seen: Any) -> None:
    """Before mask and softmax, between all positions and between some; layers count from 1."""
    run, _, raw, valid = seen
    captured = run([], "attention", [], [1, 3])
    assert sorted(captured.attention) == [1, 3]
    some = torch.tensor([[4, 0, 2], [13, 1, 0], [0, 0, 0], [3, 4, 1]])
    batch = torch.arange(len(LENGTHS))[:, None, None]
    for layer, (query, key, scaling) in captured.attention.items():
        expected = raw[layer - 1].transpose(1, 3)
        whole = scores_between(query, key, None, scaling).transpose(1, 3)
        pairs = valid[:, :, None] & valid[:, None]
        torch.testing.assert_close(whole[pairs], expected[pairs], rtol=CLOSE, atol=CLOSE)
        kept = scores_between(query, key, some, scaling).permute(0, 2, 3, 1)
        by_hand = raw[layer - 1].permute(0, 2, 3, 1)[batch, some[:, :, None], some[:, None]]
        torch.testing.assert_close(kept, by_hand, rtol=CLOSE, atol=CLOSE)


def test_nothing_listens_where_no_attention_is_wanted(seen: Any) -> None:
    captured = seen[0]([1])
    assert (captured.scores, captured.attention, captured.num_attentions) == ({}, {}, 0)


class Shapes(TorchDispatchMode):
    """Records the shape of every tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.found.add(tuple(tensor.shape))
        return out


@pytest.mark.parametrize(("score", "square"), [("attention", False), ("attention-logit", False), ("received", True)])
def test_a_square_of_scores_over_heads_is_made_for_received_alone(score: Any, square: bool) -> None:
    model = make("Bert", **COMMON, **SIZE)
    taps = find_taps(model)
    inputs = batch(0, with_types=True)
    with Shapes() as shapes:
        captured = capture(model, taps, inputs, wanted([3], score, [0, 1, 2]))
    assert len(captured.scores) == 3
    batch_size, length = inputs["input_ids"].shape
    assert ((batch_size, 4, length, length) in shapes.found) is square
    assert ((batch_size, 4, 1, length) in shapes.found) is not square


def hooks(model: PreTrainedModel) -> list[int]:
    """Hooks of every module; transformers leaves some of its own."""
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_nothing_is_left_on_the_model_and_dropout_is_off() -> None:
    model = make("Bert", **COMMON, **SIZE, hidden_dropout_prob=0.5).train()
    taps = find_taps(model)
    assert not any(module.training for module in model.modules())
    inputs, before = batch(0, with_types=False), hooks(model)
    first, second = capture(model, taps, inputs, wanted(range(4))), capture(model, taps, inputs, wanted(range(4)))
    assert torch.equal(first.logits, second.logits)
    assert hooks(model) == before


def test_hooks_go_even_if_the_model_fails() -> None:
    model = make("Bert", **COMMON, **SIZE)
    taps = find_taps(model)
    before = hooks(model)
    too_long = {name: torch.ones(1, 41, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    with pytest.raises((IndexError, RuntimeError)):
        capture(model, taps, too_long, wanted(range(4)))
    assert hooks(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_a_teacher_of_16_bits_are_not_rounded_to_16_bits(dtype: torch.dtype) -> None:
    model = make("Bert", **COMMON, **SIZE).to(dtype)
    taps = find_taps(model)
    inputs = batch(0, with_types=True)
    captured = capture(model, taps, inputs, wanted([3], "attention-logit", [2]))
    assert captured.hidden[3].dtype == dtype
    expected = raw_scores(model, inputs)[2][:, :, 0].mean(1)
    assert_close(captured.scores["attention-logit", 2], expected, inputs["attention_mask"].bool())
