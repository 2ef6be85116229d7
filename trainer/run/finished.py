"""Memory of what a finished run was asked for with, so that the same command finds it finished without torch.

It holds the request and the state of the files that were read. Where these are as they were, the run is; where
anything differs, or something is not a file of this machine, the run itself has to be asked, which compares content.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hskcache import __version__, processes
from hskcache.errors import DamageError
from trainer.run.checkpoints import METRICS, RUN, read_json, read_object, write_json
from trainer.run.request import FitRequest, FromCache

ASKED = "asked.json"
_MANIFEST = "manifest.json"


def asked(request: FitRequest) -> dict[str, Any] | None:
    """A request and the sizes and times of the files that it reads, as JSON values; None where not all are files."""
    if processes.count() > 1 or not isinstance(request.source, FromCache) or request.called is not None:
        return None
    rows = [one for one in request.eval_data if isinstance(one, str)]
    if not isinstance(request.source.cache, str | Path) or len(rows) < len(request.eval_data):
        return None
    words = (request.student, request.layout.task_name, request.source.tokenizer)
    named = [Path(word) for word in words if word and Path(word).exists()]
    read = [Path(request.source.cache) / _MANIFEST, *map(Path, rows), *named]
    files = [file for place in read for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    if not all(place.exists() for place in read):
        return None
    states = {str(file.resolve()): [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}
    facts = {"version": __version__, "request": asdict(request), "files": states}
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def finished(request: FitRequest, out: Path) -> dict[str, Any] | None:
    """Metrics of the run in ``out`` if the same request has finished it and nothing that it read has changed since."""
    if not all((out / name).is_file() for name in (METRICS, ASKED)) or (facts := asked(request)) is None:
        return None
    try:
        known = read_json(out / ASKED) == facts | {"run": read_json(out / RUN)}
    except (DamageError, OSError):
        return None
    return read_object(out / METRICS) if known else None


def remember(facts: dict[str, Any] | None, out: Path) -> None:
    """Keep what :func:`asked` gave before a run that is finished now, with the run: another may take its place."""
    if facts is not None:
        write_json(out / ASKED, facts | {"run": read_json(out / RUN)})
