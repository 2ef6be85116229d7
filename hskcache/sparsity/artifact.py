"""Scores as files: ``scores.safetensors``, and ``scores.json``, written last, which says what they were made of."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hskcache.difference import first_difference
from hskcache.errors import DamageError, MismatchError
from hskcache.sparsity.levels import Importance
from hskcache.sparsity.scores import UnitScores
from hskcache.sparsity.weights import WeightScores
from hskcache.store.files import sha256_hex, write_atomic
from hskcache.store.record import Sha256, parse
from hskcache.strict import Strict

SCORES = "scores.safetensors"
INFO = "scores.json"
ScoresKind = Literal["hskcache scores 1", "hskcache weight scores 1"]
UNIT_SCORES: ScoresKind = "hskcache scores 1"
WEIGHT_SCORES: ScoresKind = "hskcache weight scores 1"
_PARTS = ("expressive", "friendly")


class _Content(NamedTuple):
    """Subject of a kind of scores in words, the arrays that each part of them has, and their dtype."""

    words: str
    arrays: tuple[str, ...]
    dtype: str


_CONTENTS: dict[ScoresKind, _Content] = {
    UNIT_SCORES: _Content("heads and neurons", ("heads", "neurons"), "float64"),
    WEIGHT_SCORES: _Content("single weights", ("weights",), "float32"),
}

# Where something came from and what computed it is told to readers; the same content under other names is the same.
_NAMES: dict[str, Any] = {
    "sha256": True,
    "environment": True,
    "teacher": {"name": True},
    "student": {"name": True},
    "data": {"name": True},
}


class ModelId(Strict):
    """A model: what it was called, and the digest of its weights."""

    name: str
    weights_sha256: Sha256


class ScoredRows(Strict):
    """The rows of a pass.

    ``name``: of the data set. ``fingerprint``: digest of its texts and labels. ``num_rows``: rows of it that counted.
    ``seed``: that drew them; None where all did.
    """

    name: str
    fingerprint: str
    num_rows: int = Field(ge=1)
    seed: int | None = None


class ScoreInfo(Strict):
    """Origin of scores.

    Attributes:
        kind: tells the record from other files, and scores of single weights from those of heads and neurons.
        sha256: digest of the file of scores; None until it is saved.
        teacher: whose heads and neurons were scored.
        student: the trial student; None where there was none.
        has_labels: whether the task loss could be taken.
        temperature: of the distillation loss; None without a student.
        environment: package versions and device.
    """

    kind: ScoresKind = UNIT_SCORES
    sha256: Sha256 | None = None
    teacher: ModelId
    student: ModelId | None
    data: ScoredRows
    has_labels: bool = True
    batch_size: int = Field(ge=1)
    temperature: float | None
    max_length: int = Field(ge=1)
    environment: dict[str, str] = Field(default={})

    def difference(self, other: "ScoreInfo") -> tuple[str, Any, Any] | None:
        """First difference between two passes, names aside: the key, the value here, the value there."""
        here, there = (info.model_dump(mode="json", exclude=_NAMES) for info in (self, other))
        return first_difference(here, there)


def save_scores(folder: Path, scores: UnitScores | WeightScores, provenance: ScoreInfo) -> ScoreInfo:
    """Write both files, no scores if it is killed; gives the provenance with the digest, as it was written."""
    data = save(_arrays(scores))
    info = provenance.model_copy(update={"sha256": sha256_hex(data)})
    write_atomic(folder / SCORES, data)
    write_atomic(folder / INFO, info.model_dump_json(indent=1).encode() + b"\n")
    return info


def load_scores(path: Path) -> tuple[UnitScores, ScoreInfo]:
    """Read scores of heads and neurons that :func:`save_scores` wrote.

    ``path``: the folder, or one of its two files. Raises MismatchError if there are no scores, or they are of single
    weights; DamageError if they are not as they were written.
    """
    arrays, info = _load(path, UNIT_SCORES)
    parts = {
        name: Importance(arrays[f"{name}/heads"], arrays[f"{name}/neurons"])
        for name in _PARTS
        if f"{name}/heads" in arrays
    }
    return UnitScores(parts.get("expressive"), parts.get("friendly")), info


def load_weight_scores(path: Path) -> tuple[WeightScores, ScoreInfo]:
    """The same of scores of single weights.

    Raises MismatchError if there are no scores, or they are of heads and neurons; DamageError if they are not as they
    were written.
    """
    arrays, info = _load(path, WEIGHT_SCORES)
    return WeightScores(*(arrays.get(f"{name}/weights") for name in _PARTS)), info


def record_of(path: Path) -> ScoreInfo:
    """The record of scores. Raises MismatchError if there are none, DamageError if it cannot be read."""
    info = files_of(path)[1]
    if not info.is_file():
        raise MismatchError(
            f"{path} holds no scores; give a folder of hskcache sparsify, or its {SCORES} with its {INFO} beside it"
        )
    return parse(ScoreInfo, info.read_bytes(), str(info))


def scored_length(folder: Path) -> int | None:
    """Tokens of a row at most by which the scores in a folder were made; None where there are none.

    Raises DamageError if their record cannot be read.
    """
    return record_of(folder).max_length if files_of(folder)[1].is_file() else None


def _load(path: Path, kind: ScoresKind) -> tuple[dict[str, NDArray[Any]], ScoreInfo]:
    record, (scores, info) = record_of(path), files_of(path)
    if record.kind != kind:
        raise MismatchError(
            f"{path} holds scores of {_CONTENTS[record.kind].words} where those of {_CONTENTS[kind].words} are wanted; "
            f"{'leave out' if kind == WEIGHT_SCORES else 'give'} --unstructured, or give others"
        )
    if not scores.is_file():
        raise DamageError(f"{scores} is missing and {info.name} tells of it; score again in another --out")
    data = scores.read_bytes()
    if sha256_hex(data) != record.sha256:
        raise DamageError(
            f"{scores} is not what {info.name} tells of; fetch both again, or score again in another --out"
        )
    return _read(scores, data, _CONTENTS[kind]), record


def files_of(path: Path) -> tuple[Path, Path]:
    """The file of scores and its record, of a folder or of one of the two."""
    scores = path / SCORES if path.is_dir() else path.with_suffix(".safetensors")
    return scores, scores.with_suffix(".json")


def _arrays(scores: UnitScores | WeightScores) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in _PARTS:
        part = getattr(scores, name)
        if isinstance(part, Importance):
            arrays |= {f"{name}/heads": part.heads_LH, f"{name}/neurons": part.neurons_LF}
        elif part is not None:
            arrays[f"{name}/weights"] = part
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _read(file: Path, data: bytes, content: _Content) -> dict[str, NDArray[Any]]:
    try:
        arrays: dict[str, NDArray[Any]] = load(data)
    except SafetensorError as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    names = [name for name in _PARTS if f"{name}/{content.arrays[0]}" in arrays]
    parts = {name: [arrays.get(f"{name}/{one}", np.empty(0)) for one in content.arrays] for name in names}
    for name, part in parts.items():
        fits = all(array.ndim == 2 and len(array) == len(part[0]) for array in part)
        if not fits or not all(array.dtype == content.dtype and np.isfinite(array).all() for array in part):
            raise DamageError(f"{file} is damaged: its {name} scores are not finite {content.dtype} numbers of layers")
    shapes = {tuple(array.shape for array in part) for part in parts.values()}
    if len(shapes) != 1 or len(arrays) != len(content.arrays) * len(parts):
        raise DamageError(f"{file} is damaged: it does not hold the scores of one teacher")
    return arrays
