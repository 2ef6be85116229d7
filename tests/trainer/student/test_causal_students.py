"""Causal students: of a teacher's layers, of a configuration, and as ``hsktrain create`` has them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from language_models import FAMILIES, language_model, language_tokenizer
from models import saved
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from hskcache.errors import MismatchError, TeacherError
from hskcache.model.causal import load_causal
from trainer.cli import main
from trainer.student.causal import LanguageInterface, create_causal
from trainer.student.layers import from_teacher_layers

# Longer than the windows in which some layers attend.
PROBE = torch.arange(3, 39)[None]


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=PROBE).logits
    return found


def hsktrain(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_all_layers_answers_as_its_teacher(family: str, tmp_path: Path) -> None:
    teacher = load_causal(str(language_model(tmp_path, family)), "a teacher")
    student = from_teacher_layers(teacher, (1, 2, 3, 4))
    assert torch.equal(logits(student), logits(teacher))
    shared = {one.data_ptr() for one in student.parameters()} & {one.data_ptr() for one in teacher.parameters()}
    assert not shared


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_some_layers_answers_as_the_teacher_without_the_others(family: str, tmp_path: Path) -> None:
    """Layers 2 and 4 attend in windows in two of the families, and take that with them, also through a checkpoint."""
    teacher = load_causal(str(language_model(tmp_path / "teacher", family)), "a teacher")
    student = from_teacher_layers(teacher, (2, 3))
    student.save_pretrained(tmp_path / "student")
    again = loaded(tmp_path / "student")
    [stack] = [one for name, one in teacher.named_modules() if name in {"model.layers", "transformer.h"}]
    for number in (0, 3):
        stack[number].register_forward_hook(lambda _module, given, _output: given[0])
    theirs = logits(teacher)
    assert torch.equal(logits(student), theirs)
    assert torch.equal(logits(again), theirs)
    config = teacher.config
    tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert tied is config.tie_word_embeddings
    if getattr(config, "layer_types", None):
        assert again.config.layer_types == config.layer_types[1:3]


def test_layers_that_answer_otherwise_in_their_new_places_are_refused(tmp_path: Path) -> None:
    """A layer that asks for its number, as some scale by it."""
    teacher = load_causal(str(language_model(tmp_path)), "a teacher")
    student_of = type(teacher)

    class Numbered(LlamaForCausalLM):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for number, layer in enumerate(self.model.layers, start=1):
                layer.register_forward_hook(lambda _module, _given, output, by=number: output * by)

    numbered = Numbered(teacher.config).eval()
    assert student_of is LlamaForCausalLM
    with pytest.raises(TeacherError, match="layers 2, 4 of Numbered answer otherwise in these places, by up to"):
        from_teacher_layers(numbered, (2, 4))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_create_makes_a_checkpoint_that_generates_and_chats(family: str, tmp_path: Path) -> None:
    teacher, out = language_model(tmp_path / "teacher", family), tmp_path / "student"
    result = hsktrain("create", "--from", teacher, "--layers", "uniform:2", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["layers"], facts["width"], facts["ids"]) == (2, 32, 264)
    student, tokenizer = loaded(out), AutoTokenizer.from_pretrained(out)
    assert student.generation_config.eos_token_id == 2
    given = tokenizer.apply_chat_template([{"role": "user", "content": "say"}], return_tensors="pt", return_dict=True)
    made = student.generate(**given, max_new_tokens=5, do_sample=False)
    assert made.shape[1] <= given["input_ids"].shape[1] + 5
    assert tokenizer.decode(given["input_ids"][0]) == "<s>user: say</s>"


def test_create_draws_a_shape_with_the_ids_of_the_teacher(tmp_path: Path) -> None:
    """264 ids, though the tokenizer has 259; the same seed gives the same weights."""
    teacher = language_model(tmp_path / "teacher")
    config = AutoConfig.from_pretrained(teacher)
    config.update({"num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 7})
    config.save_pretrained(tmp_path / "shape")
    command = ["create", "--student", tmp_path / "shape" / "config.json", "--tokenizer", teacher, "--seed", 3]
    for name in ("first", "second"):
        result = hsktrain(*command, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert "the student starts from random weights" in result.stderr
    first, second = loaded(tmp_path / "first"), loaded(tmp_path / "second")
    assert torch.equal(logits(first), logits(second))
    assert (first.config.vocab_size, first.config.hidden_size) == (264, 16)
    assert first.generation_config.eos_token_id == 2
    assert first.generate(PROBE, max_new_tokens=3).shape[1] > PROBE.shape[1]


def test_a_token_that_pads_and_ends_is_learned(tmp_path: Path) -> None:
    language_model(tmp_path)
    interface = LanguageInterface(264, 1, 2, 2)
    student = create_causal(str(tmp_path / "config.json"), interface)
    assert student.get_input_embeddings().padding_idx is None
    assert student.generation_config.pad_token_id == 2


def test_a_checkpoint_with_fewer_ids_than_the_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="knows 264 token ids and the teacher says 300"):
        create_causal(str(language_model(tmp_path)), LanguageInterface(300))


def test_models_that_are_no_causal_ones_are_refused_in_a_line(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    sizes = {"vocab_size": 264, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    both = saved(lambda: T5ForConditionalGeneration(T5Config(**sizes)), language_tokenizer(), tmp_path / "t5")
    result = hsktrain("create", "--from", both, "--layers", "1", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "is an encoder with a decoder (t5), of which no student can be made yet" in result.stderr
    for source, words in (
        (str(tiny_teacher_dir), "bert is an encoder, which reads the words on both sides"),
        (str(both), "t5 is an encoder with a decoder"),
        ("tinybert4", "tinybert4 is a shape of an encoder"),
    ):
        with pytest.raises(TeacherError, match=words):
            create_causal(source, LanguageInterface(150))
    with pytest.raises(TeacherError, match="depends on later ones"):
        load_causal(str(_looking_ahead(tmp_path / "ahead")), "a student")


def _looking_ahead(folder: Path) -> Path:
    """A model with the class of a decoder, and without its mask."""
    from transformers import BertGenerationConfig, BertGenerationDecoder

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.5}
    config = BertGenerationConfig(vocab_size=264, **sizes)
    return saved(lambda: BertGenerationDecoder(config), language_tokenizer(), folder)
