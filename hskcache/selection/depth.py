"""Depth: which teacher layer each student layer learns from, and which of these pairs are kept [MUD 3.1].

Layer 0 is the embedding output on both sides, and student layer 0 takes teacher layer 0 in every map. With Ls student
layers and the top one taking teacher layer T, student layer i >= 1 takes

    uniform: round(i * T / Ls), halves to even      top: T - Ls + i      bottom: i

or what a written map says [TinyBERT 4.5].
"""

from typing import NamedTuple, assert_never

from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.spec import Depth


class LayerPair(NamedTuple):
    """A hidden layer of the student and the hidden layer of the teacher that it learns from."""

    student: int
    teacher: int


def layer_map(student_layers: int, target: int) -> tuple[int, ...]:
    """Teacher layer of student layers 0 to ``student_layers`` in the uniform map; the top one takes ``target``."""
    return tuple(round(layer * target / student_layers) for layer in range(student_layers + 1))


def kept_layers(depth: Depth, teacher_layers: int) -> tuple[LayerPair, ...]:
    """The pairs of the map that are kept, lowest first, as far as their teacher layers are stored.

    Kept are the top ``depth.num_layers``, or those of the student layers ``depth.kept``.

    A student deeper than ``target`` has neighbouring layers that share a teacher layer. ``teacher_layers``: transformer
    layers of the teacher. Raises SpecError if the map leads beyond the teacher's layers, contradicts itself, or more
    layers are asked for than the student has, or others.
    """
    pairs = tuple(LayerPair(*pair) for pair in enumerate(_map(depth, teacher_layers)))
    pairs = _top(depth, pairs) if depth.kept is None else _listed(depth, depth.kept, pairs)
    return pairs if isinstance(depth.stored, str) else tuple(pair for pair in pairs if pair.teacher in depth.stored)


def top_layer(depth: Depth, teacher_layers: int) -> int:
    """The teacher layer of the top student layer, kept or not. Raises SpecError as :func:`kept_layers`."""
    return _map(depth, teacher_layers)[-1]


def _top(depth: Depth, pairs: tuple[LayerPair, ...]) -> tuple[LayerPair, ...]:
    available = depth.student_layers + 1
    num_layers = available if depth.num_layers is None else depth.num_layers
    if num_layers > available:
        raise SpecError(
            f"{counted(num_layers, 'layer')} are to be kept, but a student of "
            f"{counted(depth.student_layers, 'layer')} has {available} "
            f"hidden layers with its embedding output; keep at most {available}, or raise depth.student_layers"
        )
    return pairs[available - num_layers :]


def _listed(depth: Depth, kept: list[int], pairs: tuple[LayerPair, ...]) -> tuple[LayerPair, ...]:
    listed = ",".join(map(str, kept))
    if depth.num_layers is not None:
        raise SpecError(
            f"both the top {counted(depth.num_layers, 'layer')} and the student layers {listed} are kept; give one"
        )
    if max(kept) > depth.student_layers:
        raise SpecError(
            f"the student layers {listed} are to be kept, but a student of "
            f"{counted(depth.student_layers, 'layer')} has layers 0 "
            f"(the embedding output) to {depth.student_layers}; list some of those, or give --student-layers"
        )
    return tuple(pair for pair in pairs if pair.student in kept)


def stored_layers(depth: Depth, teacher_layers: int) -> tuple[int, ...]:
    """Teacher layers that are stored, ascending: those of the kept pairs, all from 0 to the last, or those listed.

    Raises SpecError as :func:`kept_layers`, or a listed layer that the teacher does not have.
    """
    pairs = kept_layers(depth, teacher_layers)
    if depth.stored == "mapped":
        return tuple(sorted({pair.teacher for pair in pairs}))
    if depth.stored == "all":
        return tuple(range(teacher_layers + 1))
    layers = tuple(sorted(set(depth.stored)))
    if not layers or layers[-1] > teacher_layers:
        raise SpecError(
            f"layers {list(layers)} are to be stored, but the teacher has layers 0 (the embedding output) to "
            f"{teacher_layers}; list some of those"
        )
    return layers


def _map(depth: Depth, teacher_layers: int) -> tuple[int, ...]:
    """Teacher layers of student layers 0 to the top one."""
    if depth.layers is not None:
        return _written_map(depth, depth.layers, teacher_layers)
    target = teacher_layers if depth.target is None else depth.target
    if target > teacher_layers:
        raise SpecError(
            f"depth.target is teacher layer {target}, but the teacher has {counted(teacher_layers, 'layer')}; "
            f"give a target of at most {teacher_layers}, or leave it out for the last layer"
        )
    if depth.mapping == "uniform":
        return layer_map(depth.student_layers, target)
    if depth.student_layers > target:
        raise SpecError(
            f"the map {depth.mapping} gives each of {depth.student_layers} student layers a layer of its own among the "
            f"teacher's first {target}; use the map uniform, or a student of at most {counted(target, 'layer')}"
        )
    match depth.mapping:
        case "top":
            skipped = target - depth.student_layers
        case "bottom":
            skipped = 0
        case unknown:
            assert_never(unknown)
    return (0, *(skipped + layer for layer in range(1, depth.student_layers + 1)))


def _written_map(depth: Depth, layers: list[int], teacher_layers: int) -> tuple[int, ...]:
    written = ",".join(map(str, layers))
    if depth.mapping != "uniform":
        raise SpecError(f"the map is both {depth.mapping} and {written}; give one of them")
    if len(layers) != depth.student_layers:
        raise SpecError(
            f"the map {written} names {len(layers)} teacher layers for {depth.student_layers} student layers; name one "
            "for each, the embedding output left out"
        )
    if max(layers) > teacher_layers:
        raise SpecError(
            f"the map {written} names layer {max(layers)}, but the teacher has {counted(teacher_layers, 'layer')}"
        )
    return (0, *layers)
