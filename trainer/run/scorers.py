"""Choice of what scores the students of some knowledge."""

from collections.abc import Collection
from typing import Any

from hskcache.recall import of_cache
from hskcache.text.language.sources import is_text
from hskcache.text.layout import Layout
from hskcache.text.memory import InMemory
from trainer.run.scoring import NoScorer, PairScorer, Scorer, TaskScorer
from trainer.run.speaking import LanguageScorer
from trainer.source.knowledge import Knowledge


def scorer_of(
    knowledge: Knowledge, kinds: Collection[str], layout: Layout, data: str | InMemory | None, metric: str | None
) -> Scorer[Any]:
    """Scorer of the students of some knowledge.

    Columns of rows of a task that the user did not name are those that the rows of the knowledge were read with; not of
    an embedder: what it learned from are texts, and what scores it are pairs. ``kinds``: that they learn from;
    ``data``: the rows; None: there are none.
    """
    if (field := knowledge.embedded(kinds)) is not None:
        return PairScorer(knowledge, layout, metric, field)
    if knowledge.has_language:
        if data is not None and not is_text(data):
            layout = layout.recalling(of_cache(knowledge.where, knowledge.request), data)
        return LanguageScorer(knowledge, layout, metric)
    if data is not None:
        layout = layout.recalling(of_cache(knowledge.where, knowledge.request), data, labelled=True)
    return (TaskScorer if knowledge.has_task else NoScorer)(knowledge, layout, metric)
