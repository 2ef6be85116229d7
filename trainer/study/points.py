"""Points of a study: every combination of its axes as what a run is asked for with."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from hskcache.cache import Cache
from hskcache.errors import CacheError, SpecError
from hskcache.nearest import meant
from hskcache.views import View, parse_view
from trainer.recipe import Recipe, load_recipe
from trainer.study.beside import LABELS, SOFT, check_changes, own_changes, recipes_beside
from trainer.study.plan import StudyPlan, Value

_SHORT = {"layers": "l", "tokens": "t", "width": "h"}
"""Axes of the three dimensions, by their letter in the short form."""
_KEEP = ("view", *_SHORT, "dims")
"""Axes that say how much is kept; points of one strategy differ in these alone."""
_PARTS = tuple(name for name in View.model_fields if name not in {*_KEEP, "rows", "fields"})
_OTHERS = ("field", "recipe", "student", "layer-map", "rows")
AXES = (*_KEEP, *_PARTS, *_OTHERS)
"""Axes by name; beside them those of a recipe's stages, such as ``hidden.epochs``."""

_ALL, _EACH = "all", "each"


@dataclass(frozen=True)
class Point:
    """One choice of everything that a study varies.

    Attributes:
        name: unique in its study.
        strategy: the line of the plot that it stands on.
        axes: value by axis, in words.
        view: of the cache, as :func:`hskcache.views.parse_view` reads it; empty: all of it.
        fields: of the cache, in place of its own.
        student: where every seed begins.
        layer_map: which layers learn from which; None: the pairs of the cache.
        num_rows: the first so many rows of the cache alone; None: all.
    """

    name: str
    strategy: str
    axes: Mapping[str, str]
    recipe: Recipe
    student: str
    view: str = ""
    fields: tuple[str, ...] = ()
    layer_map: str | None = None
    num_rows: int | None = None

    @property
    def keep(self) -> str:
        """The view in words."""
        return self.view or "full"


@dataclass(frozen=True)
class Basis:
    """A plan, and what points share beside it.

    Attributes:
        cache: that all learn from.
        student: where points begin that no axis says it of.
        changes: of the recipes' stages, as ``--set`` takes them, beside those of the plan.
        task: whose epochs recipes take; None: none.
        num_rows: of the cache, the first ones; None: all.
    """

    plan: StudyPlan
    cache: Cache
    student: str | None = None
    changes: tuple[str, ...] = ()
    task: str | None = None
    num_rows: int | None = None

    @property
    def all_changes(self) -> list[str]:
        """Changes of the plan, then those that were given."""
        return [*(f"{key}={_word(key, value)}" for key, value in self.plan.changes.items()), *self.changes]


def points_of(basis: Basis) -> list[Point]:
    """The points of a study, in its order.

    Raises:
        SpecError: an axis, a view, a recipe or a stage that there is none of, no student, or two points of one name.
    """
    plan = basis.plan
    for name in dict.fromkeys([*plan.axes, *(axis for own in plan.lines.values() for axis in own)]):
        _check_axis(name)
    lines = plan.lines or {"": {}}
    recipes = {plan.recipe, *(str(one) for own in (plan.axes, *lines.values()) for one in own.get("recipe", ()))}
    check_changes(basis.all_changes, sorted(recipes), "point")
    points = _named(plan, [point for line, own in lines.items() for point in _line(basis, line, {**plan.axes, **own})])
    return [*([_beside(basis, SOFT)] if plan.logits else []), *points]


def _named(plan: StudyPlan, points: Sequence[Point]) -> list[Point]:
    """The points, with their strategy in the names of those that it takes to tell them apart.

    Raises:
        SpecError: two are the same.
    """
    counts = Counter(point.name for point in points)
    told = [
        replace(point, name=f"{point.strategy}, {point.name}") if counts[point.name] > 1 else point for point in points
    ]
    for name, count in Counter(point.name for point in told).items():
        if count > 1:
            raise SpecError(f"the study {plan.name} has the point {name!r} twice; give each once")
    return told


def labels_point(basis: Basis) -> Point | None:
    """The point that learns from gold labels alone, for as many epochs as the study's recipe has; None of no labels."""
    return _beside(basis, LABELS) if basis.plan.labels else None


def _beside(basis: Basis, side: str) -> Point:
    recipe = recipes_beside(basis.plan.recipe, basis.all_changes, basis.task)[side]
    name = side if side == LABELS else f"{side} alone"
    return Point(name, name, {}, recipe, _student(basis, {}), num_rows=basis.num_rows)


def baseline_of(plan: StudyPlan, points: Sequence[Point], labels: Point | None) -> str:
    """Name of the point that differences are taken to.

    Raises:
        SpecError: the plan names one that there is not; names the nearest.
    """
    names = [point.name for point in points] + ([labels.name] if labels else [])
    if plan.baseline is None:
        varied = [point for point in points if point.axes]
        whole = [point for point in varied if not point.view]
        dimensions = [point for point in varied if _kept_words(point.axes) in {"", "full"}]
        return (whole or dimensions or varied[-1:] or list(points))[0].name
    if plan.baseline not in names:
        near = meant(plan.baseline, names)
        raise SpecError(f"--baseline {plan.baseline!r} is no point of the study; there are {', '.join(names)}{near}")
    return plan.baseline


