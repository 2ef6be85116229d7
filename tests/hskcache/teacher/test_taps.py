"""Any family of encoders is captured as transformers reports it, and what cannot be seen is refused for that alone."""

import re
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from hskcache.errors import TeacherError
from hskcache.selection.length import received_score
from hskcache.teacher.capture import Captured, Wanted, capture, require_seen
from hskcache.teacher.taps import Taps, find_taps

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
COMMON = {"vocab_size": 100, "max_position_embeddings": 40, "initializer_range": 0.3, "pad_token_id": 0}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    # Own layers, one after the other, attention through the interface.
    "XLMRoberta": ("queries", {"pad_token_id": 1}),
    "Camembert": ("queries", {"pad_token_id": 1}),
    "Ernie": ("queries", {}),
    "Data2VecText": ("queries", {"pad_token_id": 1}),
    # The embedding is narrower than the layers, and layer 0 is what the first of them reads.
    "MobileBert": ("queries", {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}),
    # One layer that is run three times.
    "Albert": ("queries", {"embedding_size": 16}),
    # A last norm after the layers, before the last state is reported; of ModernBERT with layers that see a window.
    "Esm": ("queries", {"position_embedding_type": "rotary", "mask_token_id": 3}),
    "ModernBert": ("queries", {**SPECIAL, "local_attention": 4, "global_attn_every_n_layers": 2}),
    "RobertaPreLayerNorm": ("queries", {"pad_token_id": 1}),
    "EuroBert": ("queries", {**SPECIAL, "num_key_value_heads": 2, "head_dim": 8}),
    # Attention in code of their own.
    "Deberta": ("maps", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 40}),
    "DebertaV2": ("maps", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}),
    "MPNet": ("maps", {"pad_token_id": 1}),
}
LENGTHS = (9, 14, 3, 5)


