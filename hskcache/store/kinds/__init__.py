"""The kinds of field that a cache can hold: one file a kind, and the table of them."""

from typing import Any

from hskcache.store.kinds.abc import Kind, StoredField
from hskcache.store.kinds.attention import AttentionScores
from hskcache.store.kinds.embedding import Embeddings
from hskcache.store.kinds.hidden import HiddenStates
from hskcache.store.kinds.inputs import Inputs
from hskcache.store.kinds.logits import Logits
from hskcache.store.kinds.vocabulary import NextTokens
from hskcache.table import Table

__all__ = ["INPUTS", "KINDS", "LOGITS", "kind_of", "knowledge"]

KINDS: Table[Kind[Any]] = Table(
    "a kind of field",
    {kind.name: kind for kind in (Inputs(), Logits(), HiddenStates(), AttentionScores(), Embeddings(), NextTokens())},
)
"""Kinds by name, in the order in which a build writes them."""

INPUTS = Inputs.name
"""The field of the rows, which every cache has."""

LOGITS = Logits.name
"""The kind that answers what labels do, and the field of a cache's own answers."""


def kind_of(field: StoredField) -> Kind[Any]:
    """The kind of a field."""
    return KINDS[field.kind]


def knowledge() -> list[str]:
    """The kinds that hold what a teacher knows, in the order of the table."""
    return [name for name in KINDS if name != INPUTS]
