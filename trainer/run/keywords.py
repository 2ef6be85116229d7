"""Training by keywords, which are the options of ``hsktrain fit`` and ``hsktrain finetune``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import inf, nextafter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from hskcache.cache import Cache
from hskcache.errors import SpecError
from hskcache.keywords import LAYOUT, folder_of, layout_of, listed_as_text, one_of, refuse_unknown
from hskcache.text.memory import InMemory, in_memory
from trainer.loading.residency import Residency
from trainer.recipe import Recipe, load_recipe
from trainer.run.request import FinetuneRequest, FitRequest, FromCache, Machine
from trainer.run.requested import finetune as run_finetune
from trainer.run.requested import fit as run

_SOURCE = ("fields", "rows", "residency", "local_dir", "local_bytes", "view")
_RUN = (
    "metric",
    "layer_map",
    "projection",
    "exports_projection",
    "student_dims",
    "seed",
    "changes",
    "eval_steps",
    "tokenizer",
)
_MACHINE = {name: name for name in ("device", "bf16", "save_steps", "pack", "gradient_checkpointing", "report_to")} | {
    "gradient_accumulation": "accumulation"
}
# By their names as keywords, those of the request's attributes.
_TUNING = {"lr": "learning_rate"} | {
    name: name
    for name in (
        "epochs",
        "batch_size",
        "gradient_accumulation",
        "warmup_ratio",
        "weight_decay",
        "patience",
        "metric",
        "max_length",
        "seed",
        "bf16",
        "device",
        "eval_steps",
        "save_steps",
        "report_to",
    )
}
_COUNTS = ("epochs", "batch_size", "gradient_accumulation", "patience", "max_length", "eval_steps", "save_steps")
_RATES = {
    "lr": (nextafter(0.0, 1.0), inf, "a number above 0"),
    "warmup_ratio": (0.0, 1.0, "a share from 0 on and below 1"),
    "weight_decay": (0.0, inf, "a number from 0 on"),
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
            ``tokenizer`` where it has another than the cache. With a tokenizer of its own it reads the texts that the
            cache keeps; one that is named beside a folder is the student's.
        machine: how to compute, in place of ``device``, ``bf16``, ``gradient_accumulation``,
            ``gradient_checkpointing``, ``save_steps``, ``pack`` and ``report_to``.
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
    tokenizer = options.get("tokenizer")
    # One that is named beside a student's folder is the student's; one of a model in memory is saved with it.
    named = str(tokenizer) if isinstance(student, str | Path) and isinstance(tokenizer, str | Path) else None
    with folder_of(student, None if named is not None else tokenizer) as (folder, called):
        own = named or (folder if tokenizer is not None else None)
        request = _request(cache, folder, (eval_data, recipe), options | {"tokenizer": own})
        return run(replace(request, called=called), out, machine or Machine(**computing))


def finetune(
    model: Any, data: Any = None, eval_data: Any = None, *, out: Path | str | None = None, **options: Any
) -> dict[str, Any]:
    """Fine-tune a model on labels and save in ``out`` its best weights; the same call goes on where it was cut off.

    The result is a teacher for :func:`hskcache.build`, or a student without a teacher. ``finetune(request, out)`` is
    the same of a :class:`FinetuneRequest`.

    Args:
        model: ``tinybert4``, ``tinybert6``, a config.json, a folder, a hub id, or a model in memory; with its
            ``tokenizer``, a folder, a hub id or one in memory, where it brings none.
        data: training rows, as :func:`hskcache.build` takes rows.
        eval_data: labelled rows that pick the best evaluation.
        out: folder of the result.
        options: those of ``hsktrain finetune`` by their names without dashes, such as ``task``, ``label``, ``epochs``,
            ``lr``, ``batch_size``, ``max_length``, ``metric``, ``seed``, ``device``.

    Returns:
        Everything that metrics.json holds: ``scores`` by metric, ``best``, ``epochs``.

    Raises:
        CacheError: an option does not exist or cannot be so, or something is missing or does not fit, which is told
            before anything is written.
        Interrupted: by SIGINT or SIGTERM; the same call goes on.
    """
    if isinstance(model, FinetuneRequest):
        target = data if out is None else out
        if target is None:
            raise SpecError("a FinetuneRequest needs out, the folder of the result: give finetune(request, 'teacher')")
        refuse_unknown("trainer.finetune with a FinetuneRequest", options, ("out",))
        return run_finetune(model, target)
    refuse_unknown("trainer.finetune", options, ("out", "data", "eval_data", *LAYOUT, *_TUNING, "tokenizer"))
    if data is None or eval_data is None or out is None:
        raise SpecError(
            "trainer.finetune needs data, eval_data and out: give finetune(model, train, dev, out='teacher')"
        )
    given = {key: _checked(name, options[name]) for name, key in _TUNING.items() if options.get(name) is not None}
    with _model_of(model, options.get("tokenizer")) as (folder, tokenizer, called):
        rows = in_memory(data, "data"), in_memory(eval_data, "eval_data")
        request = FinetuneRequest(
            model=folder,
            data=rows[0],
            eval_data=rows[1],
            layout=layout_of(options),
            tokenizer=tokenizer,
            called=called,
            **given,
        )
        return run_finetune(request, out)


def _checked(name: str, value: Any) -> Any:
    """The value of a keyword of fine-tuning. Raises SpecError for a number that it cannot be."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _COUNTS and not (is_number and value == int(value) >= 1):
        raise SpecError(f"{name} is {value!r}; give a whole number from 1 on")
    if name in _RATES:
        low, high, words = _RATES[name]
        if not (is_number and low <= value < high):
            raise SpecError(f"{name} is {value!r}; give {words}")
    return value


@contextmanager
def _model_of(model: Any, tokenizer: Any) -> Iterator[tuple[str, str | None, str | None]]:
    """Folder of a model, that of its tokenizer where it is another, and the name of a model in memory."""
    if not isinstance(model, str | Path):
        if tokenizer is None:
            raise SpecError(
                "a model in memory brings no tokenizer; give tokenizer, a folder, a hub id or one in memory"
            )
        with folder_of(model, tokenizer) as (folder, called):
            yield folder, None, called
    elif tokenizer is None or isinstance(tokenizer, str | Path):
        yield str(model), None if tokenizer is None else str(tokenizer), None
    else:
        with TemporaryDirectory(prefix="hskcache-") as folder:
            tokenizer.save_pretrained(folder)
            # Called so that the run knows the tokenizer by its content.
            yield str(model), folder, str(model)


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
        options.get("tokenizer"),
    )
    return FitRequest(
        source,
        student,
        recipe.evaluated_every(options.get("eval_steps")),
        _scored(eval_data),
        layout_of(options),
        options.get("metric"),
        listed_as_text(options.get("layer_map")),
        one_of("projection", options.get("projection") or "keep", ("keep", "fresh")),
        bool(options.get("exports_projection", True)),
        options.get("student_dims"),
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
