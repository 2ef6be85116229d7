"""Fidelity of a student to its teacher: its answers for the rows of a cache beside the logits stored there.

Nothing is tokenized and no teacher runs: a cache holds the rows as token ids. Dimension letters: N rows, C classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from transformers import PreTrainedModel

from hskcache.cache import Cache
from hskcache.decoded import Distance
from hskcache.inference import check_fit, predict
from hskcache.metrics import pearson
from hskcache.ragged import Integers
from hskcache.store.fields import INPUTS, InputsField, LogitsField
from hskcache.text import TokenizedRows
from hskcache.text.first_pieces import stored_pieces

Logits = NDArray[np.float32]


def cached_rows(cache: Cache, shard: int) -> TokenizedRows:
    """The rows of a shard. Raises DamageError if it is not as it was written."""
    stored = cache.manifest.shards[INPUTS][shard].arrays
    names = {"row_offsets", "input_ids", "token_type_ids", "positions", "position_offsets"}
    arrays = cache.read(INPUTS, shard, names & stored.keys())
    offsets = arrays["row_offsets"].astype(np.int64)
    ids, types, words = arrays["input_ids"].astype(np.int32), arrays.get("token_type_ids"), stored_pieces(arrays)
    return TokenizedRows(ids, offsets, types, frozenset(), words=words)


def words_of(cache: Cache) -> Integers | None:
    """Words of each row of a cache that have a first piece, int64 [N]; None where rows are texts."""
    inputs = cache.fields[INPUTS]
    if not isinstance(inputs, InputsField) or not inputs.has_words:
        return None
    shards = (cache.read(INPUTS, shard, ["position_offsets"]) for shard in range(len(cache.shards)))
    return np.concatenate([np.diff(arrays["position_offsets"]) for arrays in shards])


def beside(
    model: PreTrainedModel, cache: Cache, field: str, bf16: bool, on_rows: Callable[[int], None]
) -> tuple[Logits, Logits]:
    """Logits of a model and of a cached teacher for every row of a cache, shard by shard.

    Returns two float32 [N, C], of rows of words those of their first pieces; the teacher's is NaN where the cache holds
    nothing of a row. Raises MismatchError if a row is longer than the model's positions, or holds an id outside its
    vocabulary; DamageError if a shard is not as it was written.

    Args:
        model: a classifier on its device, whose outputs stand in the order of the field's.
        field: of the teacher's logits.
        bf16: compute under bfloat16 autocast.
        on_rows: called with the number of rows done since the last call.
    """
    stored = cache.fields[field]
    assert isinstance(stored, LogitsField)
    pad = cache.manifest.request.tokenizer.pad_token_id
    sides: tuple[list[Logits], list[Logits]] = ([], [])
    cache.ahead((name, shard) for shard in range(len(cache.shards)) for name in (INPUTS, field))
    for shard in range(len(cache.shards)):
        rows = cached_rows(cache, shard)
        check_fit(model, rows, cache.name)
        sides[0].append(predict(model, rows, pad_token_id=pad, bf16=bf16, on_rows=on_rows))
        sides[1].append(cache.read(field, shard, [stored.array])[stored.array].astype(np.float32))
    ours_NC, theirs_NC = (np.concatenate(parts) for parts in sides)
    lacks_N = np.isin(np.arange(cache.num_rows), cache.skipped([field]))
    theirs_NC[lacks_N if (counts := words_of(cache)) is None else np.repeat(lacks_N, counts)] = np.nan
    return ours_NC, theirs_NC


def fidelity(ours_NC: Logits, theirs_NC: Logits, is_multilabel: bool = False) -> dict[str, float]:
    """Measures of how alike two models answer; rows of which either is not finite do not count.

    ``ours_NC``: logits of the student; ``theirs_NC``: logits of the teacher. Returns of classes ``agreement``, the
    share of rows whose most probable class is the same, and ``kl``, the mean over rows of KL(teacher || student) in
    nats at temperature 1; of scores ``mse`` and ``pearson``. Of any number of classes a row, ``agreement`` is the share
    of rows with the same ones and ``kl`` the mean over rows and classes of that of their Bernoulli distributions. Empty
    without rows.
    """
    is_there_N = (np.isfinite(ours_NC) & np.isfinite(theirs_NC)).all(axis=1)
    ours_NC, theirs_NC = ours_NC[is_there_N], theirs_NC[is_there_N]
    if not len(ours_NC):
        return {}
    if is_multilabel:
        ours, theirs = (torch.from_numpy(one).double() for one in (ours_NC, theirs_NC))
        # Cross entropy less the teacher's own entropy.
        cross, own = (cross_entropy(one, theirs.sigmoid()).item() for one in (ours, theirs))
        return {"agreement": float(((ours_NC > 0) == (theirs_NC > 0)).all(1).mean()), "kl": max(0.0, cross - own)}
    if ours_NC.shape[1] == 1:
        ours_N, theirs_N = ours_NC[:, 0].astype(np.float64), theirs_NC[:, 0].astype(np.float64)
        return {"mse": float(((ours_N - theirs_N) ** 2).mean()), "pearson": pearson(ours_N, theirs_N)}
    distance, valid_NC = Distance(), torch.ones(ours_NC.shape, dtype=torch.bool)
    distance.add(torch.from_numpy(ours_NC), torch.from_numpy(theirs_NC), valid_NC, are_scores=True)
    assert distance.divergence is not None
    return {"agreement": float((ours_NC.argmax(1) == theirs_NC.argmax(1)).mean()), "kl": distance.divergence}