def _check_axis(name: str) -> None:
    """Raise SpecError unless there is such an axis."""
    if name not in AXES and "." not in name:
        raise SpecError(
            f"{name!r} is no axis; there are {', '.join(AXES)}, and settings of a stage such as "
            f"hidden.epochs{meant(name, AXES)}"
        )


def _line(basis: Basis, line: str, axes: Mapping[str, Sequence[Value]]) -> Iterator[Point]:
    """The points of a strategy; none where the study has no axes."""
    values = {name: _expanded(basis.cache, name, some) for name, some in axes.items()}
    varied = {name for name, some in values.items() if len(some) > 1}
    for combination in product(*values.values()):
        yield _point(basis, line, dict(zip(values, combination, strict=True)), varied)


def _point(basis: Basis, line: str, axes: dict[str, str], varied: set[str]) -> Point:
    others = [_told(name, value) for name, value in axes.items() if name not in _KEEP and name in varied]
    strategy = ", ".join(filter(None, [line, *others])) or basis.plan.name
    view = _view(basis.cache, axes)
    rows = axes.get("rows")
    return Point(
        name=_kept_words(axes) or strategy,
        strategy=strategy,
        axes=axes,
        recipe=_recipe(basis, axes),
        student=_student(basis, axes),
        view=view,
        fields=tuple(axes["field"].split("+")) if "field" in axes else (),
        layer_map=axes.get("layer-map"),
        num_rows=basis.num_rows if rows in {None, _ALL} else _number("rows", rows or ""),
    )


def _recipe(basis: Basis, axes: Mapping[str, str]) -> Recipe:
    """The recipe of a point, with the changes of the study and its own.

    Raises:
        SpecError: there is none such, or it has no such stage or setting.
    """
    name = axes.get("recipe", basis.plan.recipe)
    own = [f"{axis}={value}" for axis, value in axes.items() if axis not in AXES]
    return load_recipe(name, [*own_changes(basis.all_changes, name), *own]).for_task(basis.task)


def _student(basis: Basis, axes: Mapping[str, str]) -> str:
    student = axes.get("student") or basis.student or basis.plan.student
    if student is None:
        raise SpecError("the study names no student; give --student, such as tinybert4, or an axis student")
    return student


def _view(cache: Cache, axes: Mapping[str, str]) -> str:
    """The view of a point; empty where it sees all of the cache."""
    parts = [_kept_words(axes)] if _kept_words(axes) != "full" else []
    parts += [f"{name}={axes[name]}" for name in _PARTS if axes.get(name, _ALL) != _ALL]
    text = ",".join(parts)
    view = parse_view(text)
    if view == View():
        return ""
    try:
        is_whole = cache.view(text).manifest is cache.manifest
    except CacheError:
        # Told of all points at once, before the first run.
        is_whole = False
    return "" if is_whole else str(view)


def _kept_words(axes: Mapping[str, str]) -> str:
    """Words on how much is kept: the view, or the dimensions in short; ``full`` of all, or empty."""
    given = [name for name in _KEEP if name in axes]
    if not given:
        return ""
    short = "_".join(f"{axes[name]}{letter}" for name, letter in _SHORT.items() if axes.get(name, _ALL) != _ALL)
    words = [axes[name] for name in ("view",) if axes.get(name, _ALL) not in {_ALL, "full"}]
    dims = [f"dims={axes['dims']}"] if axes.get("dims", _ALL) != _ALL else []
    if words and (short or dims):
        raise SpecError(f"the axes view and {', '.join(set(given) - {'view'})} both say how much is kept; give one")
    return ",".join([*words, *filter(None, [short]), *dims]) or "full"


def _expanded(cache: Cache, name: str, values: Sequence[Value]) -> list[str]:
    """Values of an axis in words; of layers ``each`` stands for every number of them that the map has."""
    words = [_word(name, value) for value in values]
    if name != "layers" or _EACH not in words:
        return words
    most = len(cache.manifest.request.layers)
    return [*map(str, range(1, most)), _ALL]


def _told(axis: str, value: str) -> str:
    """A value as a name tells it."""
    if axis in AXES:
        return value if axis not in {"rows", "copies", "layer-map", "target"} else f"{axis} {value}"
    return f"{axis.rpartition('.')[2]}={value}"


def _word(axis: str, value: Value) -> str:
    """A value as it is typed; YAML takes yes and no for truth values."""
    if isinstance(value, bool):
        return ("yes" if value else "no") if axis in AXES else str(value).lower()
    return str(value)


def _number(axis: str, word: str) -> int:
    if not (word.isascii() and word.isdecimal() and int(word) > 0):
        raise SpecError(f"the axis {axis} has {word!r}, which is no number of {axis}; give such as 1000, or all")
    return int(word)
