"""The manifest of a folder, told from the two files that hold it.

One that is lost, torn or edited is read from the other. Two that are intact and disagree are told apart by what stands
beside them, for pages and constants have names by their digests: a manifest that came from elsewhere lists others. The
copy may list more than the manifest, which counts until it is replaced: something was growing, or it is of former days.
"""

import shlex
from functools import partial
from pathlib import Path

from hskcache.errors import CacheError, DamageError
from hskcache.store.consistency import parse_manifest
from hskcache.store.files import read_document, read_file, sha256_hex
from hskcache.store.manifest import Manifest
from hskcache.store.pages import INDEX, MAX_PAGE_BYTES
from hskcache.store.publishing import COPY, MANIFEST


def readings(root: Path) -> dict[str, Manifest | CacheError]:
    """The manifest and its copy as they can be read, or why they cannot; a file that is missing is left out."""
    contents: dict[str, bytes] = {}
    found: dict[str, Manifest | CacheError] = {}
    for name in (MANIFEST, COPY):
        path = root / name
        try:
            contents[name] = read_document(path)
            known = found.get(MANIFEST)
            if isinstance(known, Manifest) and contents[MANIFEST] == contents[name]:
                found[name] = known
            else:
                found[name] = parse_manifest(contents[name], str(path), partial(read_page, root))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except CacheError as error:
            found[name] = error
    return found


def standing_manifest(root: Path) -> Manifest:
    """The manifest, or its copy where that is intact and the manifest is not, or is that of another cache.

    Args:
        root: the folder.

    Raises:
        MismatchError: a newer format version.
        DamageError: neither can be read.
    """
    found = list(readings(root).values())
    read = [one for one in found if isinstance(one, Manifest)]
    intact = [one for one in read if not one.edits()]
    if len(intact) == 2 and intact[0] is not intact[1] and not belongs(root, intact[0]):
        return max(intact, key=partial(num_standing, root))
    if read and (intact or len(read) == len(found)):
        return (intact or read)[0]
    # What is wrong with the manifest itself says more than what is with its copy.
    errors = [one for one in found if isinstance(one, CacheError)]
    if not errors:
        raise DamageError(f"{root / MANIFEST} is missing")
    if not isinstance(errors[0], DamageError):
        raise errors[0]
    too = f", and so is {COPY}" if len(errors) == 2 else ""
    raise DamageError(f"{errors[0]}{too}; {otherwise(root)}")


def otherwise(root: Path) -> str:
    """Advice where no manifest of a cache is intact: nothing here can tell which of its shards are whole."""
    command = shlex.join(["hskcache", "repair", str(root), "--from"])
    return f"take it from another copy with {command} COPY, or pull or build the cache again into a new folder"


def num_standing(root: Path, manifest: Manifest) -> int:
    """Pages, or in version 1 shards, and constants that a manifest lists and that stand in a folder."""
    return sum(_num_standing(root, manifest, name) for name in manifest.fields)


def belongs(root: Path, manifest: Manifest) -> bool:
    """True if something of every field that a manifest lists stands in a folder."""
    return all(_num_standing(root, manifest, name) for name in manifest.fields)


def lists_more(root: Path, manifest: Manifest) -> bool:
    """True if the copy lists more than the manifest that counts, and it stands in the folder."""
    copy = readings(root).get(COPY)
    if not isinstance(copy, Manifest) or copy.edits() or not belongs(root, copy):
        return False
    return num_standing(root, copy) > num_standing(root, manifest)


def is_foreign(root: Path, manifest: Manifest) -> bool:
    """True if a manifest seems to be that of another cache: pages of a field are missing, and others stand here."""
    if manifest.format.keeps_records or belongs(root, manifest):
        return False
    listed = {root / file.path for file in manifest.index}
    return any(_is_whole(path) for path in root.glob(f"*/{INDEX}/*.jsonl") if path not in listed)


def read_page(root: Path, path: str, most_bytes: int) -> bytes:
    """Content of a page of records, by its path from the cache's folder.

    Raises:
        DamageError: it is no regular file, or larger.
        OSError: it is missing or cannot be read.
    """
    return read_file(root / path, most_bytes)


def _num_standing(root: Path, manifest: Manifest, field: str) -> int:
    paths = [file.path for file in manifest.index if file.field == field]
    if manifest.format.keeps_records:
        paths = [record.path for record in manifest.shards[field]]
    paths += [manifest.constants[field].path] if field in manifest.constants else []
    return sum((root / path).is_file() for path in paths)


def _is_whole(page: Path) -> bool:
    """True if a page has the content that its name tells."""
    try:
        return sha256_hex(read_file(page, MAX_PAGE_BYTES))[:16] in page.name
    except (OSError, DamageError):
        return False
