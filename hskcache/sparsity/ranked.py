"""A teacher whose heads and neurons, or single weights, are ranked, and what a level of it lacks."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from hskcache.sparsity.artifact import ModelId
from hskcache.sparsity.checkpoint import LevelInfo, SparsityInfo, WeightSparsityInfo
from hskcache.sparsity.levels import Importance, KeptUnits, Ranking, kept_at, kept_weights
from hskcache.sparsity.masks import zeroed
from hskcache.sparsity.subjects import AnyImportance
from hskcache.sparsity.weights import without_weights
from hskcache.teacher.load import Teacher


class Lacking(NamedTuple):
    """A sparse teacher to be: its weights, while a context lasts, and the record of it."""

    zeros: AbstractContextManager[None]
    info: LevelInfo


@dataclass(frozen=True, eq=False)
class Ranked:
    """A teacher and what its heads and neurons, or its single weights, are worth.

    ``importance``: higher stays longer; of single weights [L, P], where the ranking has a scope. ``scores_sha256``:
    digest of the file of scores that it was formed of; None for other methods.
    """

    teacher: Teacher
    ranking: Ranking
    importance: AnyImportance
    scores_sha256: str | None = None

    def at(self, percent: int) -> Lacking:
        """The sparse teacher of a level."""
        ranking, model = self.ranking, self.teacher.model
        common: dict[str, Any] = {
            "percent": percent,
            "method": ranking.method,
            "balance": ranking.balance,
            "seed": ranking.seed,
            "teacher": ModelId(name=self.teacher.info.name, weights_sha256=self.teacher.info.weights_sha256),
            "scores_sha256": self.scores_sha256,
        }
        if isinstance(self.importance, Importance):
            kept = kept_at(self.importance, percent)
            return Lacking(zeroed(model, kept), SparsityInfo(**common, **_units(kept)))
        assert ranking.scope is not None
        kept_LP = kept_weights(self.importance, percent, ranking.scope)
        counts = {
            "num_weights": kept_LP.size,
            "weights_removed": int(kept_LP.size - kept_LP.sum()),
            "weights_kept": kept_LP.sum(1).tolist(),
        }
        info = WeightSparsityInfo(**common, scope=ranking.scope, **counts)
        return Lacking(without_weights(model, kept_LP), info)


def _units(kept: KeptUnits) -> dict[str, Any]:
    """The entries of a record that tell of heads and neurons."""
    return {
        "num_heads": kept.heads_LH.size,
        "heads_removed": int((~kept.heads_LH).sum()),
        "num_neurons": kept.neurons_LF.size,
        "neurons_removed": int((~kept.neurons_LF).sum()),
        "heads_kept": [heads_H.nonzero()[0].tolist() for heads_H in kept.heads_LH],
        "neurons_kept": kept.neurons_LF.sum(1).tolist(),
    }


def kind_of(ranking: Ranking) -> str:
    """The kind of record that a ranking's levels have."""
    info = SparsityInfo if ranking.scope is None else WeightSparsityInfo
    return str(info.model_fields["kind"].default)
