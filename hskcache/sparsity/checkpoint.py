"""A sparse teacher as an ordinary checkpoint: its weights with zeros, its tokenizer, and what was removed."""

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hskcache.disk import sync_file, sync_folder
from hskcache.model.save import save_model
from hskcache.sparsity.artifact import ModelId
from hskcache.sparsity.levels import Kept, Method
from hskcache.sparsity.masks import zeroed
from hskcache.spec import Strict
from hskcache.store.files import TEMPORARY_SUFFIX, make_folder
from hskcache.store.record import Sha256
from hskcache.teacher.inputs import save_tokenizer
from hskcache.teacher.load import Teacher
from hskcache.text.remembered import of_model, save

SPARSITY = "sparsity.json"


class SparsityInfo(Strict):
    """What a sparse teacher lacks, and what chose it.

    Attributes:
        kind: tells the record from other files.
        percent: of all heads and of all neurons that were removed.
        method: what ranked them.
        balance: share of the expressive scores; None for other methods.
        seed: of a random ranking; None for other methods.
        teacher: the dense teacher.
        scores_sha256: digest of the file of scores; None for other methods.
        num_heads, num_neurons: of the dense teacher, all layers together.
        heads_removed, neurons_removed: how many of them.
        heads_kept: numbers of the heads that stay in each layer, counted from 0.
        neurons_kept: how many neurons stay in each layer.
    """

    kind: Literal["hskcache sparsity 1"] = "hskcache sparsity 1"
    percent: int = Field(ge=0, le=99)
    method: Method
    balance: float | None = None
    seed: int | None = None
    teacher: ModelId
    scores_sha256: Sha256 | None = None
    num_heads: int = Field(ge=1)
    heads_removed: int = Field(ge=0)
    num_neurons: int = Field(ge=1)
    neurons_removed: int = Field(ge=0)
    heads_kept: list[list[int]]
    neurons_kept: list[int]

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two the same sparse teacher, as JSON: all but the dense teacher's name."""
        return self.model_dump(mode="json", exclude={"teacher": {"name"}})


def write_checkpoint(teacher: Teacher, kept: Kept, info: SparsityInfo, folder: Path) -> None:
    """Write a sparse teacher so that its folder is whole or absent.

    Args:
        teacher: the dense one; its weights are put back.
        kept: what stays.
        info: to stand beside the weights.
        folder: is not there yet; what a kill left of it is replaced.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing of it stays behind.
        SafetensorError: the same, as the library that writes weights says it.
    """
    make_folder(folder.parent)
    temporary = folder.with_name(f"{folder.name}{TEMPORARY_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        with zeroed(teacher.model, kept):
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
