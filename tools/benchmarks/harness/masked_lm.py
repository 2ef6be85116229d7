"""A small masked language model for where none can be downloaded: an encoder with a new head, trained on plain text.

It is good enough to propose words that fit a sentence, and no model for anybody's product; give a real one where there
is one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hskcache import console
from hskcache.runtime import quiet

BATCH_ROWS = 32
LENGTH = 64
MASKED_SHARE = 0.15
LEARNING_RATE = 2e-4


def make(base: str, corpus: Path, out: Path, steps: int) -> Path:
    """Train a head and the encoder below it to predict masked pieces; a finished model is left as it is.

    Args:
        base: folder or id of a BERT-like encoder.
        corpus: plain text.
        out: folder of the result, an ordinary checkpoint with its tokenizer.
        steps: optimiser steps.
    """
    if (out / "model.safetensors").is_file():
        return out
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, get_linear_schedule_with_warmup

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(base)
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_pretrained(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    with console.progress("steps") as bar:
        task = bar.add_task("masked LM", total=steps)
        for _, ids in zip(range(steps), _batches(tokenizer, corpus), strict=False):
            loss = _loss(model, ids, tokenizer)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.update(task, advance=1, description=f"masked LM loss {loss.item():.2f}")
    partial = out.with_name(f"{out.name}.partial")
    with quiet():
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    partial.rename(out)
    return out


def _batches(tokenizer: Any, corpus: Path) -> Iterator[Any]:
    """Batches of pieces [B, L] from random places of the text, for ever."""
    import torch

    text = corpus.read_text(encoding="utf-8").replace("<unk>", tokenizer.unk_token)
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int64)
    draw = np.random.default_rng(0)
    within = np.arange(LENGTH - 2)
    while True:
        rows = ids[draw.integers(0, len(ids) - LENGTH, BATCH_ROWS)[:, None] + within]
        around = [np.full((BATCH_ROWS, 1), token) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
        yield torch.from_numpy(np.concatenate([around[0], rows, around[1]], axis=1))


def _loss(model: Any, ids: Any, tokenizer: Any) -> Any:
    """Cross entropy at masked places; the head runs at those alone."""
    import torch

    masked = (torch.rand(ids.shape) < MASKED_SHARE) & (ids != tokenizer.cls_token_id) & (ids != tokenizer.sep_token_id)
    states = model.base_model(input_ids=ids.masked_fill(masked, tokenizer.mask_token_id)).last_hidden_state
    return torch.nn.functional.cross_entropy(model.cls(states[masked]), ids[masked])
