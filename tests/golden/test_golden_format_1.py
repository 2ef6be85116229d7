"""Format version 1 as it was first written: these files must be read to the same values by every later version.

What they hold was typed in twice, here and in write.py; nothing writes the files again.
"""

from pathlib import Path

import numpy as np
import pytest

from hskcache.cache import Cache, HiddenField, InputsField, LogitsField, open_cache
from hskcache.verify import verify

ROOT = Path(__file__).resolve().parent / "tiny.hsk"
CACHE_ID = "6eb1c9a13203d040368a08dcc7c770d6644bf50940c74080046b3f2d4c996b63"
REQUEST_DIGEST = "6bce8770bf88e97ab595902bb440d6873e1f991be2650fe33cb111475ea9b92d"


@pytest.fixture(scope="module")
def cache() -> Cache:
    return open_cache(ROOT)


def test_golden_files_are_all_there_and_whole() -> None:
    assert verify(ROOT).problems == []
    assert len([path for path in ROOT.rglob("*") if path.is_file()]) == 29


def test_digests_are_computed_as_they_were(cache: Cache) -> None:
    """A change of either would part every cache from its checkpoints, and every build from its resumption."""
    assert cache.id == CACHE_ID
    assert cache.manifest.request.digest == REQUEST_DIGEST


def test_description_is_read(cache: Cache) -> None:
    request = cache.manifest.request
    assert request.spec.hidden is not None
    assert (request.spec.hidden.width.fraction, request.spec.hidden.length.tokens) == (0.2, 2)
    assert (request.spec.hidden.encoding, request.spec.max_length) == ("int8", 8)
    assert (request.teacher.name, request.teacher.num_layers, request.teacher.config["layer_norm_eps"]) == (
        "golden/teacher",
        4,
        1e-12,
    )
    assert (request.data.name, request.data.problem, request.data.label_names) == (
        "golden.tsv",
        "classification",
        ["0", "1"],
    )
    assert [(kept.student, kept.teacher) for kept in request.layers] == [(1, 2), (2, 4)]
    assert cache.shards == [(0, 2), (2, 4), (4, 5)]
    assert cache.fields == {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=True),
        "logits": LogitsField(num_labels=2),
        "hidden": HiddenField(width=16, num_columns=3, columns="bitmask", encoding="int8", layers=[2, 4], max_tokens=2),
        "hidden_uniform": HiddenField(
            width=16, num_columns=3, columns="shared", encoding="bfloat16", layers=[4], max_tokens=1
        ),
    }
    assert cache.manifest.environment == {"hskcache": "0.1.0", "device": "none"}
    assert (cache.tokenizer_path / "vocab.txt").read_text().split()[:3] == ["[PAD]", "[UNK]", "[CLS]"]


def test_inputs_are_read(cache: Cache) -> None:
    arrays = cache.read("inputs", 1)
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "input_ids": ("uint16", [2, 7, 4, 6, 3, 2, 3]),
        "token_type_ids": ("uint8", [0, 0, 0, 1, 1, 0, 1]),
        "row_offsets": ("int64", [0, 5, 7]),
        "row_ids": ("int64", [2, 3]),
        "labels": ("int64", [1, 0]),
    }


def test_logits_are_read(cache: Cache) -> None:
    logits = np.concatenate([cache.read("logits", shard)["logits"] for shard in range(3)])
    assert logits.dtype == np.float32
    assert logits.tolist() == [[0.5, 0], [1.5, -1], [2.5, -2], [3.5, -3], [4.5, -4]]


def test_hidden_states_are_read(cache: Cache) -> None:
    arrays = cache.read("hidden", 2)
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "position_offsets": ("int64", [0, 2]),
        "layer_02/positions": ("uint16", [0, 1]),
        "layer_02/values": ("int8", [[-8, 104, 127], [-8, 104, 127]]),
        "layer_02/scales": ("float32", [0.625, 0.625]),
        "layer_02/bitmask": ("uint8", [[0b0001_0000, 0b0100_0010], [0b0001_0000, 0b0100_0010]]),
        "layer_04/positions": ("uint16", [0, 1]),
        "layer_04/values": ("int8", [[-16, 104, 127], [-16, 104, 127]]),
        "layer_04/scales": ("float32", [0.625, 0.625]),
        "layer_04/bitmask": ("uint8", [[0b0001_0000, 0b0100_0010], [0b0001_0000, 0b0100_0010]]),
    }


def test_constants_and_bfloat16_bits_are_read(cache: Cache) -> None:
    assert cache.constants("hidden_uniform")["layer_04/columns"].tolist() == [0, 5, 10]
    values = cache.read("hidden_uniform", 0)["layer_04/values"]
    bits = values.view(np.uint16).astype(np.uint32) << 16
    assert bits.view(np.float32).tolist() == [[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]]
