"""Teachers of all families with two layers and a student, over pairs of sentences of different lengths."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family import CONFIGS, FAMILIES, SIZES
from models import saved
from process import sparsify
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hskcache.sparsity.scores import Sample
from hskcache.teacher.load import Teacher, load_teacher
from hskcache.text import TokenizedRows, tokenize
from hskcache.text.rows import Examples

FIRST = ("the film is warm", "this movie is dull and short", "the cast is a delight", "its plot", "an old tale is flat")
SECOND = ("the music is funny from start to end", "a small story")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Callable[..., Path]:
    """A model with random weights in a folder: ``folder_of("roberta", num_labels=1)``."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)

    @cache
    def make(family: str, **changes: Any) -> Path:
        given = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "num_labels": 3}
        config = CONFIGS[family](**given | SIZES[family] | changes)
        folder = tmp_path_factory.mktemp(family)
        return saved(lambda: FAMILIES[family](config), tokenizer, folder)

    return make


@pytest.fixture(scope="session")
def teacher_of(folder_of: Any) -> Callable[..., Teacher]:
    """The same, loaded; float64 where asked, for finite differences."""

    @cache
    def load(family: str, double: bool = False, **changes: Any) -> Teacher:
        teacher = load_teacher(str(folder_of(family, **changes)), "cpu")
        return replace(teacher, model=teacher.model.double()) if double else teacher

    return load


@pytest.fixture(scope="session")
def student_of(folder_of: Any) -> Callable[..., PreTrainedModel]:
    """A BERT student in train mode, whose dropout must not be heard."""

    def load(double: bool = False, **changes: Any) -> PreTrainedModel:
        folder = folder_of("bert", initializer_range=0.5, **changes)
        model = AutoModelForSequenceClassification.from_pretrained(folder).train()
        return model.double() if double else model

    return load


@pytest.fixture(scope="session")
def examples() -> Examples:
    """Ten labelled pairs of three classes."""
    texts, pairs = zip(*product(FIRST, SECOND), strict=True)
    labels = np.arange(len(texts)) % 3
    return Examples(list(texts), list(pairs), labels, ("a", "b", "c"), "classification", "pairs", None, "0")


@pytest.fixture(scope="session")
def scored(examples: Examples) -> Examples:
    """The same pairs with scores instead of classes."""
    scores = np.linspace(-1, 2, len(examples), dtype=np.float32)
    return replace(examples, labels=scores, label_names=(), problem="regression")


@pytest.fixture(scope="session")
def rows(examples: Examples, tiny_tokenizer_dir: Path) -> TokenizedRows:
    return tokenize(examples, PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir), 48)


@pytest.fixture(scope="session")
def sample(examples: Examples, rows: TokenizedRows) -> Sample:
    """All rows in batches of four, four and two."""
    return Sample(rows, examples.labels, batch_size=4)


@pytest.fixture(scope="session")
def small_student(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A student of one layer for the tiny teacher of two classes, with these class names."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)

    @cache
    def make(names: tuple[str, ...] = ("0", "1"), kind: Any = BertForSequenceClassification) -> Path:
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        config = BertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.5, **sizes, **labels
        )
        return saved(lambda: kind(config), tokenizer, tmp_path_factory.mktemp("student"))

    return make


@pytest.fixture(scope="session")
def command(tiny_teacher_dir: Path, small_student: Any, tsv_file: Path) -> tuple[object, ...]:
    """Options of a run over four levels, but for --out."""
    models = ("--teacher", tiny_teacher_dir, "--trial-student", small_student())
    return (*models, "--data", tsv_file, "--task", "sst2", "--sparsity", "0,10,50,90")


@pytest.fixture
def args(command: tuple[object, ...], tmp_path: Path) -> tuple[object, ...]:
    """The same into ``tmp_path / "o"``."""
    return (*command, "--out", tmp_path / "o")


@pytest.fixture(scope="session")
def whole(command: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run wrote that nothing disturbed; not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "o"
    done = sparsify(*command, "--out", out)
    assert done.code == 0, done.stderr
    return out


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and children are forked here."""
    torch.set_num_threads(1)
