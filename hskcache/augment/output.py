"""The augmented file while it grows: whole at every recorded moment, and at its name only when it is finished.

Beside ``OUT`` stand ``OUT.partial``, the rows so far, and ``OUT.progress.json``, which says how many bytes of it count,
until the last row is written; then ``OUT.json`` tells how the file was made. A record is written after the bytes it
tells of are on the disk, so a kill at any moment leaves a file that the same command goes on with.
"""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hskcache.difference import first_difference
from hskcache.disk import sync_file, sync_folder, writing_to
from hskcache.errors import CacheError, DamageError, MismatchError
from hskcache.store.files import TEMPORARY_SUFFIX, canonical_json, file_sha256, make_folder, sha256_hex, write_atomic
from hskcache.store.record import Sha256, parse
from hskcache.strict import Strict

_PIECE_BYTES = 1 << 20
# What a request means that does not say it, among them all of before these were settings.
_UNSAID = {"pairs": "both", "possessives": False, "vectors_limit": "none"}


class Counts(Strict):
    """Numbers of rows and of words, by what was done with them.

    Attributes:
        rows_in: rows of the source.
        rows_out: they and their copies.
        masked_lm: eligible words of the source that the masked LM has candidates for.
        vectors: those that have nearest word vectors.
        left: eligible words without a candidate, which stay in every copy.
        replaced_masked_lm: words of all copies that a prediction of the masked LM replaced.
        replaced_vectors: words of all copies that a neighbour replaced.
    """

    rows_in: int = Field(default=0, ge=0)
    rows_out: int = Field(default=0, ge=0)
    masked_lm: int = Field(default=0, ge=0)
    vectors: int = Field(default=0, ge=0)
    left: int = Field(default=0, ge=0)
    replaced_masked_lm: int = Field(default=0, ge=0)
    replaced_vectors: int = Field(default=0, ge=0)

    def __add__(self, other: "Counts") -> "Counts":
        mine, theirs = self.model_dump(), other.model_dump()
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


class Progress(Strict):
    """Progress of a file, or how it was made.

    Attributes:
        identity: SHA-256 of the request.
        request: rows, models and settings, all that decides the bytes.
        counts: of the rows that are written.
        num_bytes: of the file that count.
        sha256: digest of those bytes.
        seconds: spent so far, interruptions left out.
        provenance: names of what the request knows by digest.
    """

    kind: Literal["hskcache augment 1"] = "hskcache augment 1"
    identity: Sha256
    request: dict[str, Any]
    done: bool = False
    counts: Counts = Counts()
    num_bytes: int = Field(default=0, ge=0)
    sha256: Sha256 = hashlib.sha256().hexdigest()
    seconds: float = Field(default=0.0, ge=0)
    provenance: dict[str, Any] = Field(default={})


def identity(request: dict[str, Any]) -> str:
    """The digest that names a request."""
    return sha256_hex(canonical_json(request))


