"""Next tokens as they are audited."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hskcache.audit.kinds.abc import AuditedKind, ColumnChoice, Fresh, TeacherVectors
from hskcache.build.kinds.vocabulary import VocabularySelector
from hskcache.decoded import Vectors
from hskcache.decoded.vocabulary import stored_head
from hskcache.errors import MismatchError
from hskcache.output_head import OutputHead
from hskcache.resolved import head_of
from hskcache.selection.vocabulary import chunks, top_tokens
from hskcache.store.kinds.vocabulary import VocabularyField
from hskcache.teacher.load import Teacher

_HALF = 2.0**-11
"""Largest relative error of float16 but for its smallest numbers."""
_SMALLEST_STEP = 2.0**-25
"""Half of the step of these."""


class _Now(NamedTuple):
    """Answers that the teacher gives now at the positions of some vectors, [V] or [V, K] each, on the host.

    Attributes:
        log_z_V: log of the sum of exp of the logits.
        at_VK: log p of the stored tokens.
        log_tail_V: log of the probability of all others.
        first_V: the likeliest token.
        ids_VK, logp_VK: the likeliest tokens, where these are what is kept.
    """

    log_z_V: Tensor
    at_VK: Tensor
    log_tail_V: Tensor
    first_V: Tensor
    ids_VK: Tensor
    logp_VK: Tensor


class AuditedVocabulary(AuditedKind[VocabularyField]):
    """Position by position: stored log p, or shares of draws, with the teacher's p of the same tokens; or states."""

    def table(self, field: VocabularyField, fresh: Fresh, layer: int | None, vectors: Vectors) -> TeacherVectors:
        """Values at the stored entries; the choice of tokens, the likeliest one and log Z are compared, too."""
        captured, rows = fresh.batch.captured, fresh.batch.rows
        assert captured.final is not None
        places_V = vectors.rows_V * rows.input_ids_BL.shape[1] + vectors.positions_V
        states_VD = captured.final.flatten(0, 1).index_select(0, places_V.to(captured.final.device))
        is_top, stored_z = field.form == "top", torch.from_numpy(fresh.arrays["log_z"]).float()
        ids_VK = vectors.entries_VE[:, : field.count].clamp(min=0) if field.count else vectors.entries_VE[:, :0]
        assert isinstance(fresh.selector, VocabularySelector)
        now = _now(fresh.selector, states_VD, ids_VK)
        log_z_V = (stored_z - now.log_z_V).abs()
        if field.form == "head":
            values_VD = states_VD.float().cpu()
            shared = {name: torch.from_numpy(part).to(states_VD.device) for name, part in fresh.constants.items()}
            stored = stored_head(field, shared)
            kl_V, same_first_V = _apart(stored, vectors.values_VE, fresh.selector.head, states_VD)
            return TeacherVectors(
                values_VD,
                values_VD.abs().amax(-1),
                same_first_V=same_first_V,
                log_z_error_V=log_z_V,
                kl_V=kl_V,
            )
        if not is_top:
            # No token is drawn a whole time more or less often than n p times.
            bound_VE = torch.full(now.at_VK.shape, 1.0 / now.at_VK.shape[-1])
            ones_V = torch.ones(len(log_z_V))
            return TeacherVectors(now.at_VK.exp(), ones_V, bound_VE=bound_VE, is_gathered=True, log_z_error_V=log_z_V)
        values_VE = torch.cat([now.at_VK, now.log_tail_V.unsqueeze(-1)], -1)
        return TeacherVectors(
            values_VE,
            values_VE.abs().amax(-1).clamp(min=1.0),
            bound_VE=_bound(field, vectors, torch.from_numpy(fresh.arrays["ranges"]).float()),
            is_gathered=True,
            choice=_choice(ids_VK, now),
            same_first_V=ids_VK[:, 0] == now.first_V,
            log_z_error_V=log_z_V,
        )

    def stored_as(self, field: VocabularyField) -> str:
        """The encoding of states, else the form."""
        return field.encoding or field.form

    def chooses(self, field: VocabularyField) -> bool:
        """True where the likeliest tokens are kept."""
        return field.form == "top"

    def columns(self, field: VocabularyField, vectors: Vectors, table: TeacherVectors) -> ColumnChoice:
        """Kept tokens and the likeliest ones."""
        assert table.choice is not None
        return table.choice

    def check_shape(self, field: VocabularyField, teacher: Teacher, where: str) -> None:
        """Raise unless the teacher says as many tokens."""
        head = head_of(teacher.info)
        if head is None or head["vocab_size"] != field.vocab_size:
            said = "says no next tokens" if head is None else f"says one of {head['vocab_size']:,} tokens"
            raise MismatchError(
                f"{teacher.info.name} {said}, and {where} holds distributions over {field.vocab_size:,}; give the "
                "teacher that it was built with"
            )


