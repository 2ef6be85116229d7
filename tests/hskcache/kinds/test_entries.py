"""An encoding and a score that tests add to their tables are built with, read and audited like any other."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commanded import parsed, run
from torch import Tensor

from hskcache.cache import open_cache
from hskcache.encoded import ENCODED, EncodedForm
from hskcache.encoding import ENCODINGS, symmetric
from hskcache.encoding.abc import gathered
from hskcache.selection.scores import SCORED, RowScore
from hskcache.spec import SCORES, Admitted
from trainer.loading import KnowledgeLoader


class Int6:
    """Integers -31 to 31, a byte each, with a scale under another name than those of int8."""

    name = "int6"

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        levels, scales = symmetric.quantise(values, 31)
        return {"values": levels, "steps": scales}

    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        return symmetric.dequantise(parts["values"], parts["steps"])

    def take(self, parts: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
        return gathered(parts, columns)

    def bound(self, values: Tensor) -> Tensor:
        return symmetric.bound(values, 31)


@contextmanager
def entries(word: str, *places: tuple[dict[str, Any], Any]) -> Iterator[None]:
    for table, entry in places:
        table[word] = entry
    try:
        yield
    finally:
        for table, _ in places:
            del table[word]


def build(teacher: Path, data: Path, out: Path, *flags: str) -> Any:
    given = ("--teacher", teacher, "--data", data, "--task", "sst2", "--device", "cpu", "--shard-rows", "40")
    kept = ("--keep", "2l_4t_0.5h", "--attention", "2l_4t", "--student-layers", "2")
    return run("build", *given, *kept, *flags, "--out", out)


@pytest.mark.parametrize("width", ["magnitude", "pca"])
def test_an_encoding_that_is_added(width: str, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    places = (
        (ENCODED, EncodedForm("int8", "int6", "integers times steps", beside={"steps": "float32"})),
        (ENCODINGS, Int6()),
    )
    with entries("int6", *places):
        spec = tmp_path / "spec.yaml"
        spec.write_text("hidden: {encoding: int6}\nattention: {encoding: int6}\n")
        result = build(tiny_teacher_dir, tsv_file, cache, "--spec", str(spec), "--width", width)
        assert result.exit_code == 0, result.output
        assert parsed("verify", cache, "--deep")["ok"]
        assert parsed("audit", cache, "--teacher", tiny_teacher_dir, "--device", "cpu", "--rows", "20")["ok"]
        assert run("export", cache, tmp_path / "c.h5").exit_code == 0
        assert run("import", tmp_path / "c.h5", tmp_path / "again").exit_code == 0
        batch = next(iter(KnowledgeLoader(open_cache(cache), batch_size=8)))
        stored = open_cache(cache).read("hidden", 0)
        assert stored["layer_04/steps"].dtype == np.float32
        assert batch.hidden[4].values_PW.isfinite().all()
        assert batch.attention[4].scores_BHKK.isfinite().all()
    result = run("info", cache)
    assert result.exit_code == 2
    assert "int6" in result.stderr
    assert "int4" in result.stderr


def test_a_score_that_is_added(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    """The largest token ids of a row are kept."""
    cache = tmp_path / "c"
    places = ((SCORES, Admitted()), (SCORED, RowScore(lambda rows: rows.input_ids_BL.float())))
    with entries("largest-id", *places):
        spec = tmp_path / "spec.yaml"
        spec.write_text("hidden: {length: {score: largest-id}}\nattention: {length: {score: largest-id}}\n")
        result = build(tiny_teacher_dir, tsv_file, cache, "--spec", str(spec))
        assert result.exit_code == 0, result.output
        row = open_cache(cache).row(5)
        best = torch.from_numpy(row["input_ids"].astype(np.int64)).argsort(descending=True, stable=True)[:4]
        assert row["hidden"][4]["positions"].tolist() == best.tolist()
        assert parsed("audit", cache, "--teacher", tiny_teacher_dir, "--device", "cpu", "--rows", "20")["ok"]
    assert run("info", cache).exit_code == 2


def test_a_word_that_is_near_a_score_is_told_it(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("hidden: {length: {score: atention}}\n")
    told = build(tiny_teacher_dir, tsv_file, tmp_path / "c", "--spec", str(spec)).stderr
    assert "hidden.length.score: Input should be 'attention', 'attention-logit'" in told
    assert "do you mean 'attention'?" in told
