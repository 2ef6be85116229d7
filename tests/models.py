"""Models of random weights in folders, as transformers saves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def saved(make: Callable[[], Any], tokenizer: Any, folder: Path) -> Path:
    """A model of random weights of seed 0 in a folder, beside its tokenizer."""
    # Tests of rooms without torch import this file, too.
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = make()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reweighted(teacher: Path, folder: Path) -> Path:
    """A teacher of the same shape and tokenizer with other weights, in a folder."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(folder)
    return folder
