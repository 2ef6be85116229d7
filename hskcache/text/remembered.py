"""Memory of how the rows of a cache or of a model were read, so that later commands need not be told again.

A cache keeps it in its manifest; beside the weights of a model stands ``rows.json``.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hskcache.cut import NOTHING, Cut
from hskcache.errors import DamageError, MismatchError
from hskcache.strict import first_problem
from hskcache.text.table import Columns
from hskcache.text.tasks import Task, load_task, task_names

if TYPE_CHECKING:
    from hskcache.text.rows import Examples

ROWS = "rows.json"
"""File beside a model."""

MAX_LENGTH = 128
"""Tokens of a row at most where nobody says otherwise."""


@dataclass(frozen=True)
class Remembered:
    """Memory of how rows were read.

    Attributes:
        where: what remembers it, as messages call it: ``the cache rte.hsk``, ``the model teacher``.
        definition: of a task of one's own; None where ``task`` names a preset.
        columns: that were read; None where that is not known.
        is_pairs: whether every row was two texts; None where that is not known.
        max_length: tokens of a row at most; None where that is not known.
        cut: what rows lost that were longer.
        token_types: 1 of a student that began from random weights and has seen single texts alone, so that its other
            token types were never trained; None where that is not known.
    """

    where: str
    task: str | None = None
    definition: Task | None = None
    columns: Columns | None = None
    is_pairs: bool | None = None
    max_length: int | None = None
    cut: Cut = NOTHING
    token_types: int | None = None

    @property
    def is_known(self) -> bool:
        """True if anything is remembered."""
        return self.has_columns or self.max_length is not None or self.token_types is not None

    @property
    def has_columns(self) -> bool:
        """True if the columns are known, or the task, which tells them."""
        return self.task is not None or self.columns is not None

    def length(self, task: Task | None) -> int:
        """Tokens of a row at most where nobody says: those that are remembered, those of a task, or 128."""
        return self.max_length or (None if task is None else task.max_length) or MAX_LENGTH

    def flags(self, labelled: bool, same: bool = False) -> dict[str, Any]:
        """Options with which a command would read the same columns, by the names of a layout.

        ``labelled``: whether a task's labels are read even where they were not; ``same``: whether it is to read the
        very same rows, of which it is known that no line is a header.
        """
        options: dict[str, Any] = {"task_name": self.task}
        task = self.definition or (None if self.task is None else load_task(self.task))
        columns = self.columns
        if columns is None:
            return options
        for name in ("text", "text_pair", "label"):
            column = getattr(columns, name)
            presets = [None] if task is None else [getattr(task.columns, name), getattr(task.hub_columns, name)]
            needed = labelled and name == "label" and column is None
            if column not in presets and not needed:
                options[name] = "" if column is None else str(column)
        # A file whose columns have numbers shows by its labels whether its first line names them: another one may.
        if isinstance(columns.text, int) and (columns.label is None or (same and columns.header is False)):
            options["header"] = columns.header
        return options

    def check_pairs(self, examples: "Examples") -> None:
        """Raise MismatchError unless rows are pairs, or single texts, as those were."""
        if self.is_pairs is None or self.is_pairs == (examples.pairs is not None):
            return
        if self.is_pairs:
            raise MismatchError(
                f"{examples.source} is read as single texts, and {self.where} is of pairs; name the second text with "
                "--text-pair COLUMN"
            )
        raise MismatchError(
            f"{examples.source} is read as pairs, and {self.where} is of single texts; leave out --text-pair, or "
            "give --text-pair ''"
        )


class _RowsFile(BaseModel):
    """Content of ``rows.json``; keys of later versions are passed over."""

    model_config = ConfigDict(strict=True)

    task: str | None = None
    definition: Task | None = None
    columns: Columns | None = None
    is_pairs: bool | None = Field(default=None, alias="pairs")
    max_length: int | None = Field(default=None, ge=1)
    cut: Cut = NOTHING
    token_types: int | None = Field(default=None, ge=1)


def of_model(name: str | Path) -> Remembered:
    """Memory of how the rows that a model was trained on were read, as far as the file beside it tells.

    ``name``: of the model's folder; of a model of the hub nothing is known. Raises DamageError if the file is not one
    of ours.
    """
    path, where = Path(name) / ROWS, f"the model {name}"
    try:
        content = _RowsFile.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Remembered(where)
    except (ValidationError, OSError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error.strerror)
        raise DamageError(
            f"{path} does not tell how the model's rows are read ({reason}); delete it and name the columns"
        ) from None
    return Remembered(where, **dict(content))


def of_examples(examples: "Examples", max_length: int, cut: Cut = NOTHING) -> Remembered:
    """Memory of how some rows were read just now."""
    task, columns = examples.reading.task, examples.reading.columns
    return Remembered(
        examples.source,
        None if task is None else task.name,
        task if task is not None and not is_preset(task) else None,
        columns,
        examples.pairs is not None,
        max_length,
        cut,
    )


def save(remembered: Remembered, folder: Path) -> None:
    """Write it beside a model. Raises OSError if the disk is full or cannot be written."""
    columns = remembered.columns
    plain: dict[str, Any] = {
        "task": remembered.task,
        "definition": None if remembered.definition is None else definition_of(remembered.definition),
        "columns": None if columns is None else vars(columns),
        "pairs": remembered.is_pairs,
        "max_length": remembered.max_length,
        "cut": asdict(remembered.cut),
        **({} if remembered.token_types is None else {"token_types": remembered.token_types}),
    }
    (folder / ROWS).write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_preset(task: Task) -> bool:
    """True if a task is one that ships, and not another of the same name."""
    return task.name in task_names() and load_task(task.name) == task


def definition_of(task: Task) -> dict[str, Any]:
    """A task as plain values."""
    plain: dict[str, Any] = task.model_dump(mode="json", exclude_none=True)
    return plain
