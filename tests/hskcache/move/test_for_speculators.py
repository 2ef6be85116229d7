"""A cache of a language model as speculators' trainer reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commanded import run
from language_models import FAMILIES, language_tokenizer
from models import saved

from hskcache.cache import open_cache
from hskcache.errors import TeacherError
from hskcache.teacher.final_norm import before_final_norm
from hskcache.teacher.load import load_language_model

TEXT = "One line of a document.\nAnother line of it.\n\nA second document, longer than a row may be, and so cut in two."


def folder_of(family: str, folder: Path) -> Path:
    """A tiny model whose final norm has weights, and a bias where it can, that are far from 1 and 0."""

    def made() -> Any:
        model = FAMILIES[family]()
        norm = next(module for name, module in model.named_modules() if name in {"model.norm", "transformer.ln_f"})
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter, std=2.0)
        return model

    return saved(made, language_tokenizer(), folder)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Layers 1, 2 and 4 of a teacher of four, at all positions."""
    text, teacher = tmp_path / "text.txt", folder_of("llama", tmp_path / "teacher")
    text.write_text(TEXT)
    kept = ("--keep", "full", "--store-layers", "1,2,4", "--encoding", "float32", "--max-length", 48)
    done = run("build", "--teacher", teacher, "--corpus", text, *kept, "--out", tmp_path / "lm.hsk", "--device", "cpu")
    assert done.exit_code == 0, done.output
    return tmp_path / "lm.hsk"


def export(cache: Path, out: Path, *more: object) -> Any:
    return run("export", cache, out, "--as", "speculators", "--teacher", cache.parent / "teacher", *more)


def test_the_trainer_finds_tokens_masks_and_states_before_the_final_norm(cache: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    done = export(cache, tmp_path / "out")
    assert done.exit_code == 0, done.output
    rows = load_from_disk(str(tmp_path / "out"))
    opened, model = open_cache(cache), AutoModelForCausalLM.from_pretrained(cache.parent / "teacher").eval()
    assert len(rows) == opened.num_rows > 2
    assert rows.with_format(None)["seq_len"] == [len(ids) for ids in opened[:]["input_ids"]]
    counts: dict[int, int] = {}
    for number, row in enumerate(rows):
        found = load_file(tmp_path / "out" / "hidden_states" / f"hs_{number}.safetensors")
        assert torch.equal(found["token_ids"], row["input_ids"])
        assert row["loss_mask"].tolist() == [0] + [1] * (len(row["input_ids"]) - 1)
        assert found["hidden_states"].dtype == torch.bfloat16
        with torch.inference_mode():
            seen = model(found["token_ids"][None], output_hidden_states=True)
            answered = model.lm_head(model.model.norm(found["hidden_states"][:, -1].float()))
        for place, layer in enumerate((1, 2)):
            states = seen.hidden_states[layer][0]
            torch.testing.assert_close(found["hidden_states"][:, place].float(), states, rtol=1e-2, atol=1e-2)
        # Eight bits of each state: near what the model answers, which the state after the norm is far from.
        assert (answered - seen.logits[0]).abs().max() < 0.02 * seen.logits.abs().max()
        with torch.inference_mode():
            twice = model.lm_head(model.model.norm(seen.hidden_states[-1][0]))
        assert (twice - seen.logits[0]).abs().max() > 0.3 * seen.logits.abs().max()
        for token in row["input_ids"][1:].tolist():
            counts[token] = counts.get(token, 0) + 1
    assert torch.load(tmp_path / "out" / "token_freq.pt", weights_only=True) == counts
    again = export(cache, tmp_path / "out", "--json")
    assert json.loads(again.stdout)["was_there"]


def test_only_tokens_to_be_predicted_are_in_the_mask(tmp_path: Path) -> None:
    from datasets import load_from_disk

    teacher, data = folder_of("llama", tmp_path / "teacher"), tmp_path / "data.jsonl"
    data.write_text(json.dumps({"asked": "1+1", "answer": "two"}) + "\n")
    columns = ("--text", "asked", "--completion", "answer", "--keep", "full", "--store-layers", "1,4")
    out = ("--out", tmp_path / "lm.hsk", "--device", "cpu")
    assert run("build", "--teacher", teacher, "--data", data, *columns, *out).exit_code == 0
    assert export(tmp_path / "lm.hsk", tmp_path / "out").exit_code == 0
    (row,) = load_from_disk(str(tmp_path / "out"))
    # <s> and three bytes; three bytes and </s>.
    assert row["loss_mask"].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_final_norm_is_undone_up_to_what_it_takes_away(family: str, tmp_path: Path) -> None:
    teacher = load_language_model(str(folder_of(family, tmp_path / "teacher")), "cpu")
    norm = teacher.model.get_submodule(teacher.taps.states[-1].module)
    states = norm(torch.randn(50, 32, generator=torch.Generator().manual_seed(0))).detach()
    found = torch.from_numpy(before_final_norm(teacher)(states.numpy()))
    torch.testing.assert_close(norm(found), states, rtol=1e-3, atol=1e-3)


def test_a_model_without_a_final_norm_is_refused(tmp_path: Path) -> None:
    teacher = load_language_model(str(saved(FAMILIES["llama"], language_tokenizer(), tmp_path / "t")), "cpu")
    teacher.model.model.norm = torch.nn.Identity()
    with pytest.raises(TeacherError, match="do not come out of a norm"):
        before_final_norm(teacher)


def test_what_cannot_be_exported_so_is_refused_in_a_line(cache: Path, tmp_path: Path) -> None:
    other = folder_of("llama", tmp_path / "other")
    cases = [
        ((cache, "--as", "speculators"), "needs the --teacher of the cache"),
        ((cache, "--zarr", "--teacher", other), "leave it out with --as zarr"),
        ((cache, "--as", "speculators", "--teacher", other, "--compression", "gzip"), "--compression is of HDF5"),
    ]
    text = tmp_path / "text.txt"
    for number, (kept, words) in enumerate(
        [
            (("--keep", "full", "--store-layers", "1,2"), "layer 4, the last"),
            (("--keep", "3t", "--score", "left", "--store-layers", "1,4"), "whole ones"),
        ]
    ):
        built = tmp_path / f"{number}.hsk"
        given = ("--teacher", cache.parent / "teacher", "--corpus", text, *kept, "--out", built, "--device", "cpu")
        assert run("build", *given).exit_code == 0
        cases.append(((built, "--as", "speculators", "--teacher", cache.parent / "teacher"), words))
    for (source, *options), words in cases:
        refused = run("export", source, tmp_path / "out", *options)
        assert refused.exit_code == 2, refused.output
        assert words in " ".join(refused.stderr.split())
        assert not (tmp_path / "out").exists()
