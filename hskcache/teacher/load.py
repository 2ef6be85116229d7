"""A teacher with its tokenizer, made ready for capture, and the facts that identify it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache import console
from hskcache.classes import is_tagger
from hskcache.encoder import identifying_config, weights_digest
from hskcache.errors import TeacherError
from hskcache.model.adapter import tokenizer_of
from hskcache.model.causal import check_causal, is_causal
from hskcache.model.load import CAUSAL_LM, ENCODER, ModelDemands, answering, load_config, load_model
from hskcache.model.sentence import SentenceModules, encoder_of, load_dense, sentence_modules
from hskcache.output_head import OutputHead, described_head, find_head
from hskcache.resolved import OUTPUT_HEAD, SENTENCE
from hskcache.runtime import quiet, resolve_device
from hskcache.spec import ComputeDtype
from hskcache.store.manifest import Request, TeacherInfo
from hskcache.teacher.taps import Taps, find_taps
from hskcache.text import load_tokenizer
from hskcache.timeline import span


@dataclass(frozen=True)
class Teacher:
    """A model in eval mode on its device, its tokenizer, its description, and what can be seen of it.

    ``num_labels`` is the width C of the logits; None for an encoder without a classifier. ``head`` leads pooled vectors
    on, where the teacher is an embedder with layers after its pooling.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: TeacherInfo
    num_labels: int | None
    taps: Taps
    head: nn.Module | None = None

    @property
    def output_head(self) -> OutputHead | None:
        """Head by which a language model says the next token; None of other teachers."""
        return self.taps.output_head

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        device: torch.device = self.model.device
        return device

    @property
    def pad_token_id(self) -> int:
        """The id that fills padding, which the attention mask hides."""
        return int(self.tokenizer.pad_token_id or 0)

    def called(self, name: str | None) -> "Teacher":
        """The same under another name; None: under its own."""
        return self if name is None else replace(self, info=self.info.model_copy(update={"name": name}))


