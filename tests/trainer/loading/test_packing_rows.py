"""Rows behind one another in a sequence: where they stand, and that a student learns of them what it learns of each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from language_models import FAMILIES, language_model, llama
from safetensors.torch import load_file
from spoken import Rows, drawn_cache

from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from trainer.cli import main as hsktrain
from trainer.loading import KnowledgeLoader
from trainer.loading.arrangement import packed
from trainer.recipe import Losses
from trainer.source.objective import Objective
from trainer.student.create import seeded
from trainer.student.packing import check_packing

LENGTHS = (9, 2, 17, 5, 12, 2, 24, 3)
ROWS: Rows = [[3 + (row * 7 + place) % 200 for place in range(length)] for row, length in enumerate(LENGTHS)]
MASKS: Rows = [[int(place > length // 3) for place in range(length)] for length in LENGTHS]


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(30, 70))
def test_every_token_stands_in_one_slot_and_sequences_hold_whole_rows(batches: list[list[int]], most: int) -> None:
    lengths = np.array([length for batch in batches for length in batch])
    starts = np.cumsum([0, *map(len, batches)])
    laid = packed(lengths, starts, most)
    sizes = laid.shapes.prod(1)
    assert (laid.shapes[:, 1] <= most).all()
    within, rows = laid.within, np.repeat(laid.row_of, laid.size_of)
    is_own = within < np.repeat(laid.num_of, laid.size_of)
    assert len(rows) == len(within) == len(is_own) == sizes.sum()
    base = np.cumsum(sizes) - sizes
    for row, length in enumerate(lengths):
        batch = int(np.searchsorted(starts, row, side="right")) - 1
        begin = base[batch] + laid.begin[row]
        assert (rows[begin : begin + length] == row).all()
        assert within[begin : begin + length].tolist() == list(range(length))
        assert is_own[begin : begin + length].all()
        sequence = laid.shapes[batch, 1]
        assert laid.begin[row] // sequence == (laid.begin[row] + length - 1) // sequence
    assert is_own.sum() == lengths.sum()
    # Padding sees itself alone: it begins anew, too.
    edges = np.flatnonzero(np.diff(is_own.astype(int)) == -1) + 1
    assert (within[edges] == 0).all()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return drawn_cache(tmp_path / "cache", ROWS, MASKS)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_teach_what_each_in_a_sequence_of_its_own_teaches(family: str, cache: Cache) -> None:
    with seeded(0):
        model = FAMILIES[family]().eval()
    objective = Objective(model, Losses.model_validate({"next": {"weight": 1.0}, "gold": {"weight": 0.5}}))
    found: list[tuple[torch.Tensor, Any]] = []
    for pack in (None, 24, 60):
        (batch,) = KnowledgeLoader(cache, batch_size=8, pack=pack)
        if pack is not None:
            assert "attention_mask" not in batch.inputs
            assert batch.inputs["input_ids"].shape == ({24: 4, 60: 2}[pack], {24: 24, 60: 38}[pack])
        loss, _ = objective(batch)
        found.append((loss, torch.autograd.grad(loss, list(model.parameters()))))
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-5, atol=0)
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_a_student_whose_rows_would_see_each_other_is_refused() -> None:
    with seeded(0):
        model = llama().eval()
    check_packing(model, "small")
    plain = model.forward

    def deaf(*args: Any, **given: Any) -> Any:
        given.pop("position_ids", None)
        return plain(*args, **given)

    model.forward = deaf
    with pytest.raises(MismatchError, match=r"small \(LlamaForCausalLM\) lets rows in one sequence see each other"):
        check_packing(model, "small")


def test_sequences_shorter_than_rows_are_refused(cache: Cache) -> None:
    with pytest.raises(SpecError, match="up to 24 tokens, more than --pack 20; give 24"):
        KnowledgeLoader(cache, batch_size=2, pack=20)


def test_rows_of_a_task_are_not_packed(cache_dir: Path) -> None:
    with pytest.raises(SpecError, match="--pack is for rows of causal language models"):
        KnowledgeLoader(open_cache(cache_dir), batch_size=2, pack=512)


def test_fit_packs(cache: Cache, tmp_path: Path) -> None:
    student = language_model(tmp_path / "student")

    def fit(name: str, *more: object) -> Any:
        given = ("fit", "--cache", cache.root, "--student", student, "--recipe", "lm", "--device", "cpu")
        asked = ("--set", "prediction.batch_size=4", "--out", tmp_path / name, *more)
        return CliRunner().invoke(hsktrain, [str(one) for one in (*given, *asked)])

    weights = []
    for name, more in (("alone", ()), ("packed", ("--pack", 48))):
        done = fit(name, *more)
        assert done.exit_code == 0, done.output
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    for key, one in weights[0].items():
        torch.testing.assert_close(one, weights[1][key], rtol=1e-3, atol=1e-4)
    refused = fit("short", "--pack", 5)
    assert refused.exit_code == 2
    assert "more than --pack 5" in refused.output
