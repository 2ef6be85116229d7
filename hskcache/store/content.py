"""Checks that a shard holds what its rows can have; digests tell that bytes are as they were written, not their sense.

What a stranger wrote may be signed and still point beyond a table that a student looks it up in: on a CPU that ends in
a traceback, on a GPU it ends the process. So the integers among the arrays are compared with their limits.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hskcache.store.fields import StoredField, kind_of
from hskcache.store.request import Request

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_content(request: Request, field: StoredField, arrays: "Mapping[str, NDArray[Any]]") -> None:
    """Raise unless every integer of some arrays is one that its rows can have.

    Args:
        request: of the cache.
        field: that the arrays belong to.
        arrays: decoded arrays of one of its shards, or its constants, all or some.

    Raises:
        DamageError: one is not; the message names the array, but not the file.
    """
    kind_of(field).check_content(request, field, arrays)
