"""Scores as files: ``scores.safetensors``, and ``scores.json``, written last, which says what they were made of."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hskcache.difference import first_difference
from hskcache.errors import DamageError, MismatchError
from hskcache.sparsity.levels import Importance
from hskcache.sparsity.scores import Scores
from hskcache.spec import Strict
from hskcache.store.files import sha256_hex, write_atomic
from hskcache.store.record import Sha256, parse

SCORES = "scores.safetensors"
INFO = "scores.json"

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

    Attributes:
        name: of the data set.
        fingerprint: digest of its texts and labels.
        num_rows: rows of it that counted.
        seed: that drew them; None where all did.
    """

    name: str
    fingerprint: str
    num_rows: int = Field(ge=1)
    seed: int | None = None


class ScoreInfo(Strict):
    """Where scores come from.

    Attributes:
        kind: tells the record from other files.
        sha256: digest of the file of scores; None until it is saved.
        teacher: whose heads and neurons were scored.
        student: the trial student; None where there was none.
        data: the rows.
        has_labels: whether the task loss could be taken.
        batch_size: rows of a batch.
        temperature: of the distillation loss; None without a student.
        max_length: tokens of a row at most.
        environment: package versions and device.
    """

    kind: Literal["hskcache scores 1"] = "hskcache scores 1"
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
        """Where two passes first differ, names aside: the key, the value here, the value there."""
        here, there = (info.model_dump(mode="json", exclude=_NAMES) for info in (self, other))
        return first_difference(here, there)


def save_scores(folder: Path, scores: Scores, provenance: ScoreInfo) -> ScoreInfo:
    """Write both files; a kill in between leaves no scores.

    Returns:
        The provenance with the digest of the scores, as it was written.
    """
    parts = {"expressive": scores.expressive, "friendly": scores.friendly}
    arrays = {
        f"{name}/{kind}": np.ascontiguousarray(values)
        for name, part in parts.items()
        if part is not None
        for kind, values in (("heads", part.heads_LH), ("neurons", part.neurons_LF))
    }
    data = save(arrays)
    info = provenance.model_copy(update={"sha256": sha256_hex(data)})
    write_atomic(folder / SCORES, data)
    write_atomic(folder / INFO, info.model_dump_json(indent=1).encode() + b"\n")
    return info


def load_scores(path: Path) -> tuple[Scores, ScoreInfo]:
    """Read what :func:`save_scores` wrote.

    Args:
        path: the folder, or one of its two files.

    Raises:
        MismatchError: there are no scores.
        DamageError: they are not as they were written.
    """
    scores, info = files_of(path)
    if not info.is_file():
        raise MismatchError(
            f"{path} holds no scores; give a folder of hskcache sparsify, or its {SCORES} with its {INFO} beside it"
        )
    if not scores.is_file():
        raise DamageError(f"{scores} is missing and {info.name} tells of it; score again in another --out")
    record, data = parse(ScoreInfo, info.read_bytes(), str(info)), scores.read_bytes()
    if sha256_hex(data) != record.sha256:
        raise DamageError(
            f"{scores} is not what {info.name} tells of; fetch both again, or score again in another --out"
        )
    return _read(scores, data), record


def files_of(path: Path) -> tuple[Path, Path]:
    """The file of scores and its record, of a folder or of one of the two."""
    scores = path / SCORES if path.is_dir() else path.with_suffix(".safetensors")
    return scores, scores.with_suffix(".json")


def _read(file: Path, data: bytes) -> Scores:
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise DamageError(f"{file} is damaged: {error}") from None
    parts = {name: _part(file, arrays, name) for name in ("expressive", "friendly") if f"{name}/heads" in arrays}
    shapes = {(part.heads_LH.shape, part.neurons_LF.shape) for part in parts.values()}
    if len(shapes) != 1 or len(arrays) != 2 * len(parts):
        raise DamageError(f"{file} is damaged: it does not hold the scores of one teacher")
    return Scores(parts.get("expressive"), parts.get("friendly"))


def _part(file: Path, arrays: dict[str, NDArray[Any]], name: str) -> Importance:
    heads_LH, neurons_LF = arrays[f"{name}/heads"], arrays.get(f"{name}/neurons", np.empty(0))
    fits = heads_LH.ndim == neurons_LF.ndim == 2 and len(heads_LH) == len(neurons_LF)
    if not fits or not all(array.dtype == np.float64 and np.isfinite(array).all() for array in (heads_LH, neurons_LF)):
        raise DamageError(f"{file} is damaged: its {name} scores are not finite float64 numbers of layers")
    return Importance(heads_LH, neurons_LF)
