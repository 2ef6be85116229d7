"""Fidelity of a student to its teacher: its answers for the rows of a cache beside the logits stored there.

Nothing is tokenized and no teacher runs: a cache holds the rows as token ids. Dimension letters: N rows, C classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from transformers import PreTrainedModel

from hskcache.cache import Cache
from hskcache.decoded import Distance
from hskcache.decoded.vocabulary import states_of, stored_head
from hskcache.inference import check_fit, predict
from hskcache.metrics import pearson
from hskcache.output_head import OutputHead
from hskcache.ragged import Integers
from hskcache.store.fields import INPUTS, InputsField, LogitsField
from hskcache.store.kinds.vocabulary import VocabularyField, unpacked
from hskcache.store.targets import places_of_targets
from hskcache.text import TokenizedRows
from hskcache.text.first_pieces import stored_pieces
from trainer.likelihood import answers_of, likeliest

Logits = NDArray[np.float32]


def cached_rows(cache: Cache, shard: int) -> TokenizedRows:
    """The rows of a shard. Raises DamageError if it is not as it was written."""
    stored = cache.manifest.shards[INPUTS][shard].arrays
    names = {"row_offsets", "input_ids", "token_type_ids", "positions", "position_offsets", "targets"}
    arrays = cache.read(INPUTS, shard, names & stored.keys())
    offsets = arrays["row_offsets"].astype(np.int64)
    ids, types, words = arrays["input_ids"].astype(np.int32), arrays.get("token_type_ids"), stored_pieces(arrays)
    targets = arrays["targets"].astype(bool) if "targets" in arrays else None
    return TokenizedRows(ids, offsets, types, frozenset(), words=words, targets=targets)


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


class Said(NamedTuple):
    """Next tokens of the rows of a cache, as a model and the cached teacher say them.

    Attributes:
        ours_T: log probabilities of the tokens by the model, float32.
        theirs_T: those by the teacher; NaN where the cache holds nothing.
        num_compared: tokens of which the cache tells the teacher's likeliest; 0 where it keeps draws.
        num_alike: of these, those of which it is the model's likeliest, too.
    """

    ours_T: NDArray[np.float32]
    theirs_T: NDArray[np.float32]
    num_compared: int
    num_alike: int


def said_beside(model: PreTrainedModel, cache: Cache, field: str, bf16: bool, on_rows: Callable[[int], None]) -> Said:
    """Next tokens of every row of a cache, shard by shard; arguments and errors are those of :func:`beside`.

    ``model``: a causal language model; ``field``: of next tokens. Raises TeacherError if the model says none.
    """
    stored = cache.fields[field]
    assert isinstance(stored, VocabularyField)
    shared = {part: torch.from_numpy(array).to(model.device) for part, array in cache.constants(field).items()}
    head = stored_head(stored, shared).cast(torch.float32) if shared else None
    ours, theirs = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    num_compared = num_alike = 0
    cache.ahead((name, shard) for shard in range(len(cache.shards)) for name in (INPUTS, field))
    for shard in range(len(cache.shards)):
        rows = cached_rows(cache, shard)
        check_fit(model, rows, cache.name)
        found = answers_of(model, rows, bf16=bf16, on_rows=on_rows)
        arrays = cache.read(field, shard)
        begin_T = np.repeat(rows.offsets[:-1], np.diff(arrays["position_offsets"]))
        place_T = np.searchsorted(places_of_targets(rows.targets, rows.offsets), begin_T + arrays["positions"] + 1)
        gold_T = np.full(len(found.logp_T), np.nan, np.float32)
        gold_T[place_T] = arrays["gold"]
        if (best_T := _likeliest(stored, arrays, head)) is not None:
            num_compared += len(best_T)
            num_alike += int((found.best_T[place_T] == best_T).sum())
        ours.append(found.logp_T)
        theirs.append(gold_T)
    return Said(np.concatenate(ours), np.concatenate(theirs), num_compared, num_alike)


def _likeliest(
    field: VocabularyField, arrays: Mapping[str, NDArray[Any]], head: OutputHead | None
) -> NDArray[np.int64] | None:
    """The teacher's likeliest token at each position, int64 [T]; None where draws do not tell it."""
    if field.form == "top":
        return unpacked(field, arrays)[:, 0]
    if head is None:
        return None
    states_TD = torch.from_numpy(states_of(field, arrays))
    best: NDArray[np.int64] = likeliest(head, states_TD.to(head.weight_VD.device)).cpu().numpy()
    return best


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
