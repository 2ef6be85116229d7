"""Knowledge of next tokens as it is stored, through the loader to the loss."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import llama
from numpy.typing import NDArray
from spoken import Rows, places_of, write

from hskcache.cache import Cache
from hskcache.encoding import get_encoding
from hskcache.errors import DamageError
from hskcache.store.kinds.vocabulary import VocabularyField
from trainer.batch import Batch, DrawnTarget, StatesTarget, TopTarget
from trainer.loading import KnowledgeLoader
from trainer.loading.kinds.vocabulary import whole
from trainer.recipe import Losses
from trainer.source.objective import Objective
from trainer.student.create import seeded

LARGE = 151_669
LENGTHS = (9, 2, 17, 5, 12, 1, 24)
ROWS: Rows = [[3 + (row * 7 + place) % 200 for place in range(length)] for row, length in enumerate(LENGTHS)]
# Prompts and what follows them; of the second row and the sixth nothing is to be predicted.
MASKS: Rows = [[int(place > length // 2 and row != 1) for place in range(length)] for row, length in enumerate(LENGTHS)]


def packed(high_PK: NDArray[np.int64], num_bits: int) -> NDArray[np.uint8]:
    """High bits one after the other, the lowest first, written out bit by bit."""
    lines = []
    for row in high_PK.tolist():
        bits = [value >> bit & 1 for value in row for bit in range(num_bits)]
        bits += [0] * (-len(bits) % 8)
        lines.append(
            [sum(one << place for place, one in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)]
        )
    return np.array(lines, np.uint8)


def ids_of(name: str, ids_PK: NDArray[np.int64], vocab_size: int) -> dict[str, NDArray[Any]]:
    num_bits = max(0, (vocab_size - 1).bit_length() - 16)
    low = {name: (ids_PK & 0xFFFF).astype(np.uint16)}
    return low | ({f"{name}_high": packed(ids_PK >> 16, num_bits)} if num_bits else {})


def numbers(count: int) -> dict[str, NDArray[Any]]:
    """Those that every form has, each position another; the token that stands there is none of those that are kept."""
    return {
        "log_z": (10 + np.arange(count) / 8).astype(np.float16),
        "gold": (-12 - np.arange(count) / 16).astype(np.float16),
    }


def stored(form: str, targets: Rows | None, vocab_size: int) -> tuple[VocabularyField, dict[str, NDArray[Any]], Any]:
    """A field, the arrays of all positions with a target, and constants."""
    draw, places = np.random.default_rng(1), places_of(ROWS, targets)
    count = sum(map(len, places))
    if form == "head":
        field = VocabularyField(
            form="head",
            vocab_size=vocab_size,
            width=6,
            encoding="int8",
            head_dtype="bfloat16",
            has_bias=True,
            scale=0.5,
        )
        values = get_encoding("int8").encode(torch.from_numpy(draw.normal(size=(count, 6))).float())
        weight = torch.from_numpy(draw.normal(size=(vocab_size, 7))).to(torch.bfloat16).view(torch.int16).numpy()
        arrays = {name: tensor.numpy() for name, tensor in values.items()}
        constants = {"weight": weight[:, :6].copy(), "bias": weight[:, 6].copy()}
        head_V7 = torch.from_numpy(weight).view(torch.bfloat16).float()
        logits = 0.5 * (get_encoding("int8").decode(values, 6) @ head_V7[:, :6].T + head_V7[:, 6])
        log_z = logits.logsumexp(1)
        tokens = [row[place + 1] for row, own in zip(ROWS, places, strict=True) for place in own]
        gold = logits[torch.arange(count), tokens] - log_z
        return field, {"log_z": log_z.half().numpy(), "gold": gold.half().numpy()} | arrays, constants
    kept = 5
    field = VocabularyField(form=form, vocab_size=vocab_size, count=kept)  # type: ignore[arg-type]
    ids = draw.integers(204, vocab_size, (count, kept))
    if form == "sampled":
        ids.sort(1)
        return field, numbers(count) | ids_of("gaps", np.diff(ids, axis=1, prepend=0), vocab_size), None
    steps = draw.integers(0, 40, (count, kept - 1)).astype(np.uint8)
    ranges = draw.uniform(0.5, 9, count).astype(np.float16)
    tails = np.log(draw.uniform(0.01, 0.9, count)).astype(np.float16)
    arrays = {"steps": steps, "ranges": ranges, "log_tail": tails} | ids_of("ids", ids, vocab_size)
    return field, numbers(count) | arrays, None


def at(batch: Batch, places: list[list[int]]) -> list[int]:
    """Number of each position of a batch among all of the cache, in the order in which they are stored."""
    target, width = batch.targets["vocabulary"], batch.inputs["input_ids"].shape[1]
    begin = np.cumsum([0, *map(len, places)])
    found = []
    for index in target.index_T.tolist():
        row, position = batch.row_ids[index // width], index % width
        found.append(int(begin[row]) + places[row].index(position))
    return found


@pytest.mark.parametrize("residency", ["host", "stream", "device"])
@pytest.mark.parametrize("targets", [None, MASKS], ids=["text", "completions"])
@pytest.mark.parametrize(("form", "vocab_size"), [("top", 264), ("top", LARGE), ("sampled", LARGE), ("head", 264)])
def test_what_is_stored_arrives(form: str, vocab_size: int, targets: Any, residency: Any, tmp_path: Path) -> None:
    places = places_of(ROWS, targets)
    count = sum(map(len, places))
    field, arrays, constants = stored(form, targets, vocab_size)
    cache = write(tmp_path / "cache", ROWS, field, arrays, targets, constants)
    seen = []
    for batch in KnowledgeLoader(cache, batch_size=3, residency=residency):
        target, numbered = batch.targets["vocabulary"], at(batch, places)
        seen += numbered
        np.testing.assert_array_equal(target.log_z_T, arrays["log_z"][numbered].astype(np.float32))
        np.testing.assert_array_equal(target.gold_T, arrays["gold"][numbered].astype(np.float32))
        assert batch.answered is not None
        # Whatever is a target is kept here, so the places are those of the text.
        torch.testing.assert_close(batch.answered, target.index_T)
        assert batch.num_answers == max(1, sum(len(places[row]) for row in batch.row_ids))
        check_known(target, {name: array[numbered] for name, array in arrays.items()}, field, constants)
    assert sorted(seen) == list(range(count))


def check_known(target: Any, arrays: dict[str, NDArray[Any]], field: VocabularyField, constants: Any) -> None:
    match target:
        case TopTarget():
            np.testing.assert_array_equal(target.ids_TK, unpacked("ids", arrays, field))
            codes = np.cumsum(np.pad(arrays["steps"].astype(int), ((0, 0), (1, 0))), 1)
            below = -codes / 255 * arrays["ranges"].astype(float)[:, None]
            kept = np.exp(below) / np.exp(below).sum(1, keepdims=True)
            expected = np.log(kept * (1 - np.exp(arrays["log_tail"].astype(float)))[:, None])
            np.testing.assert_allclose(target.logp_TK, expected, rtol=1e-5, atol=1e-6)
        case DrawnTarget():
            np.testing.assert_array_equal(target.ids_TK, unpacked("gaps", arrays, field).cumsum(1))
        case StatesTarget():
            parts = {name: torch.from_numpy(arrays[name]) for name in ("values", "scales")}
            torch.testing.assert_close(target.states_TD, get_encoding("int8").decode(parts, 6))
            head = [torch.from_numpy(constants[name]).view(torch.bfloat16) for name in ("weight", "bias")]
            torch.testing.assert_close([target.head.weight_VD, target.head.bias_V], head, rtol=0, atol=0)
            assert (target.head.scale, target.head.softcap) == (0.5, None)


def unpacked(name: str, arrays: dict[str, NDArray[Any]], field: VocabularyField) -> NDArray[np.int64]:
    ids = arrays[name].astype(np.int64)
    if field.high_bits:
        bits = np.unpackbits(arrays[f"{name}_high"], axis=1, bitorder="little")
        bits = bits[:, : ids.shape[1] * field.high_bits].reshape(*ids.shape, field.high_bits).astype(np.int64)
        ids += (bits << np.arange(16, 16 + field.high_bits)).sum(2)
    return ids


def test_high_bits_are_packed_lowest_first() -> None:
    # 2 bits each: 1, 2, 3, 0 and 1 make 0b00111001 and 0b01.
    low = torch.tensor([[7, 0, 65_535, 1, 2]]).to(torch.uint16)
    high = torch.tensor([[0b00111001, 0b01]], dtype=torch.uint8)
    expected = [7 + (1 << 16), 2 << 16, 65_535 + (3 << 16), 1, 2 + (1 << 16)]
    assert whole(low, high, 2).tolist() == [expected]


def test_knowledge_of_what_is_no_target_is_refused(tmp_path: Path) -> None:
    field, arrays, _ = stored("top", None, 264)
    cache = write(tmp_path / "cache", ROWS, field, arrays)
    fewer = write(tmp_path / "fewer", ROWS, *stored("top", MASKS, 264)[:2], MASKS)
    loader = KnowledgeLoader(fewer, batch_size=3)
    mixed = replace(loader.reader, cache=_Mixed(cache, fewer))  # type: ignore[arg-type]
    with pytest.raises(DamageError, match=r"vocabulary shard 0 .* which is no target"):
        mixed.read([0])


def test_knowledge_that_is_off_by_one_is_refused_when_it_is_read(tmp_path: Path) -> None:
    field, arrays, constants = stored("head", None, 264)
    moved = arrays | {name: np.roll(arrays[name], 1) for name in ("log_z", "gold")}
    cache = write(tmp_path / "cache", ROWS, field, moved, None, constants)
    with pytest.raises(DamageError, match="vocabulary shard 0"):
        next(iter(KnowledgeLoader(cache, batch_size=3)))


class _Mixed:
    """The next tokens of one cache beside the rows of another."""

    def __init__(self, knowledge: Cache, rows: Cache) -> None:
        self.knowledge, self.rows = knowledge, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def read(self, field: str, *args: Any) -> Any:
        return (self.knowledge if field == "vocabulary" else self.rows).read(field, *args)


def uniform_student() -> Any:
    """Three token ids, each as likely as the others whatever stands before."""
    with seeded(0):
        model = llama(vocab_size=3, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    return model.eval()


def top_of(kept: tuple[float, float], log_tail: float, vocab_size: int) -> tuple[VocabularyField, dict[str, Any]]:
    """The log p of the tokens 0 and 1 at one position, and of all others together."""
    arrays = {
        "ids": np.array([[0, 1]], np.uint16),
        "steps": np.array([[255]], np.uint8),
        "ranges": np.array([kept[0] - kept[1]], np.float16),
        "log_tail": np.array([log_tail], np.float16),
        "log_z": np.zeros(1, np.float16),
        "gold": np.array([kept[0]], np.float16),
    }
    return VocabularyField(form="top", vocab_size=vocab_size, count=2), arrays


def test_divergence_of_a_kept_top_from_a_uniform_student(tmp_path: Path) -> None:
    # p = .5, .3, .2: the tail is one token, so that nothing is lost.
    field, arrays = top_of((math.log(0.5), math.log(0.3)), math.log(0.2), 3)
    cache = write(tmp_path / "cache", [[1, 0]], field, arrays)
    (batch,) = KnowledgeLoader(cache, batch_size=1)
    total, _ = Objective(uniform_student(), Losses.model_validate({"next": {}}))(batch)
    # float16 of the tail's logarithm is what is lost.
    assert total.item() == pytest.approx(0.068959, abs=2e-4)


def test_a_teacher_that_is_sure_teaches_what_the_text_says(tmp_path: Path) -> None:
    field, arrays = top_of((0.0, -65_504.0), -65_504.0, 264)
    rows = [[1, 0], [2, 0], [2, 0]]
    same = {name: array.repeat(3, 0) for name, array in arrays.items()}
    cache = write(tmp_path / "cache", rows, field, same)
    (batch,) = KnowledgeLoader(cache, batch_size=3)
    with seeded(0):
        model = llama().eval()
    losses = [Objective(model, Losses.model_validate({name: {"weight": 1.0}}))(batch)[0] for name in ("next", "gold")]
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
