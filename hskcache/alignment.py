"""Proof that what is stored of next tokens is about the tokens that stand there in the rows.

The log probability of a row's own next token is stored beside the distribution that it is taken from. Where the two
disagree about the next token of the rows, positions have moved: by one, as a rule.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hskcache.errors import DamageError
from hskcache.store.kinds.vocabulary import VocabularyField, log_probabilities, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Stored = Mapping[str, NDArray[Any]]

_MOST_WRONG = 0.01
"""Share of positions that may disagree; of rows that are aligned none does, of others nearly all."""

_MOST_POSITIONS = 1 << 12
"""Positions that are looked at; of more, as many evenly spread."""


def require_aligned(
    where: str, field: VocabularyField, arrays: "Stored", inputs: "Stored", constants: "Stored | None" = None
) -> None:
    """Raise unless stored next tokens are those of the rows.

    Args:
        where: what to call the field, for messages.
        field: how it is stored.
        arrays: of some rows: those of a shard, or taken from it. Rows that are left out, all of whose values are 0, are
            passed over.
        inputs: ``input_ids`` and ``row_offsets`` of the same rows.
        constants: of the field; of ``head`` alone, and where they are not given, or there is no torch, nothing of it is
            looked at.

    Raises:
        DamageError: they are not; tells whether they are off by one.
    """
    found = misalignment(field, arrays, inputs, constants)
    if found is not None:
        raise DamageError(f"{where} {found}; build it anew")


def require_targets(positions: "NDArray[Any]", begin: "NDArray[np.int64]", asked: "NDArray[np.int64]") -> None:
    """Raise unless positions are those of tokens that are followed by one to be predicted, each once.

    Args:
        positions: in their rows.
        begin: where the tokens of each one's row begin, likewise.
        asked: places among all tokens of those that a target follows, ascending.

    Raises:
        DamageError: they are not, so that answers would be compared that are not of the token.
    """
    import numpy as np

    own = positions.astype(np.int64) + begin
    if not np.isin(own, asked).all():
        raise DamageError("positions holds one that says a token which is no target")
    if len(np.unique(own)) < len(own):
        raise DamageError("positions holds one twice")


def misalignment(
    field: VocabularyField, arrays: "Stored", inputs: "Stored", constants: "Stored | None" = None
) -> str | None:
    """Fault of the places of next tokens, to be read after the name of the field; None: nothing.

    Arguments are as of :func:`require_aligned`.
    """
    import numpy as np

    kept = _known(field, arrays, constants)
    if not len(kept):
        return None
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST_POSITIONS).astype(np.int64))]
    wrong = _share_wrong(field, arrays, _tokens(arrays, inputs, kept, 1), kept, constants)
    if wrong <= _MOST_WRONG:
        return None
    others = {
        what: _share_wrong(field, arrays, _tokens(arrays, inputs, kept, shift), kept, constants)
        for what, shift in (("the token itself", 0), ("the token after the next", 2))
    }
    nearest = min(others, key=lambda what: others[what])
    said = f"holds at {wrong:.0%} of its positions another log probability than its distribution gives the next token"
    if others[nearest] < wrong / 2:
        return f"is off by one: it {said}, and it fits {nearest}"
    return said


def _known(field: VocabularyField, arrays: "Stored", constants: "Stored | None") -> "NDArray[np.int64]":
    """Positions of which something is stored that can be looked at, int64."""
    import numpy as np

    if field.form == "head" and (not constants or find_spec("torch") is None):
        return np.zeros(0, np.int64)
    # No log Z and log p of a build are both 0, and what is left out has both.
    return np.flatnonzero((arrays["log_z"] != 0) | (arrays["gold"] != 0))


def _tokens(arrays: "Stored", inputs: "Stored", kept: "NDArray[np.int64]", shift: int) -> "NDArray[np.int64]":
    """Token of the rows at some positions and a shift, int64; beyond the end of a row the last one."""
    import numpy as np

    offsets, counts = inputs["row_offsets"], np.diff(arrays["position_offsets"])
    starts = np.repeat(offsets[:-1], counts)[kept]
    ends = np.repeat(offsets[1:], counts)[kept]
    tokens: NDArray[np.int64] = inputs["input_ids"][
        np.clip(starts + arrays["positions"][kept].astype(np.int64) + shift, starts, ends - 1)
    ].astype(np.int64)
    return tokens


def _share_wrong(
    field: VocabularyField,
    arrays: "Stored",
    tokens: "NDArray[np.int64]",
    kept: "NDArray[np.int64]",
    constants: "Stored | None",
) -> float:
    """Share of positions whose stored log probability is not what the distribution gives a token."""
    some = {name: array[kept] for name, array in arrays.items() if name != "position_offsets"}
    match field.form:
        case "top":
            is_wrong = _top_is_wrong(field, some, tokens)
        case "sampled":
            is_wrong = _draws_are_wrong(field, some, tokens)
        case "head":
            is_wrong = _states_are_wrong(field, some, tokens, constants or {})
    return float(is_wrong.mean())


def _top_is_wrong(field: VocabularyField, some: "Stored", tokens: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """True where a kept token has another log p than is stored of it, or one that is not kept a larger than these."""
    import numpy as np

    logp_PK = log_probabilities(some)
    gold_P, range_P = some["gold"].astype(np.float64), some["ranges"].astype(np.float64)
    allowed_P = range_P / 255 + (range_P + np.abs(gold_P)) * 2.0**-10 + 0.01
    is_token_PK = unpacked(field, some) == tokens[:, None]
    is_kept_P = is_token_PK.any(1)
    at_P = np.where(is_kept_P, (logp_PK * is_token_PK).sum(1), logp_PK[:, -1])
    return np.where(is_kept_P, np.abs(gold_P - at_P) > allowed_P, gold_P > at_P + allowed_P)


def _draws_are_wrong(field: VocabularyField, some: "Stored", tokens: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """True where a token was drawn a whole time more or less often than n p times, which no systematic draw is."""
    import numpy as np

    draws_Pn = unpacked(field, some)
    num_P = (draws_Pn == tokens[:, None]).sum(1)
    expected_P = np.exp(some["gold"].astype(np.float64)) * draws_Pn.shape[1]
    is_off: NDArray[np.bool_] = np.abs(num_P - expected_P) > 1 + expected_P * 2.0**-7 + 1e-6
    return is_off


def _states_are_wrong(
    field: VocabularyField, some: "Stored", tokens: "NDArray[np.int64]", constants: "Stored"
) -> "NDArray[np.bool_]":
    """True where the head gives a token another log p than is stored, by more than the encoding of states allows."""
    import numpy as np

    from hskcache.decoded.vocabulary import head_weights, states_of

    states_PD = states_of(field, some)
    weights_PD, bias_P = head_weights(field, constants, tokens)
    product_P = (states_PD * weights_PD).sum(1) + bias_P
    # What the encoding moves one value by, see the encodings; floats by their last bit.
    step_P1 = some["scales"][:, None] / 2 if "scales" in some else np.abs(states_PD) * 2.0**-8
    allowed_P = (np.abs(weights_PD) * step_P1).sum(1) * abs(field.scale)
    logits_P = product_P * field.scale
    if field.softcap is not None:
        logits_P = field.softcap * np.tanh(logits_P / field.softcap)
    log_z_P, gold_P = some["log_z"].astype(np.float64), some["gold"].astype(np.float64)
    allowed_P = allowed_P + (np.abs(log_z_P) + np.abs(gold_P)) * 2.0**-10 + 0.02
    is_off: NDArray[np.bool_] = np.abs(logits_P - log_z_P - gold_P) > allowed_P
    return is_off
