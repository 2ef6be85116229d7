"""Advice on a problem of a cache that could not be mended with what was given."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from hskcache.errors import CacheError, DamageError
from hskcache.recall import column_flags
from hskcache.repair.mending import record_file
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import DataInfo, Manifest
from hskcache.store.publishing import COPY, MANIFEST
from hskcache.store.record import CONSTANTS
from hskcache.store.standing import otherwise
from hskcache.store.survey import ADDING, APPENDING, Complete
from hskcache.verify import Problem

_COPY = "take it from another copy with --from"


def what_to_do(ledger: Ledger, problem: Problem, reasons: Mapping[tuple[str, int], str]) -> str | None:
    """Advice on a problem, to be read after the file's name and ``it``.

    Args:
        ledger: the cache.
        problem: that remains.
        reasons: by field and shard, why one was tried to mend and could not be.

    Returns:
        None where the words of the problem say it themselves.
    """
    if problem.file == MANIFEST:
        return f"is all that tells which shards are whole; {otherwise(ledger.root)}"
    if problem.file == COPY and not _is_intact(ledger):
        return None
    if problem.file == COPY and Complete(ledger.root).is_rivalled:
        return f"lists more that stands here; delete {MANIFEST} to have all of that, or {COPY} to do without it"
    if problem.file.rpartition("/")[2] in {ADDING, APPENDING}:
        return None
    path = ledger.root / problem.file
    if path.is_dir() and problem.file != TOKENIZER:
        return "is a folder where a file is needed; move it away and give the same command again"
    manifest = ledger.intact()
    if problem.file in {file.path for file in manifest.index}:
        return f"is damaged; {_COPY}, or give the command of its build again"
    if problem.file == TOKENIZER:
        return f"is damaged; {_COPY}, or give --teacher and --data, and --remove-extra if it holds a file too many"
    shard = CONSTANTS if problem.shard is None else problem.shard
    if problem.field is None or not _is_listed(manifest, problem):
        return "does not belong to the cache; --remove-extra removes it"
    known = reasons.get((problem.field, shard))
    return known or f"is damaged; {_COPY}, or compute it again: {_repair(ledger, manifest, problem.field, shard)}"


def _is_intact(ledger: Ledger) -> bool:
    try:
        ledger.intact()
    except CacheError:
        return False
    return True


def _is_listed(manifest: Manifest, problem: Problem) -> bool:
    try:
        found = [*manifest.constants.values(), *manifest.shards.get(str(problem.field), ())]
    except DamageError:
        # Of a field whose records cannot be read all is listed that was not told apart from it.
        return False
    names = {one.path for one in found if one.field == problem.field}
    if manifest.format.keeps_records:
        names |= {record_file(one) for one in manifest.shards.get(str(problem.field), ())}
        names |= {record_file(one) for one in manifest.constants.values()}
    return problem.file in names


def _repair(ledger: Ledger, manifest: Manifest, field: str, shard: int) -> str:
    """The command that computes a shard again."""
    row = 0 if shard == CONSTANTS else manifest.request.shards[shard][0]
    return _repair_command(manifest, ledger.root, field, row)


def _repair_command(manifest: Manifest, root: Path, field: str, row: int) -> str:
    """The command that computes a part of a cache again.

    Args:
        manifest: of the cache.
        root: its folder.
        field: that is damaged.
        row: one of the damaged rows.
    """
    words = ["hskcache", "repair", str(root)]
    added = manifest.added.get(field)
    if added is not None:
        return shlex.join([*words, "--field", field, "--teacher", added.teacher.name])
    request = manifest.request
    for part in request.parts:
        if row < part.num_rows:
            break
        row -= part.num_rows
    words += ["--teacher", request.teacher.name, _source_flag(part), part.name]
    return shlex.join([*words, *column_flags(part)])


def _source_flag(part: DataInfo) -> str:
    """Option that names the source of some rows."""
    known = part.provenance
    if part.problem != "language" or known is None or known.language is None:
        return "--corpus" if part.problem == "text" else "--data"
    if known.language.form == "conversations":
        return "--chat"
    return "--corpus" if known.columns is None else "--data"
