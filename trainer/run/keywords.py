"""A training run by keywords: what :func:`trainer.fit` does. The keywords are the options of ``hsktrain fit``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from hskcache.cache import Cache
from hskcache.errors import SpecError
from hskcache.keywords import LAYOUT, folder_of, layout_of, numbers_as_text, one_of, refuse_unknown
from hskcache.text.memory import InMemory, in_memory
from trainer.loading.residency import Residency
from trainer.recipe import Recipe, load_recipe
from trainer.run.request import FitRequest, FromCache, Machine
from trainer.run.requested import fit as run

_SOURCE = ("fields", "rows", "residency", "local_dir", "local_bytes", "view")
_RUN = ("metric", "layer_map", "projection", "exports_projection", "seed", "changes", "eval_steps", "tokenizer")
_MACHINE = {name: name for name in ("device", "bf16", "save_steps", "report_to")} | {
    "gradient_accumulation": "accumulation"
}


def fit(
    cache: Cache | Path | str | FitRequest,
    student: Any = None,
    machine: Machine | None = None,
    *,
    out: Path | str | None = None,
    eval_data: Any = (),
    recipe: str | Path | Recipe = "mud",
    **options: Any,
) -> dict[str, Any]:
    """Train a student from a cache and save it in ``out``; the same call goes on where a cut-off run stopped.

    ``fit(request, out, machine)`` is the same of a :class:`FitRequest`.

    Args:
        cache: the open cache, or a view of one, or its path or URL.
        student: ``tinybert4``, ``tinybert6``, a config.json, a folder, a hub id, or a model in memory, with its
            ``tokenizer`` where it has another than the cache.
        machine: how to compute, in place of ``device``, ``bf16``, ``gradient_accumulation``, ``save_steps``
            and ``report_to``.
        out: folder of the student.
        eval_data: labelled rows that score the student, as ``hskcache.build`` takes rows; of several in a list, or a
            mapping by name, the first picks the best evaluation. None for a corpus.
        recipe: name, file or :class:`Recipe`; ``changes={"prediction.epochs": 3}`` changes it.
        options: those of ``hsktrain fit`` by their names without dashes, such as ``task``, ``label``, ``fields``,
            ``view``, ``rows``, ``layer_map``, ``metric``, ``seed``, ``device``.

    Returns:
        Everything that metrics.json holds: ``scores`` by metric, ``others``, ``stages``.

    Raises:
        CacheError: an option does not exist or cannot be so, or something is missing, damaged or does not fit.
        Interrupted: by SIGINT or SIGTERM; the same call goes on.
    """
    if isinstance(cache, FitRequest):
        target = student if out is None else out
        if target is None:
            raise SpecError("a FitRequest needs out, the folder of the student: give fit(request, 'student')")
        refuse_unknown("trainer.fit with a FitRequest", options, ("out", "machine"))
        return run(cache, target, machine)
    known = ("out", "eval_data", "recipe", "machine", *LAYOUT, *_SOURCE, *_RUN, *_MACHINE)
    refuse_unknown("trainer.fit", options, known)
    if out is None or student is None:
        raise SpecError("trainer.fit needs a student and out, its folder: give fit(cache, 'tinybert4', out='student')")
    computing = {key: options[name] for name, key in _MACHINE.items() if name in options}
    if machine is not None and computing:
        raise SpecError(f"machine says how to compute, and so does {next(iter(computing))}; give one of them")
    with folder_of(student, options.get("tokenizer")) as (folder, _):
        request = _request(cache, folder, (eval_data, recipe), options)
        return run(request, out, machine or Machine(**computing))


def _request(
    cache: Cache | Path | str, student: str, what: tuple[Any, str | Path | Recipe], options: Mapping[str, Any]
) -> FitRequest:
    eval_data, recipe = what
    changes = options.get("changes") or {}
    if isinstance(recipe, Recipe):
        if changes:
            raise SpecError("changes are of a recipe by name or file, and a Recipe was given; change that")
    else:
        recipe = load_recipe(str(recipe), [f"{key}={value}" for key, value in changes.items()])
    fields = options.get("fields") or ()
    source = FromCache(
        cache,
        (fields,) if isinstance(fields, str) else tuple(fields),
        options.get("rows"),
        one_of("residency", options.get("residency") or "auto", get_args(Residency)),
        None if options.get("local_dir") is None else Path(options["local_dir"]),
        options.get("local_bytes"),
        str(options.get("view") or ""),
    )
    return FitRequest(
        source,
        student,
        recipe.evaluated_every(options.get("eval_steps")),
        _scored(eval_data),
        layout_of(options),
        options.get("metric"),
        numbers_as_text(options.get("layer_map")),
        one_of("projection", options.get("projection") or "keep", ("keep", "fresh")),
        bool(options.get("exports_projection", True)),
        int(options.get("seed") or 0),
    )


def _scored(rows: Any) -> tuple[str | InMemory, ...]:
    """Rows that score a student, each by another name. Raises SpecError if two have the same."""
    if isinstance(rows, Mapping) and rows and all(_are_rows(p) or isinstance(p, Mapping) for p in rows.values()):
        found = [in_memory(part, str(name)) for name, part in rows.items()]
    elif isinstance(rows, list | tuple) and all(_are_rows(part) for part in rows):
        found = [in_memory(part, f"eval_data {place}") for place, part in enumerate(rows)]
    else:
        found = [in_memory(rows, "eval_data")]
    names = list(map(str, found))
    for place, name in enumerate(names):
        if name in names[:place]:
            raise SpecError(f"eval_data {name} is given twice; give each once")
    return tuple(found)


def _are_rows(part: Any) -> bool:
    """True of a whole set of rows, not of a column or a row; a path is one."""
    return isinstance(part, str | Path | InMemory) or any(
        hasattr(part, name) for name in ("features", "columns", "schema")
    )
