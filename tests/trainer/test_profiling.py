"""Parameters and FLOPs against BERT's own formulas, and the clock against sides whose speed is known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tiny import config_file
from transformers import AutoModelForSequenceClassification

from trainer.cli import main
from trainer.profiling import SHAPES, open_side
from trainer.student import CompactBertConfig
from trainer.timing import Times, alternate


def profile(*args: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, args), "--device", "cpu"], catch_exceptions=False)


def facts(*args: object) -> Any:
    result = profile(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def bert_parameters(layers: int, width: int, ffn: int, vocabulary: int = 30522) -> int:
    embeddings = (vocabulary + 512 + 2) * width + 2 * width
    layer = 4 * (width * width + width) + 2 * width * ffn + ffn + width + 4 * width
    return embeddings + layers * layer + width * width + width + 2 * width + 2


def bert_flops(length: int, layers: int, width: int, ffn: int, attention: int | None = None) -> int:
    """Two for each product and sum: four matrices, the products of queries, keys and values, and the two of the FFN."""
    attention = width if attention is None else attention
    layer = 2 * length * (4 * width * attention + 2 * width * ffn) + 4 * length**2 * attention
    return layers * layer + 2 * width * width + 2 * width * 2


def test_shapes_have_the_sizes_of_the_papers() -> None:
    """Exactly, by BERT's formulas; TinyBERT4 is 7.5 times smaller than BERT-base [TinyBERT, Table 1]."""
    small = facts("tinybert4", "--against", "bert-base", "--no-speed", "--lengths", "16,128")
    tiny, base = small["model"], small["against"]
    assert (tiny["num_parameters"], base["num_parameters"]) == (
        bert_parameters(4, 312, 1200),
        bert_parameters(12, 768, 3072),
    )
    assert round(base["num_parameters"] / tiny["num_parameters"], 1) == 7.6
    assert (tiny["num_bytes"], tiny["on_disk"]) == (4 * tiny["num_parameters"], False)
    for length in (16, 128):
        assert tiny["flops"][str(length)] == bert_flops(length, 4, 312, 1200)
        assert base["flops"][str(length)] == bert_flops(length, 12, 768, 3072)
    assert small["speed"] == []


def test_two_heads_and_a_factored_embedding_count_as_such() -> None:
    side = open_side("rosita6", "cpu")
    # What expands the embedding's rank is a product, too.
    assert side.flops(32) == bert_flops(32, 6, 768, 768, attention=128) + 2 * 32 * 128 * 768
    embeddings = 30522 * 128 + 128 * 768 + (512 + 2) * 768 + 2 * 768
    layer = 3 * (768 * 128 + 128) + 128 * 768 + 768 + 2 * 768 * 768 + 2 * 768 + 4 * 768
    assert side.num_parameters == embeddings + 6 * layer + 768 * 768 + 768 + 2 * 768 + 2
    assert SHAPES["rosita6"]["num_hidden_layers"] == side.model.config.num_hidden_layers == 6


def test_layers_that_lost_everything_cost_nothing(tmp_path: Path) -> None:
    """A student that was pruned over all layers has layers without heads or neurons, which only pass on a bias."""
    heads, neurons = [1, 0, 2, 0], [0, 3, 5, 0]
    config = CompactBertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=5,
        head_size=4,
        heads_by_layer=heads,
        neurons_by_layer=neurons,
    )
    config.save_pretrained(tmp_path)
    found = facts(tmp_path, "--lengths", "6", "--batch-sizes", "2", "--repetitions", 1)
    layers = sum(bert_flops(6, 1, 16, ffn, attention=4 * num) for num, ffn in zip(heads, neurons, strict=True))
    # The pooler and the classifier are there once.
    assert found["model"]["flops"]["6"] == layers - 3 * bert_flops(6, 0, 16, 0)
    assert found["speed"][0]["rows_a_second"]["model"] > 0


def test_a_checkpoint_is_weighed_on_disk_and_left_as_it_was(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    found = facts(tiny_teacher_dir, "--against", config_file(tmp_path), "--no-speed", "--lengths", "8")
    assert found["model"]["num_bytes"] == (tiny_teacher_dir / "model.safetensors").stat().st_size
    assert found["model"]["flops"]["8"] == bert_flops(8, 4, 32, 64)
    side = open_side(str(tiny_teacher_dir), "cpu")
    side.flops(8)
    assert side.model.config._attn_implementation == "sdpa"
    ids = side.ids(2, 8)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir).eval()
    with torch.inference_mode():
        torch.testing.assert_close(side.model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_every_setting_is_timed_for_both_sides(tmp_path: Path) -> None:
    """A row's seconds are those of a pass over so many; the table has a line for each setting."""
    one, two = config_file(tmp_path), config_file(tmp_path, num_hidden_layers=1)
    given = ("--against", two, "--lengths", "4,8", "--batch-sizes", "1,3", "--repetitions", 1)
    found = facts(one, *given)
    assert [(speed["length"], speed["batch_size"]) for speed in found["speed"]] == [(4, 1), (4, 3), (8, 1), (8, 3)]
    for speed in found["speed"]:
        for name, rate in speed["rows_a_second"].items():
            assert rate == pytest.approx(1 / speed["seconds_a_row"][name][0])
        assert speed["times_as_fast"] == pytest.approx(
            speed["rows_a_second"]["model"] / speed["rows_a_second"]["against"]
        )


def test_sides_take_turns_and_ratios_are_of_medians() -> None:
    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    times = alternate(sides, repetitions=2)
    assert "".join(order) == "ba" + "ab" + "ba"
    assert times.repetitions == 2
    fixed = Times({"a": [4.0, 6.0, 20.0], "b": [2.0, 2.0, 4.0]})
    assert (fixed.ratio("a", "b"), fixed.spread("a", "b")) == (3.0, (2.5, 4.0))


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("tinybert5",), "do you mean 'tinybert"),
        (("./nothing",), "no file or folder"),
        (("tinybert4", "--lengths", "513", "--no-speed"), "tinybert4 has 512 positions"),
        (("tinybert4", "--lengths", "0"), "--lengths '0': give whole numbers from 1"),
        (("tinybert4", "--batch-sizes", "1;2"), "--batch-sizes '1;2'"),
    ],
)
def test_a_mistake_ends_in_one_line(args: tuple[str, ...], complaint: str) -> None:
    result = profile(*args)
    assert result.exit_code == 2
    assert complaint in result.stderr.splitlines()[-1]
    assert result.stdout == ""
