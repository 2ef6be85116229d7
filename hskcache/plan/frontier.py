"""Points of a study that are worth their bytes, as choices of ``--keep`` and ``--encoding``."""

from typing import NamedTuple

from hskcache.errors import SpecError
from hskcache.plan.sizes import KeepChoice
from hskcache.spec import Keep, parse_keep
from hskcache.studied import StudyPoint, StudyResults
from hskcache.views import View, parse_view

_OPTIONS = {"target": "depth_target", "score": "score", "specials": "specials", "columns": "width"}
"""Parts of a view that choose anew, with the options of a build that say the same."""


class Candidate(NamedTuple):
    """A point, with what it keeps."""

    kept: KeepChoice
    point: StudyPoint


def candidates(study: StudyResults) -> tuple[list[Candidate], int]:
    """Points that have a score, and how many of them take more than options of hidden states."""
    scored = [point for point in study.points if point.mean is not None]
    found = [Candidate(kept, point) for point in scored if (kept := _kept(study, point)) is not None]
    return found, len(scored) - len(found)


def frontier(found: list[Candidate]) -> list[Candidate]:
    """Those with a better score than every one of fewer bytes, in the order of bytes."""
    best: list[Candidate] = []
    for one in sorted(found, key=lambda one: (one.point.bytes_per_row, -(one.point.mean or 0.0))):
        if not best or (one.point.mean or 0.0) > (best[-1].point.mean or 0.0):
            best.append(one)
    return best


def _kept(study: StudyResults, point: StudyPoint) -> KeepChoice | None:
    """Choice that a build would be asked for; None where that takes more than options of hidden states."""
    if "field" in point.axes or "rows" in point.axes:
        return None
    if point.encoding is None:
        return KeepChoice(None, None)
    try:
        view, whole = View() if point.keep == "full" else parse_view(point.keep), parse_keep(study.cache_keep or "full")
    except SpecError:
        return None
    if (
        whole is None
        or view.attention
        or view.rows
        or view.fields
        or not (view.layers is None or type(view.layers) is int)
    ):
        return None
    # What a view leaves out is as the cache has it.
    chosen = whole if view.tokens is None and view.share is None else view
    keep = Keep(view.layers or whole.layers, chosen.tokens, view.width or whole.fraction, chosen.share)
    others = {option: getattr(view, name) for name, option in _OPTIONS.items()}
    return KeepChoice(keep, point.encoding, tuple((name, value) for name, value in others.items() if value is not None))
