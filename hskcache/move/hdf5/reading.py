"""An HDF5 file from a stranger: only plain datasets, of the shapes that are expected, and no more memory than those.

HDF5 can follow links to other files, map datasets from elsewhere, load filters from plug-ins and inflate a chunk to any
size. None of that is in a file of ours, and all of it is refused before a value is read.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.errors import DamageError, MismatchError
from hskcache.move.hdf5.layout import (
    BESIDE_DIGEST,
    INDEX,
    LAYOUT_VERSION,
    MANIFEST,
    README,
    StoredDataset,
    beside_sha256,
)
from hskcache.store.beside import MAX_README_BYTES, Beside, checked_manifest
from hskcache.store.files import MAX_DOCUMENT_BYTES
from hskcache.store.ledger import TOKENIZER
from hskcache.store.manifest import Manifest
from hskcache.store.tokenizer import MAX_TOKENIZER_BYTES, MAX_TOKENIZER_FILES, check_tokenizer_name

_MAX_CHUNK_BYTES = 4 << 20
_MAX_RATIO = 100
_DEFLATE, _SHUFFLE, _LZF = 1, 2, 32000
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def manifest_of(path: Path) -> Manifest:
    """The manifest of an HDF5 file.

    Raises:
        DamageError: it is no HDF5 file of a cache, or damaged.
    """
    with opened(path) as source:
        return source.manifest()[0]


@contextmanager
def opened(path: Path) -> Iterator["Hdf5File"]:
    """Open an HDF5 file of a cache to read it.

    Raises:
        DamageError: it is missing, no HDF5 file of a cache, or damaged.
        MismatchError: its layout is newer than this program.
    """
    import h5py

    if not path.is_file():
        raise DamageError(f"{path} is missing or no file; give an HDF5 file that hskcache export wrote")
    with path.open("rb") as begin:
        if begin.read(len(_SIGNATURE)) != _SIGNATURE:
            raise DamageError(f"{path} is no HDF5 file; give one that hskcache export wrote")
    with _reading(path, "the file"):
        file = h5py.File(path, "r")
    try:
        source = Hdf5File(path, file)
        source.check_version()
        yield source
    finally:
        with _reading(path, "the file"):
            file.close()


class Hdf5File:
    """An open HDF5 file of which only what is expected is read.

    Every method raises a DamageError that names the file and the dataset where what is there is something else.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file

    def check_version(self) -> None:
        """Raise unless the file has the layout that this program knows.

        Raises:
            MismatchError: a newer one.
            DamageError: it does not say.
        """
        with _reading(self._path, "layout_version"):
            attribute = self._file.attrs.get_id("layout_version")
            if attribute.shape != () or attribute.dtype.kind not in "iu":
                raise self._damage("layout_version", "is no number")
            version = int(self._file.attrs["layout_version"])
        if version != LAYOUT_VERSION:
            raise MismatchError(
                f"{self._path} is of layout version {version}; this hskcache reads {LAYOUT_VERSION}: upgrade hskcache"
            )

    def manifest(self) -> tuple[Manifest, bytes]:
        """The manifest, whose pages are read from here, and the content of its file."""
        data = self.content(MANIFEST, MAX_DOCUMENT_BYTES)
        return checked_manifest(data, f"{self._path}: {MANIFEST}", self._page), data

    def _page(self, path: str, most_bytes: int) -> bytes:
        return self.content(f"{INDEX}/{path}", most_bytes)

    def beside(self, manifest: Manifest, data: bytes) -> Beside:
        """The tokenizer's files and README.md."""
        with _reading(self._path, TOKENIZER):
            names = self._tokenizer_names()
        tokenizer: dict[str, bytes] = {}
        for name in names:
            left = MAX_TOKENIZER_BYTES - sum(map(len, tokenizer.values()))
            tokenizer[name] = self.content(f"{TOKENIZER}/{name}", left)
        has_readme = self._file.get(README, getlink=True) is not None
        readme = self.content(README, MAX_README_BYTES) if has_readme else None
        if self.content(BESIDE_DIGEST, 32) != beside_sha256(data, readme):
            raise self._damage(f"{MANIFEST} or {README}", "is not as it was exported: the digest differs")
        return Beside(manifest, data, tokenizer, readme)

    def content(self, path: str, most_bytes: int) -> bytes:
        """A file that is stored as bytes."""
        with _reading(self._path, path):
            shape = self._dataset(path).shape
        # Text is not compressed further than this, so one that claims more is there to fill the memory.
        most_bytes = min(most_bytes, _MAX_RATIO * self._path.stat().st_size)
        if len(shape or ()) != 1 or shape[0] > most_bytes:
            raise self._damage(path, f"has the shape {shape!s:.80}, and at most {most_bytes} bytes are expected")
        return self.entries(StoredDataset(path, shape, "uint8", []), 0, shape[0]).tobytes()

    def entries(self, stored: StoredDataset, first: int, last: int) -> NDArray[Any]:
        """Entries [first, last) of a dataset along its first axis, once it is known to be the one that is expected."""
        with _reading(self._path, stored.path):
            dataset = self._dataset(stored.path)
            self._check(dataset, stored)
            if dataset.chunks is not None and last > first:
                self._check_chunks(dataset, stored, range(first, last))
            chunk: NDArray[Any] = dataset[first:last]
        return chunk

    def _found(self, path: str) -> Any:
        """A group or a dataset, by links within the file alone, step by step."""
        import h5py

        here = self._file
        for name in path.split("/"):
            link = here.get(name, getlink=True) if isinstance(here, h5py.Group) else None
            if link is None:
                raise self._damage(path, "is missing")
            if not isinstance(link, h5py.HardLink):
                raise self._damage(path, "is a link to elsewhere")
            here = here[name]
        return here

    def _group(self, path: str) -> Any:
        import h5py

        group = self._found(path)
        if not isinstance(group, h5py.Group):
            raise self._damage(path, "is no group")
        return group

    def _dataset(self, path: str) -> Any:
        import h5py

        dataset = self._found(path)
        if not isinstance(dataset, h5py.Dataset):
            raise self._damage(path, "is no dataset")
        return dataset

    def _tokenizer_names(self) -> list[str]:
        """Paths of the datasets in the tokenizer's group; groups may hold each other, so their number is limited."""
        import h5py

        names, waiting, seen = [], [""], 0
        while waiting:
            above = waiting.pop()
            for name in self._group(f"{TOKENIZER}/{above}".rstrip("/")):
                path, seen = f"{above}{name}", seen + 1
                check_tokenizer_name(path, ())
                if seen > MAX_TOKENIZER_FILES:
                    raise self._damage(
                        TOKENIZER, f"holds more than {counted(MAX_TOKENIZER_FILES, 'file')}, which no tokenizer has"
                    )
                if isinstance(self._found(f"{TOKENIZER}/{path}"), h5py.Group):
                    waiting.append(f"{path}/")
                else:
                    names.append(path)
        return sorted(names)

    def _check(self, dataset: Any, stored: StoredDataset) -> None:
        expected = np.dtype(stored.dtype).newbyteorder("<")
        if dataset.shape != stored.shape or dataset.dtype != expected:
            here, wanted = f"{dataset.dtype} {dataset.shape}", f"{expected} {stored.shape}"
            raise self._damage(stored.path, f"is {here:.80} and should be {wanted:.80}")
        if dataset.is_virtual or dataset.external:
            raise self._damage(stored.path, "lies in other files")
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
        if [code for code in filters if code != _SHUFFLE] not in ([], [_DEFLATE], [_LZF]) or len(filters) > 2:
            raise self._damage(stored.path, f"goes through filters {filters}, which hskcache export does not use")
        if dataset.chunks is None:
            offset = dataset.id.get_offset()
            if stored.num_bytes and (offset is None or offset + stored.num_bytes > self._path.stat().st_size):
                raise self._damage(stored.path, "has no content")
        elif dataset.chunks[1:] != stored.shape[1:] or not 1 <= dataset.chunks[0] <= max(1, stored.shape[0]):
            raise self._damage(stored.path, f"has chunks {dataset.chunks!s:.80}, which hskcache export does not write")

    def _check_chunks(self, dataset: Any, stored: StoredDataset, rows: range) -> None:
        """Raise unless each chunk is there and none grows beyond its size when it is inflated."""
        size = dataset.chunks[0]
        num_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if num_bytes > max(_MAX_CHUNK_BYTES, num_bytes // size):
            raise self._damage(stored.path, f"has chunks of {num_bytes} bytes, which hskcache export does not write")
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
        for start in range(rows.start - rows.start % size, rows.stop, size):
            mask, data = dataset.id.read_direct_chunk((start, *(0 for _ in stored.shape[1:])))
            if _DEFLATE in filters and not mask >> filters.index(_DEFLATE) & 1:
                inflate = zlib.decompressobj()
                if len(inflate.decompress(data, num_bytes + 1)) != num_bytes or not inflate.eof:
                    raise self._damage(stored.path, f"has a chunk of another size at entry {start}")
            elif len(data) > num_bytes:
                raise self._damage(stored.path, f"has a chunk of another size at entry {start}")

    def _damage(self, what: str, problem: str) -> DamageError:
        return DamageError(f"{self._path} is damaged: {what} {problem}; {_AGAIN}")


_AGAIN = "copy or export it again and give the same command, which keeps what is whole"


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the library says of damaged bytes into one line."""
    try:
        yield
    # What it raises depends on where the damage is; names are decoded and sizes multiplied on the way.
    except (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        MemoryError,
        zlib.error,
    ) as error:
        raise DamageError(f"{path} is damaged: {what} cannot be read: {error!s:.200}; {_AGAIN}") from None