def load_teacher(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load a fine-tuned encoder, a classifier of rows or of their words, and its tokenizer from a folder or the hub.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded whole, has no classification head, or cannot be run on padded rows.
    """
    # Before anything of it is read, which may take minutes.
    resolve_device(device)
    remedy = f"fine-tune it on the task first: hsktrain finetune --model {name}"
    config = load_config(name, "a teacher")
    demands = ModelDemands(answering(config), "a teacher", remedy, dtype=dtype, config=config)
    model, tokenizer = _load(name, demands, device)
    return as_teacher(model, tokenizer, name, int(model.config.num_labels))


def load_encoder(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load a pre-trained encoder and its tokenizer; a task head it may have is left behind, and so is its pooler.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded whole, or cannot be run on padded rows.
    """
    model, tokenizer = _load(name, ModelDemands(ENCODER, "a teacher", dtype=dtype), device)
    if hasattr(model, "pooler"):
        # Nothing of it is kept; where a checkpoint has none, it would be drawn anew and change the weights' digest.
        model.pooler = None
    return as_teacher(model, tokenizer, name, None)


def load_embedder(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load an encoder as :func:`load_encoder` does, and what its folder says of embeddings, if it says anything.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded whole, or cannot be run on padded rows; or an embedding of it is made in a way
            that is not computed here.
    """
    modules = sentence_modules(name)
    teacher = load_encoder(encoder_of(name, modules), device, dtype).called(name)
    return teacher if modules is None else _with_modules(teacher, name, modules)


def load_language_model(name: str, device: str = "auto", dtype: ComputeDtype = "float32") -> Teacher:
    """Load a causal language model and its tokenizer; its weights' digest is that of the whole model.

    Raises:
        SpecError: no such device.
        TeacherError: it cannot be loaded whole, or cannot be run on padded rows; it reads in both directions, or its
            logits are made otherwise than by a linear head, a scale and a soft cap.
    """
    model, tokenizer = _load(name, ModelDemands(CAUSAL_LM, "a teacher", dtype=dtype), device)
    return as_language_model(model, tokenizer, name)


def as_language_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> Teacher:
    """A loaded causal language model as a teacher.

    Raises:
        TeacherError: as :func:`load_language_model`.
    """
    teacher = as_teacher(model, tokenizer, name, None)
    check_causal(model, f"a teacher from {name}")
    head = find_head(model)
    if head is None:
        raise TeacherError(
            f"{type(model).__name__} has no output embeddings, so it says no next tokens; give a causal language model"
        )
    config = teacher.info.config | {OUTPUT_HEAD: described_head(head)}
    info = teacher.info.model_copy(update={"config": config})
    return replace(teacher, info=info, taps=replace(teacher.taps, output_head=head))


def is_language_model(name: str) -> bool:
    """True if a checkpoint brings a causal language model, as far as its configuration tells.

    Raises:
        TeacherError: the configuration cannot be read.
    """
    return is_causal(load_config(encoder_of(name, sentence_modules(name)), "a teacher"))


def load_for(name: str, device: str, request: Request) -> Teacher:
    """Load the teacher of a cache, or of a field that was added to one, as its rows and what is kept of them ask.

    Of rows of a language model it is one, if it is any.
    Without a task it is an encoder; so it is with one where embeddings are kept and it brings no classifier.

    Raises:
        SpecError, TeacherError: as the functions above.
    """
    spec, dtype = request.spec, request.spec.compute_dtype
    is_language = request.data.problem == "language" and spec.embedding is None and is_language_model(name)
    if spec.vocabulary is not None or is_language:
        return load_language_model(name, device, dtype)
    if request.data.has_task and (spec.embedding is None or is_classifier(name)):
        return load_teacher(name, device, dtype)
    return (load_encoder if spec.embedding is None else load_embedder)(name, device, dtype)


def is_classifier(name: str) -> bool:
    """True if a checkpoint brings a classifier, as far as its configuration tells.

    Raises:
        TeacherError: the configuration cannot be read.
    """
    config = load_config(encoder_of(name, sentence_modules(name)), "a teacher")
    names = map(str, config.architectures or ())
    return is_tagger(config) or any(name.endswith("ForSequenceClassification") for name in names)


def _with_modules(teacher: Teacher, name: str, modules: SentenceModules) -> Teacher:
    """A teacher with the layers after its pooling; these and the pooling belong to its identity."""
    head = load_dense(name, modules)
    changes: dict[str, Any] = {"config": teacher.info.config | {SENTENCE: modules.described}}
    if head is not None:
        changes["weights_sha256"] = weights_digest(nn.ModuleList([teacher.model, head]))
        head = head.to(teacher.device)
    return replace(teacher, info=teacher.info.model_copy(update=changes), head=head)


def as_teacher(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, num_labels: int | None
) -> Teacher:
    """A loaded model as a teacher: in eval mode, and probed for what can be seen of it.

    Raises:
        TeacherError: it cannot be run on padded rows.
    """
    taps = find_taps(model, tokenizer.pad_token_id or 0)
    if getattr(model.config, "attention_type", None) == "block_sparse":
        # The rows of the probe are too short for its blocks, and transformers never goes back from full attention.
        console.say(f"{name} reads all rows with full attention, to which short rows switch its sparse one for good")
    return Teacher(model, tokenizer, describe(model, name), num_labels, taps)


@span("load the teacher")
def _load(name: str, wanted: ModelDemands, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model on its device, and its tokenizer."""
    place = resolve_device(device)
    with quiet():
        tokenizer = load_tokenizer(tokenizer_of(name))
    model, _ = load_model(name, wanted)
    return model.to(place), tokenizer


def describe(model: PreTrainedModel, name: str) -> TeacherInfo:
    """The facts that identify a teacher; its weights' digest covers names, dtypes, shapes and bytes."""
    config = model.config
    return TeacherInfo(
        name=name,
        revision=getattr(config, "_commit_hash", None),
        weights_sha256=weights_digest(model),
        config=identifying_config(config),
        model_type=config.model_type,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
    )
