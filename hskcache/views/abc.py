"""Views of every kind of field: what may be narrowed, what that gives, and the reasons why not."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.errors import MismatchError
from hskcache.spec import Depth, Kept, Spec
from hskcache.store.fields import OFFSETS, StoredField, kind_of, layer_name
from hskcache.store.request import LayerKept, Request, TeacherInfo
from hskcache.views.view import View

Arrays = dict[str, NDArray[Any]]
Stored = Mapping[str, NDArray[Any]]


class RowTokens(NamedTuple):
    """Tokens of the rows of a shard.

    Attributes:
        row_ids: numbers of the rows in the data set, int64 [n].
        input_ids: tokens of row after row, integers [sum L].
        offsets: where the tokens of each row begin, int64 [n + 1].
        special_ids: of the tokens that mark structure.
    """

    row_ids: NDArray[np.int64]
    input_ids: NDArray[Any]
    offsets: NDArray[np.int64]
    special_ids: frozenset[int]


class ShardContext(NamedTuple):
    """Content of the cache that a shard of a field may be seen beside, each read when it is asked for.

    Attributes:
        constants: gives what all rows of the field share.
        tokens: gives the tokens of the shard's rows.
    """

    constants: Callable[[], Stored]
    tokens: Callable[[], RowTokens]


class ViewedField(NamedTuple):
    """A field of the cache that a view is of.

    Attributes:
        name: of the field and its cache, for messages.
        field: how it is stored.
        request: that it is the answer to.
    """

    name: str
    field: StoredField
    request: Request

    def refuse(self, why: str) -> NoReturn:
        """Raise because a view of the field would not be what a build gives.

        Raises:
            MismatchError: tells why.
        """
        raise MismatchError(f"the field {self.name} cannot be seen so: {why}")


@dataclass(frozen=True)
class Narrowed:
    """A field of a view; this one sees all that is stored.

    Attributes:
        source: how the cache stores it.
        field: how a build of the view would.
    """

    source: StoredField
    field: StoredField

    @property
    def told(self) -> list[str]:
        """Words that tell its values from those of another view with the same field; most views need none."""
        return []

    def needed(self, wanted: Collection[str]) -> list[str]:
        """The arrays of the cache that some arrays are made from: whole layers, and what divides them."""
        layers = {name.partition("/")[0] for name in wanted if "/" in name}
        stored = kind_of(self.source).arrays(self.source)
        return [name for name in stored if name in OFFSETS or name in wanted or name.partition("/")[0] in layers]

    def most(self, axis: str, stored: int, num_rows: int) -> int:
        """Entries at most along an axis of the first rows of a shard, which has ``stored`` in the cache."""
        tokens = getattr(self.field, "max_tokens", None)
        if tokens is None:
            return stored
        entries = kind_of(self.field).entries(self.field, axis, np.array([tokens]))
        return min(stored, num_rows * int(entries[0]))

    def shard(self, arrays: Arrays, beside: ShardContext) -> Arrays:
        """The arrays of a shard.

        Args:
            arrays: those of the cache that are needed.
            beside: what there is beside them in the cache.
        """
        return arrays

    def constants(self, arrays: Stored) -> Arrays:
        """Arrays that all rows share, from those that they share in the cache."""
        groups = set(map(layer_name, self.field.stored_layers))
        return {name: array for name, array in arrays.items() if name.partition("/")[0] in groups}


class Narrowing(Protocol):
    """Effect of views on one kind of field."""

    def spec(self, view: View, kept: Any) -> Any:
        """The kind's part of the narrower spec; ``kept`` itself where the view leaves the kind as it is."""
        ...

    def pairs(self, spec: Spec, teacher: TeacherInfo) -> dict[str, list[LayerKept]]:
        """The key of a request that lists the kind's pairs of layers, and those of a spec."""
        ...

    def field(self, source: ViewedField, kept: Any) -> Narrowed:
        """The field that a build would store.

        Args:
            source: the field that there is.
            kept: the kind's part of the narrower spec, resolved.

        Raises:
            MismatchError: it is not in what is stored, or would have other values than a build gives.
        """
        ...


def narrower_depth(depth: Depth, layers: int | tuple[int, ...] | None, target: int | None = None) -> Depth:
    """The depth with the top so many layers of its map, or with these teacher layers.

    Args:
        depth: of the cache.
        layers: None: all that are stored, or that a map with another target leads to.
        target: teacher layer of the top student layer; None: that of the cache.

    Raises:
        MismatchError: the map has fewer layers.
    """
    if target is not None:
        depth = depth.model_copy(update={"target": target, "stored": "mapped"})
    if layers is None:
        return depth
    if isinstance(layers, int):
        if layers > (most := depth.student_layers + 1):
            raise MismatchError(
                f"the view asks for {layers} layers, and the map has {most} with the embedding output; ask for at most "
                f"{most}"
            )
        return depth.model_copy(update={"num_layers": layers, "kept": None, "stored": "mapped"})
    return depth.model_copy(update={"stored": sorted(set(layers))})


def check_layers(source: ViewedField, wanted: list[int]) -> None:
    """Raise unless all layers of a view are stored.

    Raises:
        MismatchError: one is not.
    """
    stored = source.field.stored_layers
    if missing := sorted(set(wanted) - set(stored)):
        source.refuse(
            f"layer {missing[0]} of the teacher is asked for, and layers {', '.join(map(str, stored))} are stored; ask "
            "for fewer layers"
        )


def check_tokens(source: ViewedField, kept: Kept, stored: int | None) -> None:
    """Raise unless the best positions of each row are the first ones that are stored.

    Args:
        source: the field.
        kept: the kind's part of the narrower spec.
        stored: K of the field.

    Raises:
        MismatchError: they are not.
    """
    tokens, most = kept.length.tokens, source.request.spec.max_length
    if tokens is None or tokens == stored:
        return
    if stored is not None and tokens > stored:
        source.refuse(f"{counted(tokens, 'position')} are asked for, and {stored} are stored; ask for at most {stored}")
    # Of these two the order of the row is the order of the scores.
    if stored is None and kept.length.score not in {"left", "cls"}:
        source.refuse(
            "every position is stored, in the order of the row, so nothing tells which are best; a cache built with "
            f"{most}t holds as many, best first"
        )


def best_first(offsets: NDArray[np.int64], tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the first ``tokens`` positions of each row, int64 [P'], and where rows begin there, int64 [n + 1]."""
    kept = np.minimum(np.diff(offsets), tokens)
    return spans(offsets[:-1], kept), starts_of(kept)


def spans(begin: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places ``begin[i] ... begin[i] + counts[i] - 1``, span after span, int64 [sum of counts]."""
    shift = begin - starts_of(counts)[:-1]
    found: NDArray[np.int64] = np.repeat(shift, counts) + np.arange(counts.sum())
    return found


def starts_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets of rows with so many entries, int64 [n + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
