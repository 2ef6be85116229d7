"""A corpus with attention scores as format version 1 was first written: read to the same values by every later version.

What it holds was typed in twice, here and in write_corpus.py; nothing writes the files again.
"""

from pathlib import Path

import pytest
import torch

from hskcache.cache import AttentionField, Cache, InputsField, open_cache, row_offsets
from hskcache.encoding import get_encoding
from hskcache.verify import verify

ROOT = Path(__file__).resolve().parent / "corpus.hsk"
CACHE_ID = "939e5c248ab20e80d69a0bcd54177c659ea21ec763a75407a0790260f006b97b"
REQUEST_DIGEST = "110be235ac38477d5ab73a1adb012976244f5c336fb3cdbc8fd67d69e0b85366"


@pytest.fixture(scope="module")
def cache() -> Cache:
    return open_cache(ROOT)


def test_golden_files_are_all_there_and_whole() -> None:
    assert verify(ROOT).problems == []
    assert len([path for path in ROOT.rglob("*") if path.is_file()]) == 11


def test_digests_are_computed_as_they_were(cache: Cache) -> None:
    assert cache.id == CACHE_ID
    assert cache.manifest.request.digest == REQUEST_DIGEST


def test_description_is_read(cache: Cache) -> None:
    request = cache.manifest.request
    assert (request.data.problem, request.data.label_names, request.spec.hidden) == ("text", [], None)
    assert request.spec.attention is not None
    assert (request.spec.attention.depth.mapping, request.spec.attention.depth.stored) == ("bottom", [2])
    assert [(kept.student, kept.teacher) for kept in request.attention_layers] == [(1, 2)]
    assert request.fields == ("inputs", "attention")
    assert cache.shards == [(0, 2), (2, 3)]
    assert cache.fields == {
        "inputs": InputsField(id_dtype="uint16", has_token_types=True, has_labels=False),
        "attention": AttentionField(
            num_heads=2, heads=[1, 0], teacher_heads=2, encoding="int4", layers=[2], max_tokens=3
        ),
    }


def test_scores_are_read(cache: Cache) -> None:
    """Rows of 3 and 2 positions: 6 vectors of 3 scores in two bytes each, and 4 vectors of 2 in one."""
    arrays = cache.read("attention", 0)
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "position_offsets": ("int64", [0, 3, 5]),
        "layer_02/positions": ("uint16", [2, 1, 0, 1, 0]),
        "layer_02/values": ("uint8", [0xED, 0x0F] * 6 + [0xED] * 4),
        "layer_02/scales": ("float32", [float(scale) for scale in range(1, 11)]),
    }
    row = cache.row(1)["attention"][2]
    parts = {
        "values": torch.from_numpy(row["values"]).view(2, 2, 1),
        "scales": torch.from_numpy(row["scales"]).view(2, 2),
    }
    assert get_encoding("int4").decode(parts, 2).tolist() == [
        [[-21.0, -14.0], [-24.0, -16.0]],
        [[-27.0, -18.0], [-30.0, -20.0]],
    ]
    offsets = row_offsets(cache.fields["attention"], "layer_02/values", arrays)
    assert offsets is not None
    assert offsets.tolist() == [0, 12, 16]


def test_a_row_without_a_task_is_read(cache: Cache) -> None:
    row = cache.row(2)
    assert (row["row_id"], row["input_ids"].tolist()) == (2, [2, 7, 5, 3])
    assert not {"label", "logits", "hidden"} & row.keys()
