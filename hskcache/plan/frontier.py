"""Points of a study that are worth their bytes, as choices of ``--keep`` and ``--encoding``."""

from typing import NamedTuple

from hskcache.errors import SpecError
from hskcache.plan.sizes import Kept
from hskcache.spec import Keep, parse_keep
from hskcache.studied import StudyPoint, StudyResults


class Candidate(NamedTuple):
    """A point, with what it keeps."""

    kept: Kept
    point: StudyPoint


def candidates(study: StudyResults) -> tuple[list[Candidate], int]:
    """Points that have a score, and how many of them are more than ``--keep`` and ``--encoding`` say."""
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


def _kept(study: StudyResults, point: StudyPoint) -> Kept | None:
    """Choice that a build would be asked for; None where that takes other options, too."""
    if "field" in point.axes or "rows" in point.axes:
        return None
    if point.encoding is None:
        return Kept(None, None)
    try:
        seen = Keep(None, None, 1.0) if point.keep == "full" else parse_keep(point.keep)
        whole = parse_keep(study.cache_keep or "full")
    except SpecError:
        return None
    if seen is None or whole is None:
        return None
    # What a view leaves out is as the cache has it.
    layers, tokens = (here if here is not None else there for here, there in zip(seen[:2], whole[:2], strict=True))
    fraction = seen.fraction if seen.fraction < 1.0 else whole.fraction
    return Kept(Keep(layers, tokens, fraction), point.encoding)
