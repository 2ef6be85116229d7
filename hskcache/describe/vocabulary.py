"""Description of next tokens."""

from typing import Any

import numpy as np

from hskcache.counted import counted
from hskcache.describe.abc import Description
from hskcache.store.kinds.vocabulary import VocabularyField

_MOST_SHOWN = 3
"""Tokens of a position that a viewed row tells."""


class DescribedVocabulary(Description[VocabularyField]):
    """The likeliest tokens, draws, or states, at every position that has a target."""

    holds = "distributions of the next token"
    key = "vocabulary"
    noun = "next tokens"
    entries = "tokens"

    def told(self, field: VocabularyField) -> str:
        """Form, counts and the vocabulary."""
        of = f"of {field.vocab_size:,} tokens"
        if field.form == "top":
            return f"the {field.count} likeliest {of}, and the rest as one; uint8 steps"
        if field.form == "sampled":
            return f"{counted(field.count or 0, 'draw')} {of}"
        return f"{field.width} values of the last state, and the head that makes logits {of}; {field.encoding}"

    def shown(self, stored: Any) -> list[dict[str, Any]]:
        """Place of every position, the log p of the row's own next token, and the likeliest tokens with their p.

        Of draws their share stands for p; of states there are no tokens.
        """
        if stored is None:
            return []
        places, golds = stored["positions"].tolist(), stored["gold"].astype(np.float64).round(4).tolist()
        best = _best(stored)
        return [
            {"position": place, "gold": gold, "tokens": tokens}
            for place, gold, tokens in zip(places, golds, best, strict=True)
        ]

    def line(self, shown: Any, label_names: list[str]) -> str | None:
        """Number of positions, and how likely the row's own tokens are on average."""
        if not shown:
            return None
        mean = sum(one["gold"] for one in shown) / len(shown)
        return f"next tokens at {counted(len(shown), 'position')}, log p of the row's own {mean:.2f} on average"

    def following(self, shown: Any) -> dict[int, list[dict[str, Any]]]:
        """The likeliest tokens, or those drawn most often."""
        return {one["position"]: one["tokens"] for one in shown if one["tokens"]}


def _best(stored: Any) -> list[list[dict[str, Any]]]:
    """The likeliest tokens of each position with their p, or the most often drawn ones with their share."""
    if "ids" in stored:
        ids_PK, p_PK = stored["ids"][:, :_MOST_SHOWN], np.exp(stored["logp"][:, :_MOST_SHOWN])
        return [
            [{"id": int(token), "p": round(float(p), 4)} for token, p in zip(*one, strict=True)]
            for one in zip(ids_PK, p_PK, strict=True)
        ]
    if "draws" in stored:
        return [_most_drawn(draws_n) for draws_n in stored["draws"]]
    return [[] for _ in stored["positions"]]


def _most_drawn(draws_n: Any) -> list[dict[str, Any]]:
    ids, counts = np.unique(draws_n, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_SHOWN]
    return [{"id": int(ids[one]), "p": round(float(counts[one] / len(draws_n)), 4)} for one in order]
