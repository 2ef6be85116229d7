"""A head that is fed one position answers as a head that is fed all, whatever the architecture."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel

from hskcache.augment.masked_lm import MaskedLM, load_masked_lm, prepare
from hskcache.errors import SpecError, TeacherError

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
DISTIL: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64}
# The longest rows: RoBERTa and MPNet leave the first positions of their tables unused.
ARCHITECTURES = {
    "bert": (SMALL, 66),
    "roberta": (SMALL, 65),
    "distilbert": (DISTIL, 64),
    "albert": (SMALL, 66),
    "electra": (SMALL, 66),
    "mpnet": (SMALL, 64),
    "deberta-v2": (SMALL, 66),
    "modernbert": (SMALL, 66),
}


def random_model(kind: str, **settings: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(kind, initializer_range=0.2, pad_token_id=0, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: PreTrainedModel = AutoModelForMaskedLM.from_config(config).eval()
    return model


def three_rows() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    ids = torch.arange(5, 20).reshape(3, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": mask}, torch.tensor([4, 0, 1])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_logits_at_a_position_are_those_of_the_whole_model(kind: str, lm: MaskedLM) -> None:
    settings, max_length = ARCHITECTURES[kind]
    model = random_model(kind, vocab_size=len(lm.tokenizer), **settings)
    ready = prepare(model, lm.tokenizer, kind)
    assert ready.gathers
    assert ready.max_length == max_length
    batch, position_B = three_rows()
    with torch.inference_mode():
        expected = model(**batch).logits[torch.arange(3), position_B]
        assert torch.allclose(ready.logits(batch, position_B), expected, rtol=1e-4, atol=1e-4)
        # No hook stays behind.
        assert model(**batch).logits.shape[1] == 5


def test_a_head_that_mixes_positions_is_found_out_and_fed_all_of_them(lm: MaskedLM) -> None:
    model = random_model("bert", vocab_size=len(lm.tokenizer), **SMALL)
    head = model.cls.forward
    model.cls.forward = lambda states_BLD: head(states_BLD + states_BLD.mean(1, keepdim=True))
    ready = prepare(model, lm.tokenizer, "mixing")
    assert not ready.gathers
    batch, position_B = three_rows()
    with torch.inference_mode():
        expected = model(**batch).logits[torch.arange(3), position_B]
        assert torch.equal(ready.logits(batch, position_B), expected)


def test_facts_follow_weights_configuration_and_tokenizer_but_not_the_folder(
    lm: MaskedLM, masked_lm_dir: Path, tmp_path: Path
) -> None:
    moved = load_masked_lm(str(shutil.copytree(masked_lm_dir, tmp_path / "elsewhere")), "cpu")
    moved.tokenizer(["the film"] * 2, padding="max_length", max_length=20, truncation=True)
    assert moved.facts == lm.facts
    assert len(set(lm.facts.values())) == 3
    other = load_masked_lm(str(masked_lm_dir), "cpu")
    other.model.config.layer_norm_eps = 1e-5
    with torch.no_grad():
        next(iter(other.model.parameters()))[0, 0] += 1
    assert {name for name in lm.facts if other.facts[name] != lm.facts[name]} == {"weights_sha256", "config_sha256"}


def test_what_is_no_masked_lm_is_refused_in_one_line(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"lacks weights of a masked LM \(cls"):
        load_masked_lm(str(tiny_teacher_dir), "cpu")
    with pytest.raises(TeacherError, match="there is no such folder"):
        load_masked_lm(str(tmp_path / "gone"), "cpu")
    with pytest.raises(SpecError, match="is not a device"):
        load_masked_lm(str(tiny_teacher_dir), "tpu")


def test_a_tokenizer_that_does_not_fit_is_refused(masked_lm_dir: Path) -> None:
    other = load_masked_lm(str(masked_lm_dir), "cpu")
    other.tokenizer.add_tokens(["zzz"])
    with pytest.raises(TeacherError, match="put the tokenizer it was trained with beside it"):
        prepare(other.model, other.tokenizer, "m")
    other = load_masked_lm(str(masked_lm_dir), "cpu")
    other.tokenizer.mask_token = None
    with pytest.raises(TeacherError, match="has no mask token"):
        prepare(other.model, other.tokenizer, "m")
