"""Projections Linear d -> D with bias, by which a student of width d learns from hidden states of width D.

They belong to the student while it learns [TinyBERT 3.1, eq. 8 and 9]: the authors' release saves one with the student
of general distillation and loads it for the task. Here they stand in a file beside the student's weights, which stay an
ordinary checkpoint; each has a name, ``shared`` where all layers learn through it, or ``layer_02`` where student layer
2 alone does (layer 0 is the embedding output); ``embedding`` leads the vector of a whole row.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hskcache.errors import DamageError
from hskcache.model.save import save_weights
from hskcache.model.weights import LAYER_PROJECTIONS, SHARED_PROJECTION, read_tensors, tensor_names
from hskcache.selection.depth import LayerPair
from hskcache.store.fields import EmbeddingField, HiddenField
from trainer.losses import LOSSES
from trainer.losses.matches import Matches
from trainer.recipe import Losses, StatesTerm, Term
from trainer.student.create import seeded

FILE = "projection.safetensors"
SHARED = "shared"
OF_ROWS = "embedding"
_LAYER = "layer_"
_RECORD = "projections"
REMEDY = "put it back, or give --projection fresh"
"""Advice on a projection that a student brings along and that cannot be read."""


class Widths(NamedTuple):
    """Widths that a projection leads between, d and D."""

    student: int
    teacher: int

    def __str__(self) -> str:
        return f"{self.student} -> {self.teacher}"


Projections = Mapping[str, nn.Linear]
"""Projections by name."""


def name_of(match: LayerPair | None, term: Term) -> str:
    """The projection through which a student layer learns, or the vector of a row, which has no layer."""
    if match is None or not isinstance(term, StatesTerm):
        return OF_ROWS
    return SHARED if term.shared_projection else f"{_LAYER}{match.student:02d}"


def is_projected(term: Term, widths: Widths) -> bool:
    """True if there is a projection at all: where the widths differ, or one is asked for."""
    return widths.student != widths.teacher or (isinstance(term, StatesTerm) and term.project_equal_widths)


def needed(losses: Losses, matches: Matches, width: int) -> dict[str, Widths]:
    """The projections that a stage learns through, in the order in which they are drawn. ``width``: of the student."""
    found = {}
    for name, term in losses.terms.items():
        if (widths := widths_for(width, matches, term)) is None or not is_projected(term, widths):
            continue
        for match in LOSSES[name].pairs(term, matches) if isinstance(term, StatesTerm) else (None,):
            found[name_of(match, term)] = widths
    return found


def widths_for(width: int, matches: Matches, term: Term) -> Widths | None:
    """Widths between a student and what a term learns from; None where that has none, or it is not known."""
    match matches.fields.get(term.kind or ""):
        case HiddenField() as field:
            return Widths(width, field.width)
        case EmbeddingField() as field:
            return Widths(width, field.num_dims)
        case _:
            return None


def draw(needs: Mapping[str, Widths], held: Projections, seed: int) -> nn.ModuleDict:
    """The projections of a stage: those that are held, and new ones, which are the same whatever is held.

    ``held``: of which those that are needed are taken up, not copied.
    """
    projections = nn.ModuleDict()
    with seeded(seed):
        for name, widths in needs.items():
            new = nn.Linear(*widths)
            projections[name] = held.get(name, new)
    return projections


def by_name(projections: nn.ModuleDict) -> dict[str, nn.Linear]:
    """Projections of an objective as what they are."""
    return {name: module for name, module in projections.items() if isinstance(module, nn.Linear)}


def widths_of(projection: nn.Linear) -> Widths:
    """Widths of a projection."""
    return Widths(projection.in_features, projection.out_features)


def described(names: Iterable[str], widths: Mapping[str, Widths]) -> str:
    """Projections in words: ``shared, 312 -> 768`` or ``layers 0, 1, 2, 312 -> 768``."""
    names = sorted(names)
    layers = [str(int(name.removeprefix(_LAYER))) for name in names if name.startswith(_LAYER)]
    numbered = [f"layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}"] if layers else []
    others = [name for name in (OF_ROWS, SHARED) if name in names]
    return ", ".join([*others, *numbered, str(widths[names[0]])])


def save(projections: Projections, folder: Path) -> None:
    """Put projections beside the weights of their student; where there are none, no file is left there.

    ``projections``: their weights [D, d] and biases [D] are saved in float32 as ``NAME.weight`` and ``NAME.bias``.
    Raises OSError if the disk is full or the folder cannot be written.
    """
    if not projections:
        (folder / FILE).unlink(missing_ok=True)
        return
    record = {name: _entry(name, projection) for name, projection in sorted(projections.items())}
    # In one entry: safetensors writes several in any order, and equal files are to have equal bytes.
    save_weights(nn.ModuleDict(projections), folder / FILE, {_RECORD: json.dumps(record)})


def load(path: Path, remedy: str = REMEDY) -> dict[str, nn.Linear]:
    """Projections from a file that :func:`save` wrote. Raises DamageError if it is not whole, or is no such file.

    ``remedy``: what to do where it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            record: dict[str, dict[str, Any]] = json.loads((file.metadata() or {})[_RECORD])
            projections = {
                name: linear(file.get_tensor(f"{name}.weight"), file.get_tensor(f"{name}.bias")) for name in record
            }
        if wrong := [name for name in record if record[name] != _entry(name, projections[name])]:
            raise ValueError(f"{wrong[0]} is not what it says")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = shorten(" ".join(str(error).split()), 120)
        raise DamageError(f"{path} holds no projections that can be read ({reason}); {remedy}") from None
    return projections


