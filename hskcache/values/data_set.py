"""Decoded rows as data sets of ``datasets``, generated into its cache on disk."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hskcache.errors import DataError, MismatchError
from hskcache.rows import Integers
from hskcache.store.fields import HiddenField
from hskcache.values.columns import BLOCK_BYTES, blocks, chosen

if TYPE_CHECKING:
    from hskcache.values.values import DecodedRows

try:
    import datasets
except ImportError:
    raise DataError("a data set needs the package datasets; install it with: pip install 'hskcache[hub]'") from None


def data_set(cache: "DecodedRows", rows: Integers) -> Any:
    """Rows with the columns of the cache; classes as ``ClassLabel``."""
    from hskcache.values.arrow import batches, schema

    features = datasets.Features.from_arrow_schema(schema(cache, None))
    data = cache.manifest.request.data
    is_class = "label" in features and not chosen(cache, ("label",))["label"].shape
    if is_class and data.problem == "classification":
        features["label"] = datasets.ClassLabel(names=data.label_names)

    def generate() -> Iterator[dict[str, Any]]:
        for batch in batches(cache, rows, None):
            yield from batch.to_pylist()

    return _written(cache, generate, features, (rows, "rows"))


def contexts(cache: "DecodedRows", rows: Integers, column: str, hook_name: str | None, context_size: int | None) -> Any:
    """Hidden states as SAELens has them, see :meth:`~hskcache.values.values.DecodedRows.to_datasets`."""
    field = cache.fields[chosen(cache, (column,))[column].field]
    if not isinstance(field, HiddenField):
        raise MismatchError(f"{column} holds {field.kind} and no hidden states; give a layer of a field of these")
    width, size = field.width, context_size or field.max_tokens or cache.manifest.request.spec.max_length
    name = hook_name or column
    features = datasets.Features(
        {name: datasets.Array2D((size, width), "float32"), "token_ids": datasets.List(datasets.Value("int32"), size)}
    )

    def generate() -> Iterator[dict[str, Any]]:
        states, ids = np.empty((0, width), np.float32), np.empty(0, np.int32)
        for block in blocks(cache, rows, (column, f"{column}.positions", "input_ids")):
            tokens = zip(block["input_ids"].rows(), block[f"{column}.positions"].rows(), strict=True)
            ids = np.concatenate([ids, *(row[places] for row, places in tokens)])
            states = np.concatenate([states, block[column].values.reshape(-1, width)])
            whole = len(ids) // size * size
            for first in range(0, whole, size):
                yield {name: states[first : first + size], "token_ids": ids[first : first + size]}
            states, ids = states[whole:], ids[whole:]

    if next(generate(), None) is None:
        raise MismatchError(f"{cache.name} has fewer than {size} states of {column}; give a smaller context_size")
    return _written(cache, generate, features, (rows, f"{column} {name} {size}"))


def _written(
    cache: "DecodedRows", generate: Callable[[], Iterator[dict[str, Any]]], features: Any, what: tuple[Integers, str]
) -> Any:
    """A data set of what is generated; the same again is taken from the cache of ``datasets``."""
    rows, form = what
    digest = hashlib.sha256(f"{cache.id} {form}".encode() + rows.tobytes()).hexdigest()[:32]
    example = sum(4 * int(np.prod(one.shape)) for one in features.values() if isinstance(one, datasets.Array2D))
    return datasets.Dataset.from_generator(
        generate,
        features=features,
        fingerprint=digest,
        writer_batch_size=max(1, min(1000, BLOCK_BYTES // max(example, 1))),
    )
