"""Errors that a user or a disk can cause. Commands turn each of these into one line and exit code 2."""

import signal


class CacheError(Exception):
    """Base of every error a user can cause: says what was given, what was expected and what to do."""


class SpecError(CacheError):
    """A request that cannot be carried out as written: a malformed ``--keep``, a width above 1, an unknown recipe."""


class DataError(CacheError):
    """A data file that cannot be read as asked; names the file and, where there is one, the line."""


class ColumnError(DataError):
    """A column that a data file does not have, or not under that name or number."""


class TeacherError(CacheError):
    """A model that cannot be loaded or whose knowledge cannot be captured."""


class MismatchError(CacheError):
    """Two things that do not belong together: a cache and a spec, a student, a tokenizer or a recipe."""


class DamageError(CacheError):
    """Bytes on disk that are missing, cut short or altered."""


class Interrupted(KeyboardInterrupt):
    """An end that a signal asked for, in order: says what is kept and where the same command goes on.

    ``message``: one line. ``number``: of the signal; Ctrl-C is SIGINT.

    Attributes:
        code: exit code of a command that ends so, 128 and the number of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.code = 128 + number
