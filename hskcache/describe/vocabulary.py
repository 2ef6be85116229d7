"""Description of next tokens."""

from collections import Counter
from math import exp
from typing import Any

from hskcache.counted import counted
from hskcache.describe.abc import Description, told_positions
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
        of, positions = f"of {field.vocab_size:,} tokens", told_positions(field)
        at = f"; {positions}" if positions else ""
        if field.form == "top":
            return f"the {field.count} likeliest {of}, and the rest as one; uint8 steps{at}"
        if field.form == "sampled":
            return f"{counted(field.count or 0, 'draw')} {of}{at}"
        return f"{field.width} values of the last state, and the head that makes logits {of}; {field.encoding}{at}"

    def shown(self, stored: Any) -> list[dict[str, Any]]:
        """Place of every position, the log p of the row's own next token, and the likeliest tokens with their p.

        Of draws their share stands for p; of states there are no tokens. Where the best positions are kept alone,
        they are told by their rank, from 1 on.
        """
        if stored is None:
            return []
        places, golds = stored["positions"].tolist(), stored["gold"].tolist()
        ranks = stored["ranks"].tolist() if "ranks" in stored else [None] * len(places)
        return [
            {"position": place, **({} if rank is None else {"rank": rank}), "gold": round(gold, 4), "tokens": tokens}
            for place, rank, gold, tokens in zip(places, ranks, golds, _best(stored), strict=True)
        ]

    def line(self, shown: Any, label_names: list[str]) -> str | None:
        """Number of positions, and how likely the row's own tokens are on average."""
        if not shown:
            return None
        mean = sum(one["gold"] for one in shown) / len(shown)
        return f"next tokens at {counted(len(shown), 'position')}, log p of the row's own {mean:.2f} on average"

    def positions(self, shown: Any) -> dict[str, list[int]]:
        """Kept positions, best first, where they are not all: under the name ``kept``."""
        ranked = [one["position"] for one in shown if "rank" in one]
        return {"kept": ranked} if ranked else {}

    def following(self, shown: Any) -> dict[int, list[dict[str, Any]]]:
        """The likeliest tokens, or those drawn most often."""
        return {one["position"]: one["tokens"] for one in shown if one["tokens"]}


def _best(stored: Any) -> list[list[dict[str, Any]]]:
    """The likeliest tokens of each position with their p, or the most often drawn ones with their share."""
    if "ids" in stored:
        likeliest = zip(*(stored[name][:, :_MOST_SHOWN].tolist() for name in ("ids", "logp")), strict=True)
        return [[_told(token, exp(logp)) for token, logp in zip(*one, strict=True)] for one in likeliest]
    if "draws" in stored:
        return [_most_drawn(draws) for draws in stored["draws"].tolist()]
    return [[] for _ in stored["positions"]]


def _most_drawn(draws: list[int]) -> list[dict[str, Any]]:
    often = sorted(Counter(draws).items(), key=lambda item: (-item[1], item[0]))
    return [_told(token, count / len(draws)) for token, count in often[:_MOST_SHOWN]]


def _told(token: int, p: float) -> dict[str, Any]:
    return {"id": token, "p": round(p, 4)}
