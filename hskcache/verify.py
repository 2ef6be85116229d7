"""Integrity of a cache from its files alone: no teacher, no data set, no torch."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Key
from pydantic import computed_field

from hskcache.errors import DamageError
from hskcache.spec import Strict
from hskcache.store.additions import ADDING, is_being_added
from hskcache.store.fields import AttentionField, Field, HiddenField, check_positions
from hskcache.store.files import tokenizer_digest
from hskcache.store.ledger import MANIFEST, TOKENIZER, Ledger, read_shard
from hskcache.store.manifest import Manifest
from hskcache.store.record import CONSTANTS, Record, Skipped


class Problem(Strict):
    """Something that is not as it was written.

    Attributes:
        field: the field, or None where the cache as a whole is meant.
        shard: number of the shard, or None where none or the constants are meant.
        file: path within the cache.
        what: what is wrong with the file, to be read after its name.
    """

    field: str | None
    shard: int | None
    file: str
    what: str


class Report(Strict):
    """The outcome.

    Attributes:
        checked_bytes: of shards that were read.
        num_rows: rows of the cache, each of which is in every field once.
        skipped: by field, the rows among them of which it holds nothing, and why.
        problems: everything that is not as it was written.
    """

    checked_bytes: int
    num_rows: int = 0
    skipped: dict[str, list[Skipped]] = Key(default={})
    problems: list[Problem]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """Whether the cache is as it was written."""
        return not self.problems


def verify(root: str | Path, on_progress: Callable[[int], None] | None = None) -> Report:
    """Read every file of a cache and compare it with the manifest.

    Checked are the manifest's digests, that the shards of every field cover every row once, each shard's size, digest,
    checksums, arrays, offsets and positions, each commit record, the tokenizer's digest, and that no other file stands
    there. Entries of the cache's folder that begin with a dot, and a README.md, are left alone: hubs put them there.

    Args:
        root: the cache's directory.
        on_progress: called with the size in bytes of each shard once it is checked.

    Returns:
        What was found; nothing is changed and nothing repaired.

    Raises:
        CacheError: there is no cache.
        MismatchError: the build is not finished, or the format is newer than this program.
    """
    root = Path(root)
    ledger = Ledger(root)
    try:
        manifest = ledger.manifest()
    except DamageError as error:
        what = str(error).removeprefix(f"{root / MANIFEST} ")
        return Report(checked_bytes=0, problems=[Problem(field=None, shard=None, file=MANIFEST, what=what)])
    problems = [Problem(field=None, shard=None, file=MANIFEST, what=f"was edited: {edit}") for edit in manifest.edits()]
    checked_bytes = 0
    for record in manifest.records:
        lengths = _lengths(ledger, manifest, record)
        problems += _shard_problems(ledger, record, manifest.fields[record.field], lengths)
        checked_bytes += record.num_bytes
        if on_progress is not None:
            on_progress(record.num_bytes)
    problems += _tokenizer_problems(root, manifest)
    problems += _extra_problems(ledger, manifest)
    skipped = {
        name: rows for name, records in manifest.shards.items() if (rows := [one for r in records for one in r.skipped])
    }
    return Report(checked_bytes=checked_bytes, num_rows=manifest.request.num_rows, skipped=skipped, problems=problems)


def _shard_problems(
    ledger: Ledger, record: Record, field: Field, lengths: NDArray[np.int64] | None
) -> Iterator[Problem]:
    def problem(path: Path, what: str) -> Problem:
        shard = None if record.shard == CONSTANTS else record.shard
        return Problem(field=record.field, shard=shard, file=path.relative_to(ledger.root).as_posix(), what=what)

    path = ledger.shard_path(record.field, record.shard)
    try:
        arrays = read_shard(path, record, field)
        if lengths is not None:
            check_positions(arrays, lengths)
    except DamageError as error:
        yield problem(path, str(error))
    path = ledger.record_path(record.field, record.shard)
    try:
        if ledger.record(record.field, record.shard) != record:
            yield problem(path, "differs from the manifest's record")
    except FileNotFoundError:
        yield problem(path, "is missing")
    except DamageError as error:
        yield problem(path, str(error).removeprefix(f"{path} "))


def _lengths(ledger: Ledger, manifest: Manifest, record: Record) -> NDArray[np.int64] | None:
    """Tokens of each row of a shard that keeps positions; None for others, or where the inputs are damaged."""
    kept = isinstance(manifest.fields[record.field], HiddenField | AttentionField)
    inputs = manifest.fields.get("inputs")
    if not kept or record.shard == CONSTANTS or inputs is None:
        return None
    try:
        path = ledger.shard_path("inputs", record.shard)
        offsets = read_shard(path, manifest.shards["inputs"][record.shard], inputs, ["row_offsets"])
    except DamageError:
        return None
    lengths: NDArray[np.int64] = np.diff(offsets["row_offsets"])
    return lengths


def _tokenizer_problems(root: Path, manifest: Manifest) -> Iterator[Problem]:
    what = None
    try:
        if tokenizer_digest(root / TOKENIZER) != manifest.request.tokenizer.sha256:
            what = "holds other files than the rows were tokenized with: their digest differs"
    except DamageError:
        what = "is missing or empty"
    if what is not None:
        yield Problem(field=None, shard=None, file=TOKENIZER, what=what)


def _extra_problems(ledger: Ledger, manifest: Manifest) -> Iterator[Problem]:
    expected = {ledger.root / MANIFEST, ledger.root / "README.md"}
    for record in manifest.records:
        expected.add(ledger.shard_path(record.field, record.shard))
        expected.add(ledger.record_path(record.field, record.shard))
    for path in sorted(ledger.root.glob(f"*/{ADDING}")):
        name = path.parent.name
        expected |= {path} if name in manifest.fields else set(path.parent.iterdir())
        left = "this file" if name in manifest.fields else f"the folder {name}"
        what = f"is what adding a field has left that was cut off; give the same command again, or delete {left}"
        if is_being_added(ledger, name):
            what = "tells of a field that a process is adding now; verify again when it is done"
        yield Problem(field=name, shard=None, file=f"{name}/{ADDING}", what=what)
    for path in sorted(ledger.root.rglob("*")):
        inside = path.relative_to(ledger.root)
        if inside.parts[0] == TOKENIZER or inside.parts[0].startswith(".") or path.is_dir() or path in expected:
            continue
        field = inside.parts[0] if inside.parts[0] in manifest.fields else None
        yield Problem(field=field, shard=None, file=inside.as_posix(), what="does not belong to the cache")
