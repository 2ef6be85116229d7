"""Words that a spec may use, and the tables that they stand in."""

from typing import Annotated, Literal, NamedTuple

from hskcache.encoded import ENCODED
from hskcache.table import OneOf, Table


class Admitted(NamedTuple):
    """Positions that a score lets be kept: all, the first alone, or all of them without a choice.

    ``ranks_targets``: it can rank the positions of a language model's rows that say a token to be predicted;
    ``targets_alone``: it ranks no others.
    """

    first_alone: bool = False
    without_choice: bool = False
    ranks_targets: bool = False
    targets_alone: bool = False


SCORES: Table[Admitted] = Table(
    "a score of positions",
    {
        **dict.fromkeys(("attention", "attention-logit", "received"), Admitted()),
        **dict.fromkeys(("left", "right", "random"), Admitted(ranks_targets=True)),
        **dict.fromkeys(("entropy", "loss", "last"), Admitted(ranks_targets=True, targets_alone=True)),
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
