"""Codecs, by which the bytes of arrays are compressed. How values are stored before that is their encoding.

numcodecs imports all of its codecs and goes on where the package of one is missing, but not where it fails otherwise:
with zfpy 1.0.1.post0 installed it stumbles over ``post0``, and nothing of it can be imported.
"""

import struct
import sys
from abc import ABC, abstractmethod
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.errors import CacheError
from hskcache.spec import CodecName

_OPTIONAL = ("numcodecs.zfpy", "numcodecs.msgpacks", "numcodecs.pcodec")


def _without_optional() -> ModuleType:
    """Import numcodecs as if its optional packages were not installed.

    Raises:
        CacheError: that does not help.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    # None in the place of a module is how Python is told that there is no such module.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        # The module of the codec itself is left over from the first attempt, without the package around it.
        import_module("numcodecs")
        return import_module("numcodecs.blosc")
    except Exception as error:  # noqa: BLE001, whatever another package does at its import
        raise CacheError(
            f"numcodecs cannot be imported ({type(error).__name__}: {error}); "
            "install it anew: pip install --force-reinstall numcodecs"
        ) from None
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def _imported() -> ModuleType:
    try:
        return import_module("numcodecs.blosc")
    except Exception:  # noqa: BLE001, whatever another package does at its import
        return _without_optional()


blosc: Any = _imported()

# Blosc's own threads put blocks into a chunk in the order in which they finish, so bytes would vary from run to run,
# and they do not survive a fork. That a chunk is one block ensures the first even if another library turns them on.
blosc.use_threads = False

CHUNK_BYTES = 4 << 20

Bytes = NDArray[np.uint8]


class Codec(ABC):
    """One way to compress the chunks of an array."""

    @abstractmethod
    def document(self, itemsize: int) -> dict[str, Any]:
        """The entry among the codecs of an array's ``zarr.json``, for items of so many bytes."""

    @abstractmethod
    def encode(self, chunk: NDArray[Any]) -> bytes:
        """A chunk compressed; the same chunk gives the same bytes."""

    @abstractmethod
    def fits(self, payload: Bytes, num_bytes: int) -> bool:
        """True if a compressed chunk says that it decodes to so many bytes and no more."""

    @abstractmethod
    def decode(self, payload: Bytes, out: NDArray[Any]) -> None:
        """Decompress a chunk that :meth:`fits` into ``out``.

        Raises:
            ValueError, RuntimeError: it does not decompress.
        """


class _Zstd(Codec):
    """Blosc (byte shuffle for types wider than a byte, then Zstandard at its lowest level), one block a chunk."""

    _header = struct.Struct("<4xI4xI")

    def document(self, itemsize: int) -> dict[str, Any]:
        settings = {
            "blocksize": CHUNK_BYTES,
            "clevel": 1,
            "cname": "zstd",
            "shuffle": "shuffle" if itemsize > 1 else "noshuffle",
            "typesize": itemsize,
        }
        return {"name": "blosc", "configuration": settings}

    def encode(self, chunk: NDArray[Any]) -> bytes:
        shuffle = 1 if chunk.itemsize > 1 else 0
        payload: bytes = blosc.Blosc(cname="zstd", clevel=1, shuffle=shuffle, blocksize=CHUNK_BYTES).encode(chunk)
        return payload

    def fits(self, payload: Bytes, num_bytes: int) -> bool:
        return len(payload) >= 16 and self._header.unpack(payload[:16].tobytes()) == (num_bytes, len(payload))

    def decode(self, payload: Bytes, out: NDArray[Any]) -> None:
        blosc.Blosc().decode(payload, out)


CODECS: dict[CodecName, Codec] = {"zstd": _Zstd()}
"""Every codec that shards may have, by the name that records give."""

DEFAULT_CODEC: CodecName = "zstd"
