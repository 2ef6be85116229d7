"""Depth: which teacher layer each student layer learns from, and which of these pairs are kept [MUD 3.1].

Layer 0 is the embedding output on both sides. Student layer i takes teacher layer round(i * T / Ls), halves to even,
where T is the teacher layer that the top student layer takes.
"""

from typing import NamedTuple

from hskcache.errors import SpecError
from hskcache.spec import Depth


class LayerPair(NamedTuple):
    """A hidden layer of the student and the hidden layer of the teacher that it learns from."""

    student: int
    teacher: int


def layer_map(student_layers: int, target: int) -> tuple[int, ...]:
    """Teacher layer of student layers 0 to ``student_layers``; the top one takes ``target``."""
    return tuple(round(layer * target / student_layers) for layer in range(student_layers + 1))


def kept_layers(depth: Depth, teacher_layers: int) -> tuple[LayerPair, ...]:
    """The top ``depth.num_layers`` pairs of the map, lowest first.

    A student deeper than ``target`` has neighbouring layers that share a teacher layer.

    Args:
        depth: the student's depth, the target of its top layer and how many layers to keep.
        teacher_layers: transformer layers of the teacher.

    Raises:
        SpecError: the target lies above the teacher's last layer, or more layers are asked for than the student has.
    """
    target = teacher_layers if depth.target is None else depth.target
    if target > teacher_layers:
        raise SpecError(
            f"depth.target is teacher layer {target}, but the teacher has {teacher_layers} layers; "
            f"give a target of at most {teacher_layers}, or leave it out for the last layer"
        )
    available = depth.student_layers + 1
    num_layers = available if depth.num_layers is None else depth.num_layers
    if num_layers > available:
        raise SpecError(
            f"{num_layers} layers are to be kept, but a student of {depth.student_layers} layers has {available} "
            f"hidden layers with its embedding output; keep at most {available}, or raise depth.student_layers"
        )
    pairs = tuple(LayerPair(*pair) for pair in enumerate(layer_map(depth.student_layers, target)))
    return pairs[available - num_layers :]
