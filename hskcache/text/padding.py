"""Rows as one rectangle, as models read them."""

import numpy as np
from numpy.typing import NDArray

from hskcache.ragged import ragged_places
from hskcache.text.tokenize import TokenizedRows


def padded(rows: TokenizedRows, index_B: NDArray[np.integer], pad_token_id: int) -> dict[str, NDArray[np.int64]]:
    """A model's inputs for some rows, each padded to the longest of them.

    ``index_B``: numbers of the rows, in any order; ``pad_token_id``: fills the padding, which the attention mask hides.
    Returns ``input_ids`` and ``attention_mask``, each int64 [B, L], and ``token_type_ids`` where the rows have any.
    """
    starts_B = rows.offsets[index_B]
    lengths_B = rows.offsets[np.asarray(index_B) + 1] - starts_B
    within = np.arange(max(1, int(lengths_B.max(initial=0))))
    valid_BL = within < lengths_B[:, None]
    flat = (starts_B[:, None] + within)[valid_BL]
    values: dict[str, tuple[NDArray[np.integer], int]] = {"input_ids": (rows.input_ids, pad_token_id)}
    if rows.token_type_ids is not None:
        values["token_type_ids"] = (rows.token_type_ids, 0)
    inputs = {"attention_mask": valid_BL.astype(np.int64)}
    for name, (stored, fill) in values.items():
        inputs[name] = np.full(valid_BL.shape, fill, np.int64)
        inputs[name][valid_BL] = stored[flat]
    return inputs


def places_before_targets(rows: TokenizedRows, index_B: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Places in a flattened batch [B, L] of the tokens whose next one is to be predicted, row after row: int64 [P].

    ``index_B``: numbers of the rows, in any order; ``length``: L.
    """
    starts_B = rows.offsets[index_B]
    lengths_B = rows.offsets[np.asarray(index_B) + 1] - starts_B
    within = ragged_places(np.zeros_like(lengths_B), lengths_B)
    is_target = within > 0 if rows.targets is None else rows.targets[ragged_places(starts_B, lengths_B)]
    place_B = np.arange(len(lengths_B)) * length
    return (np.repeat(place_B, lengths_B) + within - 1)[is_target]
