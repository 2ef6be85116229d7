"""Growth in a complete cache, for those who judge its files: a field, more rows, and what either has left.

Until a manifest lists it, what grows is none of the cache's own files, but no stranger's either. Once it does, or
nobody can go on with it, it is what a kill has left.
"""

import re
from pathlib import Path
from typing import NamedTuple

from hskcache.errors import DamageError
from hskcache.store.additions import addition_in
from hskcache.store.appending import append_in, forget_append, is_ahead, is_beyond, is_spent, is_unfinished
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.manifest import Manifest
from hskcache.store.pages import INDEX
from hskcache.store.publishing import is_swept
from hskcache.store.survey import ADDING, APPENDING, BUILDING, SPOOL, SPOOL_FILES, Complete

# As write_atomic names them.
_TEMPORARY = re.compile(r".+\.[0-9a-f]+\.tmp")


class Growing(NamedTuple):
    """A field or rows on their way into a complete cache.

    Attributes:
        file: that says what grows, as a path within the cache.
        field: that is being added; None for rows.
        what: to be said of the file, to be read after its name.
        files: all that stand in the cache because of it.
    """

    file: str
    field: str | None
    what: str
    files: set[Path]


def growing(root: Path, manifest: Manifest) -> list[Growing]:
    """Everything that grows in a complete cache, or was cut off while it did; fields first, by name.

    Args:
        root: the cache.
        manifest: of it.
    """
    ledger, state = Ledger(root), Complete(root)
    found = [_addition(ledger, manifest, name) for name in state.being_added]
    if (rows := _rows_under_way(ledger, manifest)) is not None:
        files, what = rows
        found.append(Growing(APPENDING, None, what, files))
    return found


def is_left_over(ledger: Ledger, manifest: Manifest, file: str) -> bool:
    """True if a complete cache has no more use for a file that a build, an addition or an append made.

    Args:
        ledger: the cache.
        manifest: of it.
        file: that it does not list; path within the cache.
    """
    path = Path(file)
    folder = path.parts[0] if len(path.parts) > 1 else ""
    if file == BUILDING or (folder == SPOOL and path.name in SPOOL_FILES and len(path.parts) == 2):
        return SPOOL not in manifest.fields
    if path.name == ADDING and folder in manifest.fields:
        return not addition_in(ledger.root, folder).is_running
    if file == APPENDING:
        return is_spent(ledger, manifest)
    if is_growing(ledger, manifest, file):
        return False
    if folder in manifest.fields and not manifest.format.keeps_records:
        # What has led to the manifest and was not swept away: only what belongs to the cache has another such name.
        is_old_page = len(path.parts) == 3 and path.parts[1] == INDEX and path.suffix == ".jsonl"
        if is_old_page or (len(path.parts) == 2 and is_swept(path.name, manifest)):
            return True
    return folder in {"", TOKENIZER, *manifest.fields} and _TEMPORARY.fullmatch(path.name) is not None


def is_growing(ledger: Ledger, manifest: Manifest, file: str) -> bool:
    """True if a file belongs to a field or rows on their way, or says which those are; arguments as is_left_over."""
    return Path(file).name == ADDING or is_of_append(ledger, manifest, file)


def forget(ledger: Ledger, manifest: Manifest, file: str) -> None:
    """Remove what a file that is left over stands for; nothing where it says of nothing that grew."""
    if file == APPENDING:
        forget_append(ledger, manifest)


def _addition(ledger: Ledger, manifest: Manifest, name: str) -> Growing:
    growth, is_listed = addition_in(ledger.root, name), name in manifest.fields
    left = "this file" if is_listed else f"the folder {name}"
    what = f"is what adding a field has left that was cut off; give the same command again, or delete {left}"
    if growth.is_running:
        what = "tells of a field that a process is adding now; verify again when it is done"
    files = {growth.path} if is_listed else set(growth.path.parent.iterdir())
    return Growing(f"{name}/{ADDING}", name, what, files)


def _rows_under_way(ledger: Ledger, manifest: Manifest) -> tuple[set[Path], str] | None:
    """Files that stand in a cache because of rows that the manifest does not list, or of their appending.

    Returns:
        The files, and what is to be said of ``appending.json``, to be read after its name; None where it is not there.
    """
    growth = append_in(ledger.root)
    if not growth.stands:
        return None
    try:
        draft = growth.said()
    except DamageError as error:
        return {growth.path}, str(error).removeprefix(f"{growth.path} ")
    if not is_ahead(draft, manifest):
        return {growth.path}, "is what appending rows has left, which the cache has by now; delete it"
    folders = [ledger.root, *(ledger.root / name / below for name in manifest.own_fields for below in ("", INDEX))]
    files = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    files = {path for path in files if is_of_append(ledger, manifest, path.relative_to(ledger.root).as_posix())}
    if growth.is_running:
        return files, "tells of rows that a process is appending now; verify again when it is done"
    what = "is what appending rows has left that was cut off; give the same command again, or delete this file"
    if manifest.added:
        what = "is what appending rows has left that was cut off before a field was added; hskcache repair removes it"
    return files | {growth.path}, what


def is_of_append(ledger: Ledger, manifest: Manifest, file: str) -> bool:
    """True if a file belongs to rows that are being appended, or whose appending was cut off.

    Args:
        ledger: the cache.
        manifest: of it.
        file: path within the cache.
    """
    path, growth = Path(file), append_in(ledger.root)
    if ledger.root / file == growth.path:
        return is_unfinished(ledger, manifest)
    if len(path.parts) == 1 and growth.is_torn(path):
        return True
    if path.parts[0] not in manifest.own_fields:
        return False
    if len(path.parts) == 3 and path.parts[1] == INDEX:
        return is_unfinished(ledger, manifest) and file not in {page.path for page in manifest.index}
    if len(path.parts) != 2:
        return False
    return is_beyond(path.name, manifest.request) and is_unfinished(ledger, manifest)
