"""Views of every kind of field: what may be narrowed, what that gives, and the reasons why not."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from hskcache.counted import counted
from hskcache.errors import MismatchError
from hskcache.selection.positions import num_positions
from hskcache.spec import Depth, Length, Spec
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
        special_ids: gives those of the tokens that mark structure.
        targets: 1 of each token that a language model is to predict; None: of all but the first of each row.
    """

    row_ids: NDArray[np.int64]
    input_ids: NDArray[Any]
    offsets: NDArray[np.int64]
    special_ids: Callable[[], frozenset[int]]
    targets: NDArray[Any] | None = None


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

    @property
    def has_other_positions(self) -> bool:
        """True if another number of positions, or share of them, is kept than in the cache."""
        return self.field.number_kept != self.source.number_kept

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


def check_tokens(source: ViewedField, length: Length, was: Length) -> None:
    """Raise unless the best positions of each row are the first ones that are stored.

    Args:
        source: the field.
        length: of the view, by the cache's own score.
        was: of the cache.

    Raises:
        MismatchError: they are not.
    """
    if (length.tokens, length.share) == (was.tokens, was.share):
        return
    # Of these the order of the row is the order of the scores.
    if was.is_whole and length.score not in {"left", "cls"}:
        best = f"{source.request.spec.max_length}t" if length.share is None else "1.0t"
        source.refuse(
            "every position is stored, in the order of the row, so nothing tells which are best; a cache built with "
            f"{best} holds as many, best first"
        )
    _check_number(source, length, was)


def _check_number(source: ViewedField, length: Length, was: Length) -> None:
    """Raise MismatchError if a length keeps more positions of some row than are stored of it."""
    if length.tokens is not None and was.tokens is not None and length.tokens > was.tokens:
        source.refuse(
            f"{counted(length.tokens, 'position')} are asked for, and {was.tokens} are stored; ask for at most "
            f"{was.tokens}"
        )
    share = f"the share {length.share or was.share} of the positions"
    if length.share is not None and was.share is not None and length.share > was.share:
        source.refuse(f"{share} is asked for, and {was.share:g} is stored; ask for at most {was.share!r}t")
    if length.tokens is not None and was.share is not None and was.share < 1.0 and length.tokens > 1:
        source.refuse(
            f"{counted(length.tokens, 'position')} are asked for, and {share} is stored, of short rows fewer; ask for "
            "a share"
        )
    if length.share is not None and was.tokens is not None:
        most = int(num_positions(length, most_positions(source, was))[0])
        if most > was.tokens:
            source.refuse(
                f"{share} is asked for, which are up to {most}, and {was.tokens} are stored; ask for a smaller share, "
                "or for a number"
            )


def most_positions(source: ViewedField, length: Length) -> NDArray[np.int64]:
    """Positions of the longest row that may be kept, int64 [1]."""
    return np.array([source.request.spec.max_length - length.targets], np.int64)


def first_positions(arrays: Arrays, length: Length, beside: ShardContext) -> Arrays:
    """The arrays of the first positions of each row, as many as a length says.

    Args:
        arrays: of a shard, all of an entry a position but for the offsets.
        length: of the view.
        beside: what there is beside them in the cache.
    """
    places, offsets = best_first(arrays["position_offsets"], kept_of(arrays["position_offsets"], length, beside))
    return {name: offsets if name == "position_offsets" else array[places] for name, array in arrays.items()}


def kept_of(offsets: NDArray[np.int64], length: Length, beside: ShardContext) -> NDArray[np.int64]:
    """Positions of each row that a length keeps of those stored, int64 [n]; ``offsets``: of these, int64 [n + 1]."""
    stored: NDArray[np.int64] = np.diff(offsets)
    if length.share is None:
        return num_positions(length, stored)
    from hskcache.views.eligible import num_eligible

    return np.minimum(num_positions(length, num_eligible(length, beside.tokens())), stored)


def best_first(
    offsets: NDArray[np.int64], kept: NDArray[np.int64] | int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the first ``kept`` positions of each row, int64 [P'], and where rows begin there, int64 [n + 1]."""
    counts = np.minimum(np.diff(offsets), kept)
    return spans(offsets[:-1], counts), starts_of(counts)


def spans(begin: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places ``begin[i] ... begin[i] + counts[i] - 1``, span after span, int64 [sum of counts]."""
    shift = begin - starts_of(counts)[:-1]
    found: NDArray[np.int64] = np.repeat(shift, counts) + np.arange(counts.sum())
    return found


def starts_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets of rows with so many entries, int64 [n + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