class Output:
    """The files of one augmentation. ``request``: what decides its bytes, as JSON would give it back."""

    def __init__(self, path: Path, request: dict[str, Any]) -> None:
        self.path = path
        self.request = request
        self.partial = path.with_name(f"{path.name}.partial")
        self.progress_path = path.with_name(f"{path.name}.progress.json")
        self.record_path = path.with_name(f"{path.name}.json")
        self._digest = hashlib.sha256()

    def finished(self) -> Progress | None:
        """The record of the file, if it stands here finished and was made by the same request.

        Raises MismatchError if a file stands here that is another one; nothing is touched; DamageError if its record
        cannot be read.
        """
        record = self._read(self.record_path)
        if not self.path.exists():
            return None
        if record is None:
            raise MismatchError(
                f"{self.path} is there already and has no {self.record_path.name}; choose another --out"
            )
        self._check_same(record, self.path)
        if file_sha256(self.path) != record.sha256:
            raise MismatchError(f"{self.path} was changed after it was written; choose another --out, or delete it")
        self._remove_leftovers()
        return record

    def begin(self) -> Progress:
        """Start the file, or find how far it is; bytes beyond the last recorded ones are cut off.

        Raises MismatchError if another request's unfinished file, or another file, stands here; nothing is touched;
        DamageError if the rows so far are not those that were recorded; CacheError if the folder cannot be written.
        """
        progress = self._read(self.progress_path)
        if progress is None:
            if self.partial.exists():
                raise MismatchError(
                    f"{self.partial} is there already and has no {self.progress_path.name}; delete it, or choose "
                    "another --out"
                )
            progress = Progress(identity=identity(self.request), request=self.request)
            self.write(progress)
        self._check_same(progress, self.progress_path)
        with self._writing():
            self._take_up(progress)
        return progress

    def append(self, data: bytes, progress: Progress) -> Progress:
        """Write some rows. Raises CacheError if the disk is full or cannot be written; the rows do not count.

        ``progress``: with them, but for bytes and digest. Returns the same with bytes and digest, as it was recorded.
        """
        with self._writing():
            with self.partial.open("ab") as file:
                file.write(data)
                file.flush()
                sync_file(file)
            self._digest.update(data)
            size = progress.num_bytes + len(data)
            progress = progress.model_copy(update={"num_bytes": size, "sha256": self._digest.hexdigest()})
            self.write(progress)
        return progress

    def finish(self, progress: Progress) -> Progress:
        """Give the file its name, with the record of how it was made beside it."""
        record = progress.model_copy(update={"done": True})
        with self._writing():
            write_atomic(self.record_path, _json(record))
            self.partial.replace(self.path)
            sync_folder(self.path.parent)
            self._remove_leftovers()
        return record

    def write(self, progress: Progress) -> None:
        """Record how far the file is."""
        write_atomic(self.progress_path, _json(progress))

    def _take_up(self, progress: Progress) -> None:
        make_folder(self.path.parent)
        self.partial.touch()
        sync_folder(self.path.parent)
        left = progress.num_bytes
        with self.partial.open("r+b") as file:
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                self._digest.update(piece)
                left -= len(piece)
            if left or self._digest.hexdigest() != progress.sha256:
                raise DamageError(
                    f"{self.partial} does not hold the rows that {self.progress_path.name} tells of; delete both and "
                    "run the command again"
                )
            file.truncate(progress.num_bytes)

    def _read(self, path: Path) -> Progress | None:
        try:
            return parse(Progress, path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"{path}: {error.strerror}; choose another --out") from None
        except DamageError:
            raise MismatchError(f"{path} is not a record of hskcache augment; choose another --out") from None

    def _check_same(self, found: Progress, path: Path) -> None:
        if found.identity == identity(self.request):
            return
        begun, asked = _UNSAID | found.request, _UNSAID | self.request
        if (difference := first_difference(begun, asked)) is not None:
            name, there, wanted = difference
            raise MismatchError(
                f"{path} was begun with {name} = {there!s:.60} and this command asks for {wanted!s:.60}; choose "
                f"another --out, delete it, or ask for the same{_flags(begun, asked)}"
            )
        raise MismatchError(f"{path} is of another command; choose another --out, or delete it")

    def _remove_leftovers(self) -> None:
        self.progress_path.unlink(missing_ok=True)
        for path in (self.progress_path, self.record_path):
            for left in path.parent.glob(f"{path.name}.*{TEMPORARY_SUFFIX}"):
                left.unlink(missing_ok=True)

    def _writing(self) -> AbstractContextManager[None]:
        return writing_to(self.path, "the last whole rows")


def _json(progress: Progress) -> bytes:
    return progress.model_dump_json(indent=1).encode() + b"\n"


def _flags(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The options by which a file goes on, of those that came later; empty where the difference is another."""
    options = {
        "pairs": f"--pairs {there['pairs']}",
        "possessives": "--possessives" if there["possessives"] else "--no-possessives",
        "vectors_limit": f"--vectors-limit {0 if there['vectors_limit'] == 'none' else there['vectors_limit']}",
    }
    differing = [option for name, option in options.items() if there[name] != wanted[name]]
    return f": {' '.join(differing)}" if differing else ""
