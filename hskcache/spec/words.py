"""Words that a spec may use, and the tables that they stand in."""

from typing import Annotated, Literal, NamedTuple

from hskcache.encoded import ENCODED
from hskcache.table import OneOf, Table


class Admitted(NamedTuple):
    """Positions that a score lets be kept: all, the first alone, or all of them without a choice."""

    first_alone: bool = False
    without_choice: bool = False


SCORES: Table[Admitted] = Table(
    "a score of positions",
    {
        **dict.fromkeys(("attention", "attention-logit", "received", "left", "right", "random"), Admitted()),
        "cls": Admitted(first_alone=True),
        "all": Admitted(without_choice=True),
    },
)
"""Scores by the word that ranks positions; how, ``hskcache.selection.scores`` says."""
ScoreName = Annotated[str, OneOf(SCORES)]
ScoreLayer = Literal["producing", "last", "mapped"]
WidthName = Literal["magnitude", "uniform", "random", "pca", "all"]
EncodingName = Annotated[str, OneOf(ENCODED)]
CodecName = Literal["zstd"]
LayerMapName = Literal["uniform", "top", "bottom"]
PoolingName = Literal["cls", "mean", "max", "last"]
PoolingWord = Literal["model", "cls", "mean", "max", "last"]
PairsName = Literal["none", "next", "random", "mixed"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]
VocabularyForm = Literal["top", "sampled", "head"]