def make(kind: str, **config: Any) -> PreTrainedModel:
    """A classifier of random weights, the same every time."""
    settings = getattr(transformers, f"{kind}Config")(**config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model: PreTrainedModel = getattr(transformers, f"{kind}ForSequenceClassification")(settings)
    return model.eval()


def family(kind: str) -> PreTrainedModel:
    return make(kind, **{**COMMON, **SIZE, **FAMILIES[kind][1]})


def batch(pad: int, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    """Rows of different lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 100, mask.shape, generator=generator).masked_fill(~mask, pad)
    return {"input_ids": ids, "attention_mask": mask.long()}


def every(score: str) -> Wanted:
    """Every hidden layer, and the score by every attention layer."""
    return Wanted(frozenset(range(4)), frozenset((score, layer) for layer in range(3)))


def reported(kind: str, inputs: dict[str, Tensor]) -> Any:
    """Output of a model that nothing has touched, with all that it reports."""
    twin = family(kind)
    twin.set_attn_implementation("eager")
    with torch.inference_mode():
        return twin(**inputs, output_hidden_states=True, output_attentions=True)


@pytest.fixture(scope="module", params=FAMILIES)
def captured(request: pytest.FixtureRequest) -> tuple[str, Taps, Captured, Any, Tensor]:
    model = family(request.param)
    taps = find_taps(model)
    inputs = batch(model.config.pad_token_id)
    return (
        request.param,
        taps,
        capture(model, taps, inputs, every("attention")),
        reported(request.param, inputs),
        inputs["attention_mask"].bool(),
    )


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Alike but for rounding, of values whose largest may be far from 1."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_states_are_those_that_the_model_reports(captured: Any) -> None:
    kind, taps, knowledge, expected, valid = captured
    assert len(taps.states) == len(expected.hidden_states) == 4
    assert_close(knowledge.logits, expected.logits)
    for layer, states in enumerate(expected.hidden_states):
        assert_close(knowledge.hidden[layer][valid], states[valid])
    assert float(expected.hidden_states[3][valid].std()) > 0.1, kind


def test_the_first_query_s_attention_is_that_of_the_eager_model(captured: Any) -> None:
    kind, taps, knowledge, expected, _ = captured
    assert taps.attention == FAMILIES[kind][0]
    for layer in range(3):
        assert_close(knowledge.scores["attention", layer], expected.attentions[layer][:, :, 0].mean(1))


@pytest.mark.parametrize("kind", ["ModernBert", "DebertaV2"])
def test_received_attention_is_that_of_the_eager_model(kind: str) -> None:
    model = family(kind)
    inputs = batch(0)
    valid = inputs["attention_mask"].bool()
    knowledge, expected = capture(model, find_taps(model), inputs, every("received")), reported(kind, inputs)
    for layer in range(3):
        by_hand = received_score(expected.attentions[layer], valid)
        assert_close(knowledge.scores["received", layer][valid], by_hand[valid])


def test_a_state_that_a_last_norm_changes_is_the_normed_one() -> None:
    """As transformers reports it, not as the layer puts it out."""
    taps = find_taps(family("ModernBert"))
    assert [tap.module for tap in taps.states[1:]] == ["model.layers.0", "model.layers.1", "model.final_norm"]


def test_a_layer_that_is_shared_is_told_apart_by_its_calls() -> None:
    taps = find_taps(family("Albert"))
    assert {tap.module for tap in taps.states[1:]} == {"albert.encoder.albert_layer_groups.0"}
    assert [tap.call for tap in taps.states[1:]] == [0, 1, 2]


def test_maps_are_asked_for_where_a_score_needs_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = family("DebertaV2")
    taps = find_taps(model)
    asked: list[bool] = []
    forward = model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        asked.append(bool(kwargs.get("output_attentions")))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", watched)
    capture(model, taps, batch(0), Wanted(frozenset({3})))
    capture(model, taps, batch(0), every("received"))
    assert asked == [False, True]


DECODER = {"vocab_size": 100, "n_embd": 32, "n_layer": 3, "n_head": 4, "pad_token_id": 0}
BART = {"vocab_size": 100, "d_model": 32, "encoder_layers": 3, "decoder_layers": 3, "pad_token_id": 1}
HIDDEN, SCORE, LOGIT = Wanted(frozenset({3})), every("attention"), every("attention-logit")
KEPT = Wanted(attention=frozenset({1}))


@pytest.mark.parametrize(
    ("kind", "config", "wanted", "reason"),
    [
        ("GPT2", DECODER, SCORE, "attends causally.*; it can serve logits and hidden states, whose positions"),
        ("Llama", {**COMMON, **SIZE}, SCORE, "attends causally"),
        ("Llama", {**COMMON, **SIZE}, KEPT, "attends causally.*attention scores cannot be kept"),
        ("Bert", {**COMMON, **SIZE, "is_decoder": True}, SCORE, "is a decoder"),
        ("Bart", BART, HIDDEN, "reports no hidden states of its own.*logits alone can be cached of it: --keep none"),
        ("DebertaV2", {**COMMON, **SIZE}, LOGIT, "in its own code.*cannot be scored by attention-logit.*received"),
        ("DebertaV2", {**COMMON, **SIZE}, KEPT, "in its own code.*attention scores cannot be kept"),
        ("MPNet", {**COMMON, **SIZE, "pad_token_id": 1}, KEPT, "in its own code"),
    ],
)
def test_what_cannot_be_seen_is_refused_with_the_reason_and_with_what_can(
    kind: str, config: dict[str, Any], wanted: Wanted, reason: str
) -> None:
    model = make(kind, **config)
    taps = find_taps(model)
    with pytest.raises(TeacherError) as error:
        require_seen(taps, wanted, "t")
    assert re.search(reason, str(error.value)), str(error.value)
    inputs = batch(model.config.pad_token_id)
    with pytest.raises(TeacherError):
        capture(model, taps, inputs, wanted)
    if kind == "Bart":
        # It answers at the token that ends a text.
        inputs["input_ids"][:, 2] = model.config.eos_token_id
    assert capture(model, taps, inputs, Wanted()).logits is not None


def test_hidden_states_of_a_decoder_are_those_that_it_reports() -> None:
    model = make("Llama", **COMMON, **SIZE)
    inputs = batch(0)
    states = capture(model, find_taps(model), inputs, Wanted(frozenset(range(4)))).hidden
    with torch.inference_mode():
        expected = make("Llama", **COMMON, **SIZE)(**inputs, output_hidden_states=True).hidden_states
    for layer in range(4):
        assert_close(states[layer], expected[layer])


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("FNet", {**COMMON, **SIZE}, "answers a row otherwise when it is padded"),
        ("Xmod", {**COMMON, **SIZE, "languages": ["en_XX", "de_DE"]}, "does not run on token ids and a mask alone"),
    ],
)
def test_a_model_that_cannot_run_on_padded_rows_is_refused_whatever_is_wanted(
    kind: str, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TeacherError, match=reason) as error:
        find_taps(make(kind, **config))
    assert f"{kind}ForSequenceClassification" in str(error.value)


class Twice(nn.Module):
    """Attention that is computed a second time."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.attention(*args, **kwargs)
        return self.attention(*args, **kwargs)


def test_a_layer_that_attends_twice_gives_no_scores() -> None:
    model = make("Bert", **COMMON, **SIZE)
    layer = model.bert.encoder.layer[1]
    layer.attention = Twice(layer.attention)
    taps = find_taps(model)
    assert taps.attention is None
    assert "attends 4 times in 3 layers" in taps.without_attention
    assert len(taps.states) == 4


@pytest.mark.parametrize(("own", "given"), [(None, 0), (7, 0)])
def test_a_decoder_whose_padding_token_is_not_the_tokenizer_s_is_refused(own: int | None, given: int) -> None:
    """It answers at the last token that is not padding, so it would answer somewhere else."""
    config = {**DECODER, "pad_token_id": own, "bos_token_id": 1, "eos_token_id": 2}
    with pytest.raises(TeacherError, match=f"which is {own} by its config.json and {given} by its tokenizer"):
        find_taps(make("GPT2", **config), given)
