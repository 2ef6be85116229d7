"""Views of next tokens: fewer positions, and of the likeliest tokens fewer.

A position is stored alone, so that fewer positions are stored as they are. Of fewer tokens the log p are what they are
in the cache, in its steps; the probability of those that are left out is added to that of the rest.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.encoded import LOG_BOUNDS
from hskcache.errors import MismatchError
from hskcache.resolved import vocabulary_field
from hskcache.spec import Spec, Vocabulary
from hskcache.store.fields import VocabularyField
from hskcache.store.kinds.vocabulary import log_probabilities, packed, unpacked
from hskcache.store.request import LayerKept, TeacherInfo
from hskcache.views.abc import Arrays, Narrowed, ShardContext, ViewedField, first_positions
from hskcache.views.anew import RankedAnew, ranking
from hskcache.views.view import View


class VocabularyNarrowing:
    """Positions and tokens of the knowledge of next tokens."""

    def spec(self, view: View, kept: Vocabulary) -> Vocabulary:
        """The spec with the positions and the number of tokens of the view.

        Raises:
            MismatchError: positions are asked for that nothing ranks.
        """
        changes: dict[str, Any] = {} if view.top is None else {"form": "top", "count": view.top}
        if view.positions and kept.length.is_whole and view.score is None:
            raise MismatchError(
                f"the view {view} asks for the best positions, and next tokens are stored at every position, in the "
                "order of the row, so nothing tells which are best; give score=random, left or last with it, or see "
                "other fields alone, as in fields=hidden"
            )
        if view.length and (view.positions or not kept.length.is_whole):
            changes["length"] = kept.length.model_copy(update=view.length)
        return kept.model_copy(update=changes) if changes else kept

    def pairs(self, spec: Spec, teacher: TeacherInfo) -> dict[str, list[LayerKept]]:
        """No pairs: next tokens are of no layer."""
        return {}

    def field(self, source: ViewedField, kept: Vocabulary) -> Narrowed:
        """The field of the narrower spec.

        Raises:
            MismatchError: it has positions or tokens that are not stored.
        """
        stored, was = source.field, source.request.spec.vocabulary
        field = vocabulary_field(kept, source.request.teacher)
        assert isinstance(stored, VocabularyField)
        assert was is not None
        if kept.form != stored.form:
            form = f"{stored.count} draws a position" if stored.form == "sampled" else "states and the head"
            why = ", and the first of draws that are systematic are no sample" if stored.form == "sampled" else ""
            source.refuse(f"the {kept.count} likeliest tokens are asked for, and {form} are stored{why}; leave top out")
        if field.form == "top" and (field.count or 0) > (stored.count or 0):
            source.refuse(
                f"the {field.count} likeliest tokens are asked for, and {stored.count} are stored; ask for at most "
                f"{stored.count}"
            )
        anew = ranking(source, kept.length, was.length)
        if field.form == "top":
            own = None if field.count == stored.count else stored.count
            field = field.model_copy(update={"num_ranged": stored.num_ranged or own})
        return NarrowedNextTokens(stored, field, kept, anew)


@dataclass(frozen=True)
class NarrowedNextTokens(Narrowed):
    """Next tokens of a view.

    Attributes:
        kept: section of the narrower spec.
        anew: how positions are chosen; None: as in the cache, fewer of them at most.
    """

    source: VocabularyField
    field: VocabularyField
    kept: Vocabulary
    anew: RankedAnew | None = None

    @property
    def told(self) -> list[str]:
        """The positions, where they are others."""
        return [] if self.anew is None else [self.anew.told]

    def needed(self, wanted: Collection[str]) -> list[str]:
        """All arrays of positions: the rest is made anew of several."""
        from hskcache.store.fields import kind_of

        return list(kind_of(self.source).arrays(self.source))

    def constants(self, arrays: Any) -> Arrays:
        """The head, as it is stored."""
        return dict(arrays)

    def shard(self, arrays: Arrays, beside: ShardContext) -> Arrays:
        """Positions first, then tokens."""
        if self.anew is not None:
            arrays = self._ranked(arrays, self.anew, beside)
        elif self.has_other_positions:
            arrays = first_positions(arrays, self.kept.length, beside)
        if self.field.count == self.source.count:
            return arrays
        assert self.field.count is not None
        return arrays | _likeliest(self.source, arrays, self.field.count)

    def _ranked(self, arrays: Arrays, anew: RankedAnew, beside: ShardContext) -> Arrays:
        from hskcache.views.ranking import RankedPositions

        ranked = RankedPositions(anew.length, anew.ranks, beside.tokens())
        places = ranked.places(arrays["positions"], arrays["position_offsets"])
        others = {name: array[places] for name, array in arrays.items() if name != "position_offsets"}
        return {"position_offsets": ranked.offsets, **others}


def _likeliest(field: VocabularyField, arrays: Arrays, count: int) -> Arrays:
    """The arrays of the first ``count`` of the likeliest tokens of positions, and of the rest with all others."""
    low, high = packed(unpacked(field, arrays)[:, :count], field.high_bits)
    logp_PK, log_tail_P = log_probabilities(arrays), arrays["log_tail"].astype(np.float64)
    # Of rows that are left out all values are 0, which no build stores.
    is_there_P = log_tail_P != 0
    rest_P: NDArray[np.float64] = np.logaddexp(log_tail_P, np.logaddexp.reduce(logp_PK[:, count:], axis=1))
    rest_P = np.where(is_there_P, rest_P.clip(*LOG_BOUNDS), 0.0)
    made: Arrays = {"ids": low, "steps": arrays["steps"][:, : count - 1], "log_tail": rest_P.astype(np.float16)}
    return made | ({} if high is None else {"ids_high": high})
