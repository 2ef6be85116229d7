"""The page: what was counted and drawn, put into a template that escapes whatever it is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hskcache import units
from hskcache.cache import Cache
from hskcache.counted import counted
from hskcache.move.card import word
from hskcache.report import charts, curves
from hskcache.report.facts import facts, fields
from hskcache.report.shown import ShownRow, class_name
from hskcache.spelling import Spelling
from hskcache.stats.model import CacheStats, ClassAnswers, FlagAnswers, ScoreAnswers
from hskcache.store.shelf import Directory
from hskcache.studied import StudyResults
from hskcache.versions import version_of

GENERATOR = "hskcache report"
"""Name in the page's head by which a page is known as one of ours."""

_MOST_CLASSES = 12
"""Classes up to which the confusion matrix is a table, and the probabilities of each are drawn."""


@dataclass(frozen=True)
class Content:
    """Everything that a page shows.

    Attributes:
        cache: that it is of.
        stats: counted of it.
        first: rows that are shown.
        rows: these and the wrong ones, by number.
        study: results beside it; None without any.
        view: that the cache is, in words; empty where it is whole.
    """

    cache: Cache
    stats: CacheStats
    first: Sequence[int]
    rows: dict[int, ShownRow]
    study: StudyResults | None = None
    view: str = ""

    @property
    def name(self) -> str:
        """The last part of the cache's path or URL."""
        shelf = self.cache.shelf
        return (
            shelf.root.resolve().name
            if isinstance(shelf, Directory)
            else self.cache.name.rstrip("/").rpartition("/")[2]
        )


def page(content: Content) -> str:
    """The page as HTML."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"bytes": units.human_bytes, "counted": counted, "heads": head_bars}
    style = Markup((here / "page.css").read_text(encoding="utf-8"))  # noqa: S704  (our own file)
    return environment.get_template("page.html").render(style=style, generator=GENERATOR, **_values(content))


def _values(content: Content) -> dict[str, Any]:
    cache, found = content.cache, content.stats
    request = cache.manifest.request
    return {
        "cache": cache,
        "stats": found,
        "teacher": word(request.teacher.name),
        "data": word(request.data.name),
        "name": content.name,
        "view": content.view,
        "version": version_of("hskcache"),
        "facts": facts(cache),
        "fields": fields(cache),
        "charts": charts,
        "curves": curves,
        "study": content.study,
        "has_heads": any(token.heads for row in content.rows.values() for token in row.tokens),
        "rows": [content.rows[number] for number in content.first],
        "answers": [_answers(content, one) for one in found.answers if one.num_rows],
        "spell": Spelling(cache.tokenizer_path).token if found.kept else str,
    }


def _answers(content: Content, answers: ClassAnswers | FlagAnswers | ScoreAnswers) -> dict[str, Any]:
    """Values of the section on one field of answers."""
    names = content.cache.manifest.request.data.label_names
    told: dict[str, Any] = {
        "found": answers,
        "is_classes": isinstance(answers, ClassAnswers),
        "wrong": [(one, content.rows[one.row]) for one in answers.wrong if one.row in content.rows],
        "confusion": None,
        "flags": None,
    }
    if isinstance(answers, FlagAnswers):
        told["flags"] = [(class_name(index, names), one) for index, one in enumerate(answers.classes)]
    if isinstance(answers, ClassAnswers):
        told["classes"] = [class_name(index, names) for index in range(answers.num_classes)]
        if answers.num_classes <= _MOST_CLASSES:
            told["confusion"] = [
                (name, [(count, count / max(sum(row), 1)) for count in row], sum(row))
                for name, row in zip(told["classes"], answers.confusion, strict=True)
            ]
        else:
            told["pairs"] = [pair for pair in answers.pairs if pair.label != pair.answer][:_MOST_CLASSES]
    return told


def head_bars(shares: Sequence[float]) -> Markup:
    """A bar for each head, the highest for the largest share of attention, which is told beside it."""
    most = max(shares, default=0.0) or 1.0
    heights = [f"{max(15 * share / most, 0.5):.1f}" for share in shares]
    path = "".join(f"M{4 * place} 16v-{height}h3v{height}z" for place, height in enumerate(heights))
    width = max(4 * len(shares), 4)
    size = f'viewBox="0 0 {width} 16" width="{width}" height="16"'
    told = f"head {list(shares).index(max(shares))} {100 * max(shares):.0f} %" if shares else ""
    return Markup(f'<svg class="heads" {size} aria-hidden="true"><path d="{path}"/></svg> {told}')  # noqa: S704  (numbers alone)
