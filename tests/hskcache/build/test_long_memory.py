"""Rows of thousands of tokens are read in batches that fit into the memory that is told before."""

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from forked import in_child
from models import saved

from hskcache.build.build import build
from hskcache.build.job import Job, prepare_job
from hskcache.build.memory import measure_memory
from hskcache.cache import open_cache
from hskcache.spec import Depth, Hidden, Length, Spec
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import Examples, TokenizedRows

HEADS = 2


@pytest.fixture(scope="module")
def long_teacher(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A BERT of one layer that reads 8,192 tokens."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": HEADS, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, pad_token_id=0, **sizes)
    folder = tmp_path_factory.mktemp("long")
    saved(lambda: transformers.BertForSequenceClassification(config), tokenizer, folder)
    return load_teacher(str(folder), "cpu")


def job_of_lengths(teacher: Teacher, lengths: list[int], score: str = "attention", token_budget: int = 4096) -> Job:
    """Rows of random tokens of some lengths, of which four positions of the last layer are kept."""
    ids = np.random.default_rng(0).integers(5, 30, sum(lengths)).astype(np.int32)
    rows = TokenizedRows(ids, np.cumsum([0, *lengths]), None, frozenset({0, 2, 3}))
    examples = Examples(["a"] * len(lengths), None, None, ("0", "1"), "classification", "rows", None, "0" * 64)
    hidden = Hidden(depth=Depth(student_layers=1, num_layers=1), length=Length(tokens=4, score=score))
    return prepare_job(teacher, examples, rows, Spec(hidden=hidden, max_length=8192, token_budget=token_budget))


def growth(work: Callable[[], object]) -> int:
    """Bytes by which the resident memory of a forked child grows while it works."""
    # What earlier tests freed is kept by the allocator, and a child would work in it without growing.
    ctypes.CDLL(None).malloc_trim(0)
    read, write = os.pipe()

    def measured() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(write, str((after - before) * 1024).encode())

    assert in_child(measured) == 0
    return int(os.read(read, 32))


def test_a_build_takes_the_memory_that_is_told(long_teacher: Teacher, tmp_path: Path) -> None:
    """With a budget that reads two long rows at once, the shorter padded, attention has a mask of L by L numbers."""
    job = job_of_lengths(long_teacher, [30, 4096, 4095, 700], token_budget=70_000)
    told = measure_memory(job)
    assert told is not None
    assert (told.batch_rows, told.batch_length) == (2, 4096)
    assert told.batch > 2 * 4 * 4096**2
    grown = growth(lambda: build(job, tmp_path / "c"))
    assert open_cache(tmp_path / "c").num_rows == 4
    # Libraries touch some pages of their own on their first use, and freed memory is not all taken up again.
    assert told.batch < 1.1 * grown
    assert grown < 1.5 * (told.batch + told.held) + (40 << 20)


def test_a_row_of_8192_tokens_takes_a_batch_of_its_own_and_no_table_of_its_attention(long_teacher: Teacher) -> None:
    told = measure_memory(job_of_lengths(long_teacher, [8192, 8000, 30]))
    assert told is not None
    assert (told.batch_rows, told.batch_length) == (1, 8192)
    assert told.batch < 8192**2 / 4


def test_attention_received_is_looked_at_some_queries_at_a_time(long_teacher: Teacher) -> None:
    told = measure_memory(job_of_lengths(long_teacher, [2048], "received"))
    assert told is not None
    assert 4 * HEADS * 512 * 2048 < told.batch < 2 * 4 * HEADS * 2048**2


def test_no_batch_looks_at_more_attention_than_one_of_rows_of_512_tokens_would(long_teacher: Teacher) -> None:
    """Eight rows of 512 fill the budget; of rows of 1,024 and of 1,400 tokens two and one do."""
    found = {}
    for length in (512, 1024, 1400):
        told = measure_memory(job_of_lengths(long_teacher, [length] * 8, "received"))
        assert told is not None
        found[length] = (told.batch_rows, told.batch)
    assert [rows for rows, _ in found.values()] == [8, 2, 1]
    assert max(taken for _, taken in found.values()) == found[512][1]


def test_scores_received_from_the_queries_of_a_long_row_are_those_of_the_eager_model(long_teacher: Teacher) -> None:
    """Queries are looked at some at a time: the positions that are kept are those that all of them rank best."""
    job = job_of_lengths(long_teacher, [1300, 1200], "received")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        long_teacher.info.name, attn_implementation="eager"
    ).eval()
    expected = []
    for row in range(2):
        ids = torch.from_numpy(job.rows.input_ids[job.rows.offsets[row] : job.rows.offsets[row + 1]].astype(np.int64))
        with torch.inference_mode():
            (maps,) = model(input_ids=ids[None], output_attentions=True).attentions
        expected.append(maps.mean((1, 2))[0].topk(4).indices.tolist())
    assert kept_positions(job) == expected


def kept_positions(job: Job) -> list[list[int]]:
    from hskcache.build.constants import extractor_for

    extractor = extractor_for(job)
    (selected,) = (
        found for kind, found in extractor.knowledge(*extractor.batch(np.arange(2))).items() if kind == "hidden"
    )
    positions: Any = selected[1].positions_P
    kept: list[list[int]] = positions.reshape(2, 4).tolist()
    return kept
