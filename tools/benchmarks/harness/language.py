"""Made-up causal language models of SmolLM2's form, over rows of random words, and jobs of the real build over them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.harness.synthetic import SPECIAL, write_tokenizer
from hskcache.spec import ComputeDtype, Length, Spec, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hskcache.build.job import Job
    from hskcache.teacher.load import Teacher

VOCABULARY = 49_152
"""Ids of SmolLM2."""
_UNSURE = Length(share=0.2, score="entropy", targets=True)
FORMS = {
    "top:32": Vocabulary(form="top", count=32),
    "sampled:50": Vocabulary(form="sampled", count=50),
    "head": Vocabulary(form="head"),
}
OF_SOME = {f"{form} 0.2t": whole.model_copy(update={"length": _UNSURE}) for form, whole in FORMS.items()}
"""The same of the fifth of the positions at which the teacher is least sure."""
_HEAD_WIDTH = 64


class LanguageShape(NamedTuple):
    """Shape of a Llama: layers and their width, a multiple of 64; all else follows as in SmolLM2."""

    num_layers: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_layers} layers x {self.width}"


def write_config(folder: Path, shape: LanguageShape, longest: int) -> Path:
    """Write ``config.json`` of a Llama whose head is its embeddings; returns its path."""
    num_heads = shape.width // _HEAD_WIDTH
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.width * 8 // 3,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads // 3 if num_heads % 3 == 0 else num_heads,
        "max_position_embeddings": longest,
        "tie_word_embeddings": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def language_model(work: Path, shape: LanguageShape, longest: int) -> "PreTrainedModel":
    """A causal language model with random weights of seed 0, on the CPU in float32."""
    from hskcache.text import load_tokenizer
    from trainer.student.causal import LanguageInterface, create_causal

    path = write_config(work / f"llama_{shape.num_layers}x{shape.width}", shape, longest)
    tokenizer = load_tokenizer(write_tokenizer(work / "language_tokenizer", VOCABULARY))
    return create_causal(str(path), LanguageInterface.of(tokenizer, VOCABULARY))


def language_teacher(work: Path, given: dict[str, Any], dtype: ComputeDtype = "float32") -> "Teacher":
    """Such a model as a loaded teacher, of the ``layers``, ``width``, ``length`` and ``device`` of the options.

    ``teacher`` among them is a real one, in its place.
    """
    import torch

    from hskcache.teacher.load import as_language_model, load_language_model
    from hskcache.text import load_tokenizer

    if given["teacher"] is not None:
        return load_language_model(given["teacher"], given["device"], dtype)
    shape = LanguageShape(given["layers"], given["width"])
    model = language_model(work, shape, given["length"])
    model.to(device=given["device"], dtype=getattr(torch, dtype))
    tokenizer = load_tokenizer(work / "language_tokenizer")
    return as_language_model(model, tokenizer, f"random weights, {shape}")


def write_document(folder: Path, teacher: "Teacher", given: dict[str, Any]) -> Path:
    """Random words, of one document that makes ``rows`` rows of ``length`` tokens, or one more, of the teacher's."""
    # Two stand around it.
    num_tokens = given["rows"] * (given["length"] - 1) + 1 - 2
    draws = np.random.default_rng(0).integers(len(SPECIAL), VOCABULARY, num_tokens)
    words = [f"w{number}" for number in draws]
    pieces = teacher.tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    num_words = int(np.searchsorted(np.cumsum([len(one) for one in pieces]), num_tokens, side="right"))
    path = folder / f"words_{given['rows']}x{given['length']}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(" ".join(words[:num_words]) + "\n", encoding="utf-8")
    return path


def cache_folder(work: Path, teacher: "Teacher", given: dict[str, Any]) -> Path:
    """Folder of what is kept of a teacher, which no other shares."""
    return work / f"lm_{teacher.info.weights_sha256[:12]}_{given['rows']}x{given['length']}"


def language_job(teacher: "Teacher", document: Path, form: str, given: dict[str, Any]) -> "Job":
    """The job of a build that keeps a form of next tokens of the rows of :func:`write_document`."""
    from hskcache.build.job import prepare_language_job
    from hskcache.build.resolving import resolve_for
    from hskcache.text.language.sources import rows_of_file

    spec = Spec(hidden=None, vocabulary=(FORMS | OF_SOME)[form], max_length=given["length"])
    if "token_budget" in given:
        spec = spec.model_copy(update={"token_budget": given["token_budget"]})
    rows = rows_of_file(document, teacher.tokenizer, given["length"], one_document=True)
    return prepare_language_job(teacher, rows, resolve_for(teacher, spec))
