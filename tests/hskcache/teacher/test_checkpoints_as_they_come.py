"""Checkpoints as they come: in parts, in 16 bits, of earlier versions, with tokenizers that pad otherwise or not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hskcache import build, open_cache
from hskcache.errors import TeacherError
from hskcache.teacher.load import load_teacher

Edit = Callable[[Path], None]


def _edited(file: str, change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        change(content)
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return edit


def _in_parts(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def _of_version_4(config: dict[str, Any]) -> None:
    """Keys that transformers 4 wrote and 5 does not."""
    config.pop("dtype", None)
    config |= {"transformers_version": "4.30.2", "torch_dtype": "float32", "position_embedding_type": "absolute"}
    config |= {"gradient_checkpointing": False, "use_cache": True, "_name_or_path": "bert-base-uncased"}


def _padding_nothing(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None


CHECKPOINTS: dict[str, Edit] = {
    "in parts": _in_parts,
    "of transformers 4": _edited("config.json", _of_version_4),
    "padding left": _edited("tokenizer_config.json", lambda config: config.update(padding_side="left")),
    "padding nothing": _padding_nothing,
    "classes in another order": _edited(
        "config.json", lambda config: config.update(id2label=dict(reversed(config["id2label"].items())))
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_answers_as_the_checkpoint_that_it_was(
    name: str, tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    """Hidden states and logits are those of the plain one, to the bit, as padding is ours and on the right."""
    shutil.copytree(tiny_teacher_dir, tmp_path / "other")
    CHECKPOINTS[name](tmp_path / "other")
    caches = [
        open_cache(build(teacher=str(one), data=str(tsv_file), task="sst2", keep="1l_3t", device="cpu", out=out).root)
        for one, out in ((tiny_teacher_dir, tmp_path / "plain.hsk"), (tmp_path / "other", tmp_path / "other.hsk"))
    ]
    plain, other = caches
    assert other.manifest.request.data.label_names == plain.manifest.request.data.label_names
    for row in (0, 41, len(plain) - 1):
        for column, value in plain[row].items():
            assert np.array_equal(value, other[row][column]), column


@pytest.mark.parametrize(("dtype", "off"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_weights_of_16_bits_are_read_as_what_they_are(
    dtype: str, off: float, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_teacher_dir, tmp_path / "half")
    AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir, dtype=getattr(torch, dtype)).save_pretrained(
        tmp_path / "half"
    )
    whole = load_teacher(str(tiny_teacher_dir), "cpu").model.state_dict()
    half = load_teacher(str(tmp_path / "half"), "cpu").model.state_dict()
    for name, weight in whole.items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], weight, rtol=off, atol=1e-7)
        assert torch.equal(half[name], weight.to(getattr(torch, dtype)).float())


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8"])
def test_quantised_weights_are_refused_by_name(method: str, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_teacher_dir, tmp_path / "few")
    settings = {"quant_method": method, "load_in_8bit": True, "bits": 4}
    _edited("config.json", lambda config: config.update(quantization_config=settings))(tmp_path / "few")
    with pytest.raises(TeacherError, match=rf"quantised \({method}, .* give the checkpoint that they were made from"):
        load_teacher(str(tmp_path / "few"), "cpu")
