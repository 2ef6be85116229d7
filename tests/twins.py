"""Teachers that differ from the tiny one in their configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import saved
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from hskcache.teacher.load import Teacher, load_teacher


def make(change: Callable[[dict[str, Any]], object], teacher: Path, folder: Path) -> Teacher:
    """The tiny teacher's twin with another configuration."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(teacher)
    config = BertConfig.from_pretrained(teacher).to_dict()
    change(config)
    return load_teacher(str(saved(lambda: BertForSequenceClassification(BertConfig(**config)), tokenizer, folder)))
