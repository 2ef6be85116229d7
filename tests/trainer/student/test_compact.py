import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging

from hskcache.encoder import weights_digest
from hskcache.teacher.taps import find_taps
from trainer.student import CompactBertConfig, CompactBertForSequenceClassification, CompactBertModel

ROOT = Path(__file__).resolve().parents[3]
BERT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
}
# Three heads of 8 in a width of 32, which BERT itself cannot divide by three, and a factored embedding.
COMPACT = BERT | {"num_attention_heads": 3, "head_size": 8, "embedding_rank": 5}
IDS = torch.arange(1, 15).reshape(2, 7)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])


@pytest.fixture(autouse=True)
def no_bars() -> None:
    logging.disable_progress_bar()


def compact(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return CompactBertForSequenceClassification(CompactBertConfig(**COMPACT | changes)).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, attention_mask=MASK).logits


def test_rosita_s_parameters_are_those_counted_by_hand() -> None:
    """[MUD 4.1]: 6 layers, 2 heads of 64, width 768, FFN 768, embedding rank 128, BERT's vocabulary of 30522."""
    config = CompactBertConfig(num_hidden_layers=6, num_attention_heads=2, intermediate_size=768, embedding_rank=128)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    norm, dense = 2 * 768, 768 * 768 + 768
    embeddings = 30522 * 128 + 128 * 768 + 512 * 768 + 2 * 768 + norm
    attention = 3 * (768 * 128 + 128) + (128 * 768 + 768) + norm
    feed_forward = 2 * dense + norm
    assert model.num_parameters() == embeddings + 6 * (attention + feed_forward) + dense + (768 * 2 + 2) == 14_465_282


def test_with_bert_s_sizes_it_is_bert() -> None:
    """The names of all weights are BERT's, and so are the outputs, bit for bit."""
    torch.manual_seed(1)
    bert = BertForSequenceClassification(BertConfig(**BERT, num_labels=3)).eval()
    ours = CompactBertForSequenceClassification(CompactBertConfig(**BERT, head_size=8, num_labels=3)).eval()
    ours.load_state_dict(bert.state_dict(), strict=True)
    with torch.no_grad():
        expected = bert(IDS, attention_mask=MASK, output_hidden_states=True)
        found = ours(IDS, attention_mask=MASK, output_hidden_states=True)
    assert torch.equal(found.logits, expected.logits)
    assert len(found.hidden_states) == 3
    for state, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(state, other)


@pytest.mark.parametrize("rank", [5, None])
def test_saving_and_loading_gives_the_same_outputs_bit_for_bit(rank: int | None, tmp_path: Path) -> None:
    model = compact(embedding_rank=rank, num_labels=3)
    model.save_pretrained(tmp_path)
    for kind in (AutoModelForSequenceClassification, CompactBertForSequenceClassification):
        again = kind.from_pretrained(tmp_path)
        assert type(again) is CompactBertForSequenceClassification
        assert torch.equal(logits(again), logits(model))
        assert weights_digest(again) == weights_digest(model)
    assert (again.config.head_size, again.config.embedding_rank, again.config.num_labels) == (8, rank, 3)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is CompactBertModel
    with torch.no_grad():
        states = encoder(IDS, attention_mask=MASK).last_hidden_state
        assert torch.equal(states, model.bert(IDS, attention_mask=MASK).last_hidden_state)


def test_another_program_loads_it_after_importing_the_package(tmp_path: Path) -> None:
    compact().save_pretrained(tmp_path)
    script = (
        "import sys, trainer.student\n"
        "from transformers import AutoModel, AutoModelForSequenceClassification\n"
        "for kind in (AutoModel, AutoModelForSequenceClassification):\n"
        "    print(type(kind.from_pretrained(sys.argv[1])).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["CompactBertModel", "CompactBertForSequenceClassification"]


def test_every_layer_attends_once_through_the_attention_interface() -> None:
    """A registered function sees the queries of all heads and the scaling of their size."""
    seen: list[tuple[Any, ...]] = []

    def watch(module: nn.Module, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((module.layer_idx, tuple(query.shape), kwargs["scaling"]))
        return sdpa_attention_forward(module, query, *args, **kwargs)

    AttentionInterface.register("watching", watch)
    AttentionMaskInterface.register("watching", sdpa_mask)
    model = compact()
    expected = logits(model)
    model.set_attn_implementation("watching")
    assert torch.equal(logits(model), expected)
    assert seen == [(layer, (2, 3, 7, 8), 8**-0.5) for layer in range(2)]
    model.set_attn_implementation("eager")
    torch.testing.assert_close(logits(model), expected)
    assert [tuple(one.shape) for one in model(IDS, output_attentions=True).attentions] == [(2, 3, 7, 7)] * 2


def test_its_hidden_states_and_attention_can_be_captured() -> None:
    """The probe of every teacher finds all of it."""
    taps = find_taps(compact())
    assert (len(taps.states), taps.attention) == (3, "queries")


def test_the_word_table_is_the_input_embedding() -> None:
    model = compact()
    table = model.get_input_embeddings()
    assert table.weight.shape == (40, 5)
    with torch.no_grad():
        again = model(inputs_embeds=table(IDS), attention_mask=MASK).logits
    assert torch.equal(again, logits(model))
    before = logits(model)
    model.resize_token_embeddings(44, mean_resizing=False)
    assert model.get_input_embeddings().weight.shape == (44, 5)
    assert torch.equal(logits(model), before)


def test_training_reaches_every_parameter() -> None:
    model = compact().train()
    model(IDS, attention_mask=MASK, token_type_ids=MASK, labels=torch.tensor([0, 1])).loss.backward()
    untouched = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    # The same number added to all keys of a query leaves its softmax as it is.
    assert [name for name in untouched if not name.endswith("key.bias")] == []


def test_random_weights_are_drawn_as_bert_draws_them() -> None:
    model, bert = compact(), BertModel(BertConfig(**BERT))
    for name in ("word_embeddings.weight", "word_expansion.weight"):
        assert model.bert.embeddings.get_parameter(name).std().item() == pytest.approx(0.2, rel=0.25)
    assert not model.bert.embeddings.word_embeddings.weight[0].any()
    for layer in model.bert.encoder.layer:
        assert layer.attention.self.query.weight.shape == (24, 32)
        assert layer.attention.self.query.weight.std().item() == pytest.approx(0.2, rel=0.1)
        assert not layer.attention.output.dense.bias.any()
    assert [type(module) for module in bert.pooler.modules()] == [
        type(module) for module in model.bert.pooler.modules()
    ]


def test_a_config_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="head_size"):
        CompactBertConfig(head_size="wide")
