"""Descriptions of each kind of knowledge for people and other programs: one file a kind, and the table of them."""

from typing import Any

from hskcache.describe.abc import Description
from hskcache.describe.attention import DescribedAttention
from hskcache.describe.embedding import DescribedEmbedding
from hskcache.describe.hidden import DescribedHidden
from hskcache.describe.inputs import DescribedInputs
from hskcache.describe.logits import DescribedLogits
from hskcache.describe.vocabulary import DescribedVocabulary
from hskcache.spec import Spec, format_keep
from hskcache.store.fields import KINDS
from hskcache.table import Table

__all__ = ["DESCRIPTIONS", "Description", "asked"]

DESCRIPTIONS: Table[Description[Any]] = Table(
    "a kind that is described",
    {
        "inputs": DescribedInputs(),
        "logits": DescribedLogits(),
        "hidden": DescribedHidden(),
        "attention": DescribedAttention(),
        "embedding": DescribedEmbedding(),
        "vocabulary": DescribedVocabulary(),
    },
)
"""Descriptions by the name of the kind."""


def asked(spec: Spec) -> dict[str, str]:
    """Short forms of what a spec keeps, by the option for it, of every kind of which there is something to say."""
    return {one.flag: format_keep(KINDS[name].kept(spec)) for name, one in DESCRIPTIONS.items() if one.flag}
