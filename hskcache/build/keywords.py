"""A build by keywords: what :func:`hskcache.build` does. The keywords are the options of ``hskcache build``."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hskcache.build.keeping import Keeping, build_request
from hskcache.build.request import BuildRequest, Texts
from hskcache.build.requested import build as run
from hskcache.cache import open_cache
from hskcache.errors import SpecError
from hskcache.keywords import LAYOUT, folder_of, layout_of, numbers_as_text, one_of, refuse_unknown
from hskcache.spec import Spec
from hskcache.text.layout import Layout
from hskcache.text.memory import in_memory

if TYPE_CHECKING:
    from hskcache.cache import Cache

_KEEPING = tuple(one.name for one in fields(Keeping) if one.name != "spec_file")
_OTHERS = ("corpus", "spec", "device", "eval_data", "on_nonfinite", "tokenizer")
_LISTED = ("student_layer_numbers", "layer_map", "store_layers", "heads")


def build(teacher: Any, data: Any = None, *, out: Path | str, keep: str | None = None, **options: Any) -> "Cache":
    """Run a teacher over some rows and open the cache that is written, or went on with.

    Rows give the same cache, by its id, whether they are in a file or in memory.

    Args:
        teacher: folder or hub id; or a model in memory, with its ``tokenizer``, which is saved in a temporary folder.
        data: a file, a folder of ``save_to_disk``, ``hub:REPO[:CONFIG]:SPLIT``, a ``datasets.Dataset``, a pandas
            DataFrame, a pyarrow Table, lists by column, a list of rows, or a list of texts.
        out: directory of the cache.
        keep: layers, tokens and share of columns of hidden states, such as ``1l_10t_0.1h``; ``full`` or ``none``.
        options: those of ``hskcache build`` by their names without dashes, such as ``task="sst2"``, ``text``,
            ``label``, ``attention="2l_16t"``, ``encoding``, ``max_length``, ``device``; ``spec`` is also a ``Spec``,
            numbers are also a list, ``corpus`` stands in the place of ``data``, ``eval_data`` is of any kind that
            ``data`` is.

    Raises:
        CacheError: an option does not exist or cannot be so, or something is missing, damaged or does not fit.
    """
    refuse_unknown("hskcache.build", options, ("keep", *LAYOUT, *_KEEPING, *_OTHERS, "out"))
    tokenizer, out = options.pop("tokenizer", None), Path(out)
    with folder_of(teacher, tokenizer) as (folder, called):
        run(replace(_request(folder, data, options | {"keep": keep}), called=called), out)
    return open_cache(out)


def _request(teacher: str, data: Any, options: dict[str, Any]) -> BuildRequest:
    """The request that these say."""
    rows, corpus, spec = None if data is None else in_memory(data), options.get("corpus"), options.get("spec")
    layout = layout_of(options)
    if isinstance(data, list) and layout.is_empty and all(isinstance(row, str) for row in data):
        layout = Layout(text="text")
    keeping = {name: numbers_as_text(options.get(name)) for name in _LISTED}
    keeping = {name: options.get(name) for name in _KEEPING} | keeping
    for name in ("keep", "attention", *_LISTED):
        if not isinstance(keeping[name], str | None):
            raise SpecError(f"{name} is {keeping[name]!r}; give a text, such as '1l_10t_0.1h' for keep")
    base = spec if isinstance(spec, Spec) else None
    file = Path(spec) if spec is not None and base is None else None
    texts = Texts(rows, layout, None if corpus is None else Path(corpus))
    request = build_request(teacher, texts, Keeping(**keeping, spec_file=file), options.get("device") or "auto", base)
    scored = options.get("eval_data")
    return replace(
        request,
        on_nonfinite=one_of("on_nonfinite", options.get("on_nonfinite") or "fail", ("fail", "skip")),
        eval_data=() if scored is None else (in_memory(scored, "eval_data"),),
    )