def _now(selector: VocabularySelector, states_VD: Tensor, ids_VK: Tensor) -> _Now:
    """Logits in chunks of positions, and what is asked of them."""
    count = max(1, ids_VK.shape[1])
    parts = []
    for chunk in chunks(len(states_VD), selector.field.vocab_size):
        logits_CV, _ = selector.head.logits(states_VD[chunk])
        log_z_C, ids_CK = logits_CV.logsumexp(-1), ids_VK[chunk].to(logits_CV.device)
        at_CK = logits_CV.gather(1, ids_CK) - log_z_C.unsqueeze(-1)
        log_tail_C = logits_CV.scatter(1, ids_CK, -torch.inf).logsumexp(-1) - log_z_C
        top, _ = top_tokens(logits_CV, count)
        parts.append(_Now(log_z_C, at_CK, log_tail_C, top.ids_PK[:, 0], top.ids_PK, top.logp_PK))
    if not parts:
        none = torch.zeros(0)
        return _Now(none, ids_VK.float(), none, none.long(), ids_VK, ids_VK.float())
    return _Now(*(torch.cat(one).cpu() for one in zip(*parts, strict=True)))


def _apart(then: OutputHead, then_VD: Tensor, now: OutputHead, now_VD: Tensor) -> tuple[Tensor, Tensor]:
    """KL in nats of what heads make of states, then from now, and whether their likeliest token is the same, [V]."""
    kl, same = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    then_VD = then_VD.to(then.weight_VD)
    for chunk in chunks(len(now_VD), now.weight_VD.shape[0]):
        then_CV = then.logits(then_VD[chunk])[0].log_softmax(-1)
        now_CV = now.logits(now_VD[chunk])[0].log_softmax(-1)
        same.append((then_CV.argmax(-1) == now_CV.argmax(-1)).cpu())
        kl.append(F.kl_div(then_CV, now_CV, reduction="none", log_target=True).sum(-1).cpu())
    return torch.cat(kl), torch.cat(same)


def _bound(field: VocabularyField, vectors: Vectors, range_V: Tensor) -> Tensor:
    """Largest errors of log p and of that of the rest, [V, K + 1], see :func:`hskcache.selection.stored_top`."""
    logp_VK, tail_V = vectors.values_VE[:, :-1], vectors.values_VE[:, -1]
    # The log of what is kept moves with the tail, most where that is nearly all.
    kept_V = _HALF + _SMALLEST_STEP / tail_V.abs().clamp(min=_SMALLEST_STEP)
    bound_V = range_V / 255 + 2 * _HALF * range_V + 2 * kept_V
    tail = tail_V.abs() * _HALF + _SMALLEST_STEP
    if field.num_ranged is not None:
        # Tokens whose log p was stored in steps are a part of the rest.
        tail = tail + bound_V
    return torch.cat([bound_V.unsqueeze(-1).expand(logp_VK.shape), tail.unsqueeze(-1)], -1)


def _choice(ids_VK: Tensor, now: _Now) -> ColumnChoice:
    """Stored tokens, and behind them those of the likeliest that are not among them, [V, 2 K]."""
    same_VKK = ids_VK.unsqueeze(-1) == now.ids_VK.unsqueeze(1)
    is_likeliest, is_stored = same_VKK.any(2), same_VKK.any(1)
    true = torch.ones_like(is_stored)
    return ColumnChoice(
        torch.cat([true, ~true], -1),
        torch.cat([is_likeliest, ~is_stored], -1),
        torch.cat([now.at_VK, now.logp_VK.masked_fill(is_stored, -torch.inf)], -1),
    )
