"""Subjects of a ranking, which sparse teachers may lack: heads and neurons, or single weights."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from hskcache.sparsity.artifact import (
    UNIT_SCORES,
    WEIGHT_SCORES,
    ScoreInfo,
    ScoresKind,
    load_scores,
    load_weight_scores,
)
from hskcache.sparsity.levels import Importance, Ranking
from hskcache.sparsity.scores import UnitScores, magnitude, random_importance, score
from hskcache.sparsity.weights import WeightScores, random_weights, score_weights, weight_magnitude

AnyScores: TypeAlias = UnitScores | WeightScores
AnyImportance: TypeAlias = Importance | NDArray[np.float32]


class Subject(NamedTuple):
    """Functions that score and rank one subject.

    ``score``: scores it in one pass over some rows, see :func:`hskcache.sparsity.scores.score`; ``load``: reads scores
    that were saved; ``magnitude``: ranks it by the size of its weights; ``random``: ranks it by chance, of a seed.
    """

    kind: ScoresKind
    score: Callable[..., AnyScores]
    load: Callable[[Path], tuple[AnyScores, ScoreInfo]]
    magnitude: Callable[[PreTrainedModel], AnyImportance]
    random: Callable[[PreTrainedModel, int], AnyImportance]


UNITS = Subject(UNIT_SCORES, score, load_scores, magnitude, random_importance)
WEIGHTS = Subject(WEIGHT_SCORES, score_weights, load_weight_scores, weight_magnitude, random_weights)
SUBJECTS = {subject.kind: subject for subject in (UNITS, WEIGHTS)}


def subject_of(ranking: Ranking) -> Subject:
    """Subject of a ranking."""
    return UNITS if ranking.scope is None else WEIGHTS
