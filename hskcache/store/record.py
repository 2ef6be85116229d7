"""Record of one shard file: what it must be, written once the shard is whole, and again in the manifest."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from hskcache.errors import DamageError
from hskcache.spec import CodecName
from hskcache.strict import Strict, first_problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONSTANTS = -1
"""Shard number of what all rows of a field share."""

# No file system has longer names, and a file's own ending must fit.
_FIELD_NAME = r"[a-z0-9][a-z0-9_-]{0,99}"

FieldName = Annotated[str, Field(pattern=rf"^{_FIELD_NAME}$")]
"""A field is a folder of the cache, so a name from a stranger's manifest must not lead out of it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Count = Annotated[int, Field(ge=0, le=1 << 62)]
"""A number that a stranger may give, and with which one may still reckon."""

FileBytes = Annotated[int, Field(ge=0, le=1 << 40)]
"""Size of a shard's file; the sum over as many shards as there may be fits into 64 bits."""

_DIGITS = 16
_FACTS = ("field", "shard", "start", "stop", "num_nonfinite", "skipped")

# Threads write and read records; of two that need a validator at first, older pydantic takes it from one of them.
_BUILT = ConfigDict(defer_build=False)

Model = TypeVar("Model", bound=Strict)


class ArrayInfo(Strict):
    """Shape and numpy dtype of a stored array."""

    model_config = _BUILT

    shape: list[Count]
    dtype: str

    @property
    def memory_bytes(self) -> int:
        """Bytes of the array in memory, decompressed and still encoded."""
        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class StoredArray(ArrayInfo):
    """An array of a shard, and where its part of the shard's file is.

    Attributes:
        codec: how its bytes are compressed.
        offset, num_bytes: its part of the file, [offset, offset + num_bytes): all of its entries and no others.
        sha256: digest of that part.
    """

    codec: CodecName
    offset: Count
    num_bytes: Count
    sha256: Sha256


class Skipped(Strict):
    """A row of a field that holds zeros in place of what the teacher gave.

    Attributes:
        row: of the cache, counted from 0.
        reason: why; ``nonfinite`` is NaN or infinity.
    """

    model_config = _BUILT

    row: Count
    reason: Literal["nonfinite"]


class Record(Strict):
    """A shard that is complete; in version 1 of the format its file is named by its number.

    Attributes:
        field: the folder it is in.
        shard: its number, or ``CONSTANTS``.
        start: first row.
        stop: one past the last row; 0 to 0 for constants.
        num_bytes: size of the shard file.
        sha256: digest of the shard file.
        num_nonfinite: NaN and infinities among the values it was made from.
        skipped: rows of which nothing was kept, ascending.
        arrays: what the shard holds.
    """

    model_config = _BUILT

    field: FieldName
    shard: int = Field(ge=CONSTANTS)
    start: Count
    stop: Count
    num_bytes: FileBytes
    sha256: Sha256
    num_nonfinite: Count = Field(default=0)
    skipped: list[Skipped] = Field(default=[])
    arrays: Mapping[str, ArrayInfo]

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the record that do not follow from the shard's bytes."""
        return {name: getattr(self, name) for name in _FACTS}

    @property
    def num_rows(self) -> int:
        """Rows of the shard."""
        return self.stop - self.start

    @property
    def path(self) -> str:
        """The shard's file, from the cache's directory."""
        return f"{self.field}/{stem_of(self.shard)}.zarr.zip"


class NamedRecord(Record):
    """A shard that is complete and whose file has the name that the record gives.

    Attributes:
        file: name of the shard's file within the field's folder, see :func:`file_name`; a part of a cache keeps the
            names of the whole, whatever numbers its shards have.
        arrays: what the shard holds, each array in a part of the file.
    """

    file: str = Field(pattern=r"^(constants|[0-9]{6,12})-[0-9a-f]{16}\.zarr\.zip$")
    arrays: Mapping[str, StoredArray]

    @property
    def path(self) -> str:
        """The shard's file, from the cache's directory."""
        return f"{self.field}/{self.file}"

    @model_validator(mode="after")
    def _check(self) -> "NamedRecord":
        stem, _, digest = self.file.removesuffix(".zarr.zip").partition("-")
        if digest != self.sha256[:_DIGITS] or (stem == stem_of(CONSTANTS)) != (self.shard == CONSTANTS):
            raise ValueError("file is not named by the shard's digest")
        if any(info.offset + info.num_bytes > self.num_bytes for info in self.arrays.values()):
            raise ValueError("an array lies beyond the end of the shard's file")
        return self


def stem_of(shard: int) -> str:
    """Beginning of the names of files of a shard, or of the constants: ``000123``."""
    return "constants" if shard == CONSTANTS else f"{shard:06d}"


def file_name(shard: int, sha256: str) -> str:
    """Name of a shard's file: its number and the beginning of its digest."""
    return f"{stem_of(shard)}-{sha256[:_DIGITS]}.zarr.zip"


def is_field_name(name: str) -> bool:
    """True if a field may be called so."""
    return re.fullmatch(_FIELD_NAME, name) is not None


def describe(arrays: "Mapping[str, NDArray[Any]]") -> dict[str, ArrayInfo]:
    """Shapes and dtypes of arrays, as a record holds them."""
    return {name: ArrayInfo(shape=list(array.shape), dtype=array.dtype.name) for name, array in arrays.items()}


def parse(model: type[Model], data: bytes, file: str) -> Model:
    """Read one of the cache's JSON files.

    Raises:
        DamageError: not JSON, or not what the model asks for; names ``file`` and the first key that does not fit.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise DamageError(f"{file} is damaged: {first_problem(error)}") from None
