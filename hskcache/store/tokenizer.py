"""The tokenizer's files of a cache: listed, read, and named by one digest."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field as Key

from hskcache.counted import counted
from hskcache.errors import DamageError
from hskcache.store.files import canonical_json, file_sha256, read_file, sha256_hex
from hskcache.store.record import Sha256
from hskcache.strict import Strict

MAX_TOKENIZER_FILES = 256
MAX_TOKENIZER_BYTES = 256 << 20


class TokenizerFile(Strict):
    """A file of the tokenizer, as the manifest lists it."""

    num_bytes: int = Key(ge=0, le=MAX_TOKENIZER_BYTES)
    sha256: Sha256


def tokenizer_files(folder: Path) -> dict[str, TokenizerFile]:
    """The tokenizer's files in a folder, by path within it, sorted.

    Raises:
        DamageError: as :func:`read_tokenizer`.
    """
    files = read_tokenizer(folder)
    return {name: TokenizerFile(num_bytes=len(data), sha256=sha256_hex(data)) for name, data in files.items()}


def digest_of(tokenizer: Mapping[str, bytes]) -> str:
    """Digest that ``files.tokenizer_digest`` gives of a folder with these files."""
    return sha256_hex(canonical_json(sorted((name, sha256_hex(data)) for name, data in tokenizer.items())))


def check_tokenizer_name(name: str, others: Iterable[str]) -> None:
    """Raise unless a tokenizer's file from a stranger stays in its folder and takes no other's place.

    Raises:
        DamageError: it does not; the message does not say where the name is from.
    """
    parts = name.split("/")
    if any(not _is_name(part) for part in parts):
        raise DamageError(f"holds a tokenizer file {name!r:.80}, which is no name within a folder")
    for other in others:
        if other == name or name.startswith(f"{other}/") or other.startswith(f"{name}/"):
            raise DamageError(f"holds a tokenizer file {name!r:.80} twice")


def _is_name(part: str) -> bool:
    """True if a file may be called so, on any file system."""
    return part not in {"", ".", ".."} and part.isprintable() and "\\" not in part and len(part.encode()) < 256


def read_tokenizer(folder: Path) -> dict[str, bytes]:
    """Content of the tokenizer's files by path within their folder, sorted.

    Raises:
        DamageError: one is no file of its own, or they are more or larger than a tokenizer's; names it.
    """
    contents: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        left = MAX_TOKENIZER_BYTES - sum(map(len, contents.values()))
        try:
            contents[path.relative_to(folder).as_posix()] = read_file(path, left)
        except DamageError as error:
            raise DamageError(f"{path} {error}") from None
        if len(contents) > MAX_TOKENIZER_FILES:
            raise DamageError(
                f"{folder} holds more than {counted(MAX_TOKENIZER_FILES, 'file')}, which no tokenizer has"
            )
    return dict(sorted(contents.items()))


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a tokenizer's files, whatever their order on the disk.

    Raises:
        DamageError: the folder is missing or empty, or holds what is no file of its own.
    """
    paths = list(folder.rglob("*"))
    if odd := [path for path in paths if path.is_symlink() or not (path.is_file() or path.is_dir())]:
        raise DamageError(f"{folder} holds {min(odd).name}, which is a symbolic link or no regular file")
    files = [path for path in paths if path.is_file()]
    if not files:
        raise DamageError(f"{folder} is missing or empty; fetch or build the cache again")
    pairs = sorted((path.relative_to(folder).as_posix(), file_sha256(path)) for path in files)
    return sha256_hex(canonical_json(pairs))
