"""A sparse teacher as an ordinary checkpoint: its weights with zeros, its tokenizer, and what was removed."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hskcache.disk import sync_file, sync_folder
from hskcache.model.save import save_model
from hskcache.sparsity.artifact import ModelId
from hskcache.sparsity.levels import Method, Scope
from hskcache.store.files import TEMPORARY_SUFFIX, make_folder
from hskcache.store.record import Sha256, parse
from hskcache.strict import Strict
from hskcache.teacher.inputs import save_tokenizer
from hskcache.teacher.load import Teacher
from hskcache.text.remembered import of_model, save

SPARSITY = "sparsity.json"


class LevelInfo(Strict):
    """Facts of a sparse teacher's level, whatever it lacks.

    Attributes:
        percent: of what was ranked that was removed.
        balance: share of the expressive scores; None for other methods.
        seed: of a random ranking; None for other methods.
        scores_sha256: digest of the file of scores; None for other methods.
    """

    kind: str
    percent: int = Field(ge=0, le=99)
    method: Method
    balance: float | None = None
    seed: int | None = None
    teacher: ModelId
    scores_sha256: Sha256 | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Facts that make two the same sparse teacher, as JSON: all but the dense teacher's name."""
        return self.model_dump(mode="json", exclude={"teacher": {"name"}})


class SparsityInfo(LevelInfo):
    """Heads and neurons that a sparse teacher lacks, and what chose them.

    Attributes:
        num_heads, num_neurons: of the dense teacher, all layers together.
        heads_removed, neurons_removed: how many of them.
        heads_kept: numbers of the heads that stay in each layer, counted from 0.
        neurons_kept: how many neurons stay in each layer.
    """

    kind: Literal["hskcache sparsity 1"] = "hskcache sparsity 1"
    num_heads: int = Field(ge=1)
    heads_removed: int = Field(ge=0)
    num_neurons: int = Field(ge=1)
    neurons_removed: int = Field(ge=0)
    heads_kept: list[list[int]]
    neurons_kept: list[int]


class WeightSparsityInfo(LevelInfo):
    """Number of weights that a sparse teacher's matrices lack, and what chose them.

    ``scope``: where they were compared with each other; ``num_weights``: of the matrices of the dense teacher's layers,
    all together; ``weights_removed``: how many of them; ``weights_kept``: how many stay in each layer.
    """

    kind: Literal["hskcache weight sparsity 1"] = "hskcache weight sparsity 1"
    scope: Scope
    num_weights: int = Field(ge=1)
    weights_removed: int = Field(ge=0)
    weights_kept: list[int]


def read_info(folder: Path) -> LevelInfo:
    """The record of the sparse teacher in a folder. Raises DamageError if it is not as it was written."""
    data, name = (folder / SPARSITY).read_bytes(), str(folder / SPARSITY)
    is_of_weights = WeightSparsityInfo.model_fields["kind"].default.encode() in data
    return parse(WeightSparsityInfo if is_of_weights else SparsityInfo, data, name)


def write_checkpoint(teacher: Teacher, zeros: AbstractContextManager[None], info: LevelInfo, folder: Path) -> None:
    """Write a sparse teacher so that its folder is whole or absent.

    ``zeros``: in it the teacher's weights are those to write. ``folder``: is not there yet; what a kill left of it is
    replaced. Raises OSError if the disk is full or the folder cannot be written; nothing of it stays behind;
    SafetensorError: the same, as the library that writes weights says it.
    """
    make_folder(folder.parent)
    temporary = folder.with_name(f"{folder.name}{TEMPORARY_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        with zeros:
            save_model(teacher.model, temporary)
        for name, data in save_tokenizer(teacher.tokenizer, with_token_types=True).files.items():
            make_folder((temporary / name).parent)
            (temporary / name).write_bytes(data)
        if (memory := of_model(teacher.info.name)).is_known:
            save(memory, temporary)
        (temporary / SPARSITY).write_bytes(info.model_dump_json(indent=1).encode() + b"\n")
        _sync(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def _sync(folder: Path) -> None:
    """Bring a folder and all below it to the disk."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            sync_file(file)
