"""A build, and a field to add, by keywords. The keywords are the options of ``hskcache build``."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hskcache.build.keeping import Keeping, build_request, keeping_of
from hskcache.build.request import AdditionRequest, BuildRequest, Texts, WorkerPart, alone
from hskcache.build.requested import add_field as run_addition
from hskcache.build.requested import build as run
from hskcache.cache import Cache, open_cache
from hskcache.errors import MismatchError, SpecError
from hskcache.keywords import LAYOUT, folder_of, layout_of, listed_as_text, one_of, refuse_unknown
from hskcache.remote.place import open_any
from hskcache.spec import Packing, Spec
from hskcache.store.kinds import knowledge
from hskcache.text.layout import Layout
from hskcache.text.memory import in_memory

_KEEPING = tuple(one.name for one in fields(Keeping) if one.name != "spec_file")
# The rows, and how they lie in shards, are those of the cache.
_ADDING = tuple(name for name in _KEEPING if name not in {"max_length", "shard_rows", *Packing.model_fields})
_ROWS = ("corpus", "chat", "roles", "one_document", "copy", "keep_text")
_OTHERS = (*_ROWS, "spec", "device", "eval_data", "on_nonfinite", "part", "tokenizer")
_LISTED = ("student_layer_numbers", "layer_map", "store_layers", "heads")


def build(teacher: Any, data: Any = None, *, out: Path | str, keep: str | None = None, **options: Any) -> Cache:
    """Run a teacher over some rows and open the cache that is written, or went on with.

    Rows give the same cache, by its id, whether they are in a file or in memory.

    Args:
        teacher: folder or hub id; or a model in memory, with its ``tokenizer``, which is saved in a temporary folder.
        data: a file, a folder of ``save_to_disk``, ``hub:REPO[:CONFIG]:SPLIT``, a ``datasets.Dataset``, a pandas
            DataFrame, a pyarrow Table, lists by column, a list of rows, or a list of texts.
        out: directory of the cache, or the URL of a bucket.
        keep: layers, tokens and share of columns of hidden states, such as ``1l_10t_0.1h``; ``full`` or ``none``.
        options: those of ``hskcache build`` by their names without dashes, such as ``task="sst2"``, ``text``,
            ``label``, ``attention="2l_16t"``, ``encoding``, ``max_length``, ``device``; ``spec`` is also a ``Spec``,
            numbers are also a list, ``corpus`` stands in the place of ``data``, ``eval_data`` is of any kind that
            ``data`` is.

    Raises:
        CacheError: an option does not exist or cannot be so, or something is missing, damaged or does not fit.
    """
    refuse_unknown("hskcache.build", options, ("keep", *LAYOUT, *_KEEPING, *_OTHERS, "out"))
    tokenizer, part = options.pop("tokenizer", None), options.get("part")
    with folder_of(teacher, tokenizer) as (folder, called):
        request = replace(_request(folder, data, options | {"keep": keep}), called=called)
        done = run(replace(request, part=None if part is None else WorkerPart.parse(str(part))), out)
    if done.manifest is None:
        raise MismatchError(f"part {part} of {out} is written, and others are not; write these, then open the cache")
    return open_any(out)


def add_field(
    cache: Cache | Path | str, teacher: Any, *, kind: str, name: str, keep: str | None = None, **options: Any
) -> Cache:
    """Add to a cache what another teacher knows of its rows, and open it anew; the same call goes on where it stopped.

    The rows are those of the cache, so that no data set is needed; what was there stays as it is.

    Args:
        cache: in a folder: open, or its path.
        teacher: as of :func:`build`; it must have the vocabulary of the cache's teacher.
        kind: of knowledge: ``logits``, ``hidden`` or ``attention``.
        name: of the field, such as ``large``.
        keep: of hidden states, as of :func:`build`.
        options: ``attention``, ``spec``, ``encoding``, ``layer_map``, ``device`` and the others of ``hskcache build``
            that say what to keep and how to compute.

    Raises:
        CacheError: an option does not exist or cannot be so, the cache has another field of that name, or something is
            missing, damaged or does not fit.
    """
    refuse_unknown("hskcache.add_field", options, ("keep", *_ADDING, "spec", "device", "on_nonfinite", "tokenizer"))
    one_of("kind", kind, knowledge())
    root = cache.root if isinstance(cache, Cache) else Path(cache)
    keeping, base = _keeping(options | {"keep": keep})
    with folder_of(teacher, options.get("tokenizer")) as (folder, called):
        request = AdditionRequest(folder, root, kind, name, base or alone(kind), *_how(options), called)
        run_addition(keeping_of(request, keeping))
    return open_cache(root)


def _how(options: Mapping[str, Any]) -> tuple[str, Any]:
    """Device to compute on, and what becomes of values that are not finite."""
    on_nonfinite = one_of("on_nonfinite", options.get("on_nonfinite") or "fail", ("fail", "skip"))
    return str(options.get("device") or "auto"), on_nonfinite


def _keeping(options: Mapping[str, Any]) -> tuple[Keeping, Spec | None]:
    """Options that say what to keep, and the spec in memory that holds where nothing is."""
    values = {name: options.get(name) for name in _KEEPING}
    values |= {name: listed_as_text(values[name]) for name in _LISTED}
    for name in ("keep", "attention", "embedding", "vocabulary", "prompt", *_LISTED):
        if not isinstance(values[name], str | None):
            raise SpecError(f"{name} is {values[name]!r}; give a text, such as '1l_10t_0.1h' for keep")
    spec = options.get("spec")
    base = spec if isinstance(spec, Spec) else None
    return Keeping(**values, spec_file=None if spec is None or base is not None else Path(spec)), base


def _of_language(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options on rows of a language model."""
    chat, roles = options.get("chat"), options.get("roles")
    if not isinstance(chat, str | Path | None):
        raise SpecError(f"chat is a {type(chat).__name__}; give the path of a .jsonl file")
    return {
        "one_document": bool(options.get("one_document")),
        "chat": None if chat is None else Path(chat),
        "roles": (roles,) if isinstance(roles, str) else None if roles is None else tuple(roles),
    }


def _request(teacher: str, data: Any, options: dict[str, Any]) -> BuildRequest:
    """The request that these say."""
    rows, corpus, scored = None if data is None else in_memory(data), options.get("corpus"), options.get("eval_data")
    if not isinstance(corpus, str | Path | None):
        raise SpecError(
            f"corpus is a {type(corpus).__name__}; give the path of a text file, a sentence or paragraph a line"
        )
    layout = layout_of(options)
    if isinstance(data, list) and layout.is_empty and all(isinstance(row, str) for row in data):
        layout = Layout(text="text")
    keeping, base = _keeping(options)
    device, on_nonfinite = _how(options)
    corpus = None if corpus is None else Path(corpus)
    texts = Texts(rows, layout, corpus, options.get("copy"), bool(options.get("keep_text")), **_of_language(options))
    request = build_request(teacher, texts, keeping, device, base)
    eval_data = () if scored is None else (in_memory(scored, "eval_data"),)
    return replace(request, on_nonfinite=on_nonfinite, eval_data=eval_data)
