"""Does a shard hold what its rows can have? Digests tell that bytes are as they were written, not that they make sense.

What a stranger wrote may be signed and still point beyond a table that a student looks it up in: on a CPU that ends in
a traceback, on a GPU it ends the process. So the integers among the arrays are compared with their limits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hskcache.classes import has_gold
from hskcache.errors import DamageError
from hskcache.store.fields import Field, HiddenField, InputsField
from hskcache.store.request import Request

Arrays = Mapping[str, NDArray[Any]]


def check_content(request: Request, field: Field, arrays: Arrays) -> None:
    """See that every integer of some arrays is one that its rows can have.

    Args:
        request: of the cache.
        field: that the arrays belong to.
        arrays: decoded arrays of one of its shards, or its constants, all or some.

    Raises:
        DamageError: one is not; the message names the array, but not the file.
    """
    if isinstance(field, HiddenField):
        for name, array in arrays.items():
            if name.rpartition("/")[2] == "columns":
                _check_below(name, array, field.width, "columns")
    if isinstance(field, InputsField):
        _check_inputs(request, field, arrays)


def _check_inputs(request: Request, field: InputsField, arrays: Arrays) -> None:
    if field.has_unlabelled and "labels" in arrays:
        labels = arrays["labels"]
        arrays = {**arrays, "labels": labels[has_gold(labels)]}
    # A vocabulary with gaps has ids beyond its size, which the teacher knows.
    ids = max(request.tokenizer.vocab_size, request.teacher.vocab_size)
    types = request.teacher.config.get("type_vocab_size")
    limits = {"input_ids": (ids, "token ids"), "token_type_ids": (types if type(types) is int else 256, "token types")}
    if request.data.problem == "classification":
        limits["labels"] = len(request.data.label_names), "classes"
    for name, (limit, what) in limits.items():
        if name in arrays:
            _check_below(name, arrays[name], limit, what)
    if "row_offsets" in arrays and len(arrays["row_offsets"]) > 1:
        longest = int(np.diff(arrays["row_offsets"]).max())
        if longest > request.spec.max_length:
            raise DamageError(f"has a row of {longest} tokens, where rows have at most {request.spec.max_length}")


def _check_below(name: str, array: NDArray[Any], limit: int, what: str) -> None:
    if array.size and not (array.min() >= 0 and array.max() < limit):
        odd = int(array.min()) if array.min() < 0 else int(array.max())
        raise DamageError(f"{name} holds {odd}, of {limit} {what} counted from 0")
