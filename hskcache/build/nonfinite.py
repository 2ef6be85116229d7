"""Values that are NaN or infinite once they are stored: which rows have them, and what becomes of those rows."""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.errors import TeacherError
from hskcache.ragged import Integers
from hskcache.store.fields import StoredField, kind_of, row_offsets

OnNonfinite = Literal["fail", "skip"]
"""Fate of a row with such values: it ends the build, or is left out of the fields that have them."""

Arrays = dict[str, NDArray[np.generic]]
"""Stored arrays of a field, by the names of the format."""

Counts = dict[str, dict[str, Integers]]
"""Values that are not finite: by field and by part of it, such as a layer, how many each row has, int64 [n]."""


def refuse(source: str, start: int, nonfinite: Counts, fields: Collection[str]) -> None:
    """Raise unless all values of some rows are finite.

    Args:
        source: what to call the data.
        start: the first of the rows.
        nonfinite: of the rows.
        fields: those that are to be stored.

    Raises:
        TeacherError: one is not; names the first row and where it has them.
    """
    # In the order of the layers, of which the first is where it began.
    parts = {what: counts for field, parts in nonfinite.items() if field in fields for what, counts in parts.items()}
    places = np.flatnonzero(sum(parts.values(), np.zeros(1, np.int64)))
    if not len(places):
        return
    what = next(what for what, counts in parts.items() if counts[places[0]])
    raise TeacherError(
        f"{source} row {start + places[0]}, counted from 0: {what} would be stored with values that are not finite, as "
        f"in {counted(len(places) - 1, 'more row')} of its shard; if they overflow, give --encoding bfloat16 "
        "and --dtype float32, "
        "else mend the teacher, or leave such rows out with --on-nonfinite skip"
    )


def leave_out(field: StoredField, arrays: Arrays, counts: Mapping[str, Integers]) -> dict[int, int]:
    """Put zeros in place of what a field holds of rows with values that are not finite.

    Args:
        field: how it is stored.
        arrays: of the field; changed.
        counts: of the field, by part.

    Returns:
        Those rows, counted within the arrays, with how many such values each had.
    """
    totals = sum(counts.values(), np.zeros(1, np.int64))
    places, parts = np.flatnonzero(totals), kind_of(field).value_parts(field)
    for name, array in arrays.items():
        if name.rpartition("/")[2] not in parts or not len(places):
            continue
        offsets = row_offsets(field, name, arrays)
        if offsets is None:
            array[places] = 0
            continue
        for place in places:
            array[offsets[place] : offsets[place + 1]] = 0
    return {int(place): int(totals[place]) for place in places}