def published(folder: Path) -> dict[str, nn.Linear]:
    """Projections among the weights of a student, where TinyBERT's release saves them.

    ``folder``: with weights, ``fit_dense.weight`` and ``.bias``, or ``fit_denses.0.weight`` and so on, among them.
    Raises DamageError if one of them is not whole, TeacherError if the weights cannot be read.
    """
    firsts = {SHARED_PROJECTION, LAYER_PROJECTIONS}
    keys = [key for key in tensor_names(folder) or () if key.partition(".")[0] in firsts]
    tensors = read_tensors(folder, keys) if keys else {}
    projections = {}
    for module in sorted({key.rpartition(".")[0] for key in keys}):
        first, _, number = module.partition(".")
        try:
            name = SHARED if first == SHARED_PROJECTION else f"{_LAYER}{int(number):02d}"
            projections[name] = linear(tensors[f"{module}.weight"], tensors[f"{module}.bias"])
        except (KeyError, ValueError) as error:
            raise DamageError(f"{folder}: its projection {module} is not whole ({error}); {REMEDY}") from None
    return projections


def linear(weight_Dd: Tensor, bias_D: Tensor) -> nn.Linear:
    """A projection of such weights. Raises ValueError if their shapes do not fit each other."""
    if weight_Dd.dim() != 2 or bias_D.shape != weight_Dd.shape[:1]:
        raise ValueError(f"weights {list(weight_Dd.shape)} and biases {list(bias_D.shape)} are no projection")
    # Nothing is drawn: the random generators stay where they are.
    projection = nn.Linear(weight_Dd.shape[1], weight_Dd.shape[0], device="meta")
    projection.weight, projection.bias = nn.Parameter(weight_Dd.float()), nn.Parameter(bias_D.float())
    return projection


def _entry(name: str, projection: nn.Linear) -> dict[str, Any]:
    """The record of a projection: the student layer that it belongs to, None for all, and its widths."""
    widths = widths_of(projection)
    layer = None if name in {SHARED, OF_ROWS} else int(name.removeprefix(_LAYER))
    return {"layer": layer, "student_width": widths.student, "teacher_width": widths.teacher}
