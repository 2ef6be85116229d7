"""Face of a cache for programs: its rows decoded, by number, by column and in the forms of other libraries."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from hskcache.errors import MismatchError
from hskcache.store.fields import Field
from hskcache.store.manifest import Manifest
from hskcache.store.row_ranges import RowRanges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hskcache.rows import Arrays, Integers
    from hskcache.values.columns import Block, Shape

Rows: TypeAlias = int | slice | range | tuple[int, int] | None
"""Rows: the first so many, a slice, a start and a stop; None: all."""

Decoded: TypeAlias = "NDArray[Any] | list[NDArray[Any]]"


class DecodedRows:
    """Sequence of decoded rows; what reads them, :class:`~hskcache.cache.Cache` brings."""

    manifest: Manifest
    shards: RowRanges
    id: str

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the cache in errors."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Rows of the data set, N."""

    @property
    @abstractmethod
    def fields(self) -> dict[str, Field]:
        """Stored fields by name."""

    @abstractmethod
    def ahead(self, shards: Iterable[tuple[str, int]], names: Mapping[str, Collection[str]] | None = None) -> None:
        """Tell that some shards will be read soon."""

    @abstractmethod
    def read(self, field: str, shard: int, names: Collection[str] | None = None) -> "Arrays":
        """Read one shard of a field."""

    @abstractmethod
    def constants(self, field: str) -> "Arrays":
        """Arrays that all rows of a field share."""

    @property
    def columns(self) -> "dict[str, Shape]":
        """Names of the columns, and the shape of a row of each; None where it differs from row to row.

        They are ``row_id`` []; ``input_ids`` and, where there are any, ``token_type_ids`` [L], int32; where stored,
        ``label`` [], -1 or NaN for none; ``logits`` [C]; of rows of words ``positions`` of their
        first pieces, ``tags``, -100 for none, and ``logits`` [words, C]; of rows of a language model ``document`` []
        and, where not all tokens but the first are, ``targets`` [L], 1 of those that are predicted; of hidden states
        ``hidden.6`` [K, D], with 0 for every column that is not kept, and ``hidden.6.positions`` [K], int32, the best
        first; of attention ``attention.6`` [H, K, K], before the softmax, and its positions. Of an added field they
        begin with its name. L and K differ from row to row; all values are float32.
        """
        from hskcache.values.columns import origins

        return {name: origin.shape for name, origin in origins(self.fields).items()}

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._each(None)

    @overload
    def __getitem__(self, rows: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, rows: slice) -> "dict[str, Decoded]": ...
    def __getitem__(self, rows: int | slice) -> dict[str, Any]:
        """One row by column, or several: an array [n, ...] a column, or a list of n arrays where rows differ in shape.

        ``label`` of one row is None where it has none. Raises IndexError if there is no such row, DamageError if a file
        is missing or altered.
        """
        if isinstance(rows, slice):
            return {name: column.numpy() for name, column in self._together(rows, None).items()}
        try:
            place = range(self.num_rows)[rows]
        except IndexError:
            raise IndexError(f"{self.name} has no row {rows}; it has {self.num_rows}, counted from 0") from None
        return next(self._each(range(place, place + 1)))

    def column(self, name: str, rows: Rows = None) -> "Decoded":
        """One column of some rows: an array [n, ...], or a list of n arrays where rows differ in shape.

        Nothing else is read. Raises MismatchError if there is no such column, DamageError if a file is missing or
        altered.
        """
        return self._together(rows, (name,))[name].numpy()

    def logits(self, rows: Rows = None, field: str = "logits") -> "NDArray[np.float32]":
        """Logits of the teacher, float32 [n, C]; of a row that was skipped, zeros.

        Raises MismatchError if the cache has no such field, or they are of words, which rows have different numbers of:
        :meth:`column` gives those.
        """
        if getattr(self.fields.get(field), "of_words", False):
            raise MismatchError(f"{field} of {self.name} are of each word; column({field!r}) gives them row by row")
        found = self.column(field, rows)
        assert not isinstance(found, list)
        return found

    def hidden(self, layer: int, rows: Rows = None, field: str = "hidden") -> "Decoded":
        """Hidden states of a teacher layer: float32 [n, K, D], or a list of n arrays [K, D] where K differs.

        Columns that are not kept are 0. Which tokens they are of tells ``column("hidden.6.positions")``. Raises
        MismatchError if the cache does not hold the layer.
        """
        return self.column(f"{field}.{layer}", rows)

    def to_arrow(self, rows: Rows = None, columns: Collection[str] | None = None) -> Any:
        """Rows as a ``pyarrow.RecordBatchReader``, decoded as it is read: a block of rows is in memory.

        Columns are lists, of a fixed size where all rows have it; a label that is none is null. What reads a stream of
        Arrow takes it: ``pyarrow.parquet``, polars, DuckDB; ``read_all()`` makes a table.

        Args:
            rows: the first so many, a slice, or a start and a stop; None: all.
            columns: names; None: all.

        Raises:
            MismatchError: there is no such column.
            DataError: pyarrow is missing.
        """
        from hskcache.values.arrow import reader

        return reader(self, self._numbers(rows), columns)

    def to_pandas(self, rows: Rows = None, columns: Collection[str] | None = None) -> Any:
        """Rows as a pandas DataFrame in memory; what has a shape is a numpy array in each cell. As :meth:`to_arrow`."""
        from hskcache.values.arrow import frame

        return frame(self, self._numbers(rows), columns)

    def to_datasets(
        self,
        layer: int | None = None,
        *,
        hook_name: str | None = None,
        context_size: int | None = None,
        rows: Rows = None,
        field: str = "hidden",
    ) -> Any:
        """Rows as a ``datasets.Dataset``, written block by block to its cache on disk and mapped from there.

        Without ``layer`` its columns are those of the cache, labels a ``ClassLabel``. With one it holds the hidden
        states as SAELens 6.54 caches activations (``CacheActivationsRunner``, read by
        ``ActivationsStore.from_cache_activations`` after ``save_to_disk``): a column ``hook_name``, float32
        ``Array2D`` (context_size, D), and ``token_ids``, int32 [context_size]. There all contexts are of one size, and
        rows of a cache are not: the states of one row follow those of another, and what does not fill the last context
        is left out.

        Args:
            layer: teacher layer.
            hook_name: of the column, such as ``blocks.5.hook_resid_post``; None: ``hidden.6``.
            context_size: None: positions that are kept of a row at most.
            rows: the first so many, a slice, or a start and a stop; None: all.
            field: of hidden states.

        Raises:
            MismatchError: the layer is not stored, or there are too few states for a context.
            DataError: the package ``datasets`` is missing.
        """
        from hskcache.values.data_set import contexts, data_set

        numbers = self._numbers(rows)
        if layer is None:
            return data_set(self, numbers)
        return contexts(self, numbers, f"{field}.{layer}", hook_name, context_size)

    def zarr(self, field: str, shard: int) -> Any:
        """A shard as a read-only ``zarr.Group`` in memory, values still encoded; of a view, as if built so.

        Raises MismatchError if there is no such field or shard, DamageError if the file is missing or altered,
        DataError if the package ``zarr`` is missing.
        """
        from hskcache.values.group import group

        return group(self.read(field, shard))

    def _repr_html_(self) -> str:
        from hskcache.values.html import table

        return table(self)

    def _numbers(self, rows: Rows) -> "Integers":
        """Numbers of rows, int64, ascending. Raises MismatchError for what is no rows, or not ascending."""
        match rows:
            case None:
                numbers = range(self.num_rows)
            case int():
                numbers = range(self.num_rows)[:rows]
            case slice():
                numbers = range(self.num_rows)[rows]
            case (int(start), int(stop)):
                numbers = range(self.num_rows)[start:stop]
            case range():
                numbers = rows
            case _:
                raise MismatchError(f"rows {rows!r} are none; give a number of rows, a slice, or a start and a stop")
        if numbers.step < 0 or (len(numbers) and not 0 <= numbers[0] <= numbers[-1] < self.num_rows):
            raise MismatchError(f"rows {rows!r} are not rows of {self.name} in order; it has {self.num_rows}")
        import numpy as np

        return np.arange(numbers.start, numbers.stop, numbers.step)

    def _each(self, rows: Rows) -> Iterator[dict[str, Any]]:
        from hskcache.values.columns import blocks, each

        for block in blocks(self, self._numbers(rows)):
            yield from each(block)

    def _together(self, rows: Rows, columns: Collection[str] | None) -> "Block":
        from hskcache.values.columns import blocks, together

        return together(list(blocks(self, self._numbers(rows), columns)), self, columns)
