"""The words that a masked language model holds most likely in a place, many places at a time [TinyBERT 3.2].

The model reads the sentence with the word masked and, as the second text, the sentence as it stands:
``[CLS] masked sentence [SEP] full sentence [SEP]``. What it answers does not depend on what is asked together: batches
move the last bits of the logits, so where the last word to be taken and the first to be left are closer than
``TOLERANCE``, that place is computed again alone and unpadded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hskcache.augment.masked_lm import Batch, MaskedLM
from hskcache.errors import TeacherError

TOLERANCE = 1e-3
"""Tolerance in logits; batches move them by about 1e-5."""

_TOKENS_A_ROW = 128

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MaskedText:
    """A row of the masked LM's input, int64 [L], special tokens included, and the position of its mask."""

    input_ids: Ids
    token_type_ids: Ids
    position: int

    def __len__(self) -> int:
        return len(self.input_ids)


def masked_text(lm: MaskedLM, ids: Ids, position: int) -> MaskedText:
    """The input that asks for one token of a sentence.

    A sentence whose pair is longer than the model's positions loses the end of its second copy, then all of it; then a
    window around the masked token is left of the first. ``ids``: [L] tokens of the sentence, no special ones;
    ``position``: of the token to mask.
    """
    template = lm.template
    room = lm.max_length - template.num_special
    start = max(0, min(position - room // 2, len(ids) - room))
    first = ids[start : start + room].copy()
    first[position - start] = lm.tokenizer.mask_token_id
    second = ids[: room - len(first)]
    parts = (template.prefix, first, template.middle, second, template.suffix)
    types = [np.resize(kind, len(part)) for kind, part in zip(template.types, parts, strict=True)]
    return MaskedText(np.concatenate(parts), np.concatenate(types), len(template.prefix) + position - start)


def batches(texts: Sequence[MaskedText], batch_size: int) -> Iterator[list[int]]:
    """Numbers of the texts of each batch, texts of like length together.

    ``batch_size``: texts of a batch at most; fewer where they are longer than 128 tokens, so that the padded tokens of
    a batch stay below 128 times as many, but never fewer than one.
    """
    batch: list[int] = []
    for number in sorted(range(len(texts)), key=lambda number: len(texts[number])):
        # In this order the next text is the longest of its batch.
        tokens = (len(batch) + 1) * len(texts[number])
        if batch and (len(batch) == batch_size or tokens > batch_size * _TOKENS_A_ROW):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def padded(lm: MaskedLM, texts: Sequence[MaskedText]) -> tuple[Batch, Tensor]:
    """A batch on the model's device, and the position of each mask, int64 [B]."""
    longest = max(map(len, texts))
    ids_BL = np.full((len(texts), longest), lm.tokenizer.pad_token_id or 0, np.int64)
    types_BL, mask_BL = np.zeros_like(ids_BL), np.zeros_like(ids_BL)
    for row, text in enumerate(texts):
        ids_BL[row, : len(text)] = text.input_ids
        types_BL[row, : len(text)] = text.token_type_ids
        mask_BL[row, : len(text)] = 1
    arrays = {"input_ids": ids_BL, "attention_mask": mask_BL}
    if lm.takes_token_types:
        arrays["token_type_ids"] = types_BL
    batch = {name: torch.from_numpy(array).to(lm.device) for name, array in arrays.items()}
    return batch, torch.tensor([text.position for text in texts], device=lm.device)


def best_ids(lm: MaskedLM, texts: Sequence[MaskedText], num_best: int, batch_size: int) -> list[Ids]:
    """Ids of the most likely words in every masked place, ascending; all words where there are no more.

    Raises TeacherError if the model gives values that are not finite.
    """
    wanted = min(num_best, len(lm.words))
    # One more shows how far the last to be taken stands above the first to be left.
    looked_at = min(wanted + 1, len(lm.words))
    found: list[tuple[list[int], Tensor, Tensor]] = []
    with torch.inference_mode():
        for numbers in batches(texts, batch_size):
            batch, position_B = padded(lm, [texts[number] for number in numbers])
            top = torch.topk(lm.logits(batch, position_B) + lm.unwanted_V, looked_at)
            found.append((numbers, top.values, top.indices))
        best: list[Ids] = [np.empty(0, np.int64)] * len(texts)
        # Read only now, so that a device is never waited for between batches.
        for numbers, values_BK, ids_BK in found:
            values, ids = values_BK.cpu().numpy(), ids_BK.cpu().numpy()
            if not np.isfinite(values).all():
                raise TeacherError(f"{lm.name} gives logits that are not finite; give another masked LM")
            for row, number in enumerate(numbers):
                is_close = looked_at > wanted and values[row, wanted - 1] - values[row, wanted] < TOLERANCE
                best[number] = _alone(lm, texts[number], wanted) if is_close else np.sort(ids[row, :wanted])
    return best


def _alone(lm: MaskedLM, text: MaskedText, wanted: int) -> Ids:
    """The same for one place; of equally likely words those with the lowest ids count."""
    logits_V = (lm.logits(*padded(lm, [text])) + lm.unwanted_V)[0].cpu().numpy()
    least = np.partition(logits_V, -wanted)[-wanted]
    above, equal = np.flatnonzero(logits_V > least), np.flatnonzero(logits_V == least)
    return np.sort(np.concatenate([above, equal[: wanted - len(above)]]))
