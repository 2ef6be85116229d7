"""Tables of what can be named: a word that is not in one is an error that tells the words that are."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from hskcache.errors import SpecError
from hskcache.nearest import meant

Entry = TypeVar("Entry")


class Table(dict[str, Entry]):
    """Entries by the word that people type and manifests store.

    ``what``: one of them, for messages, such as ``an encoding``; ``entries``: by word, in the order in which they are
    told.
    """

    def __init__(self, what: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.what = what

    def __missing__(self, word: str) -> Entry:
        raise SpecError(f"{word!r} is not {self.what}; use one of {', '.join(self)}{meant(word, self)}")


class OneOf:
    """Marks a string of a model as a word of a table, whatever stands in it when the model is validated.

    What is refused, and how, is as of a ``Literal`` of the words.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.table = table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Any value through the check of the table; strings alone are in it."""
        return core_schema.no_info_plain_validator_function(
            self._checked, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    def _checked(self, value: Any) -> str:
        if isinstance(value, str) and value in self.table:
            return value
        words = [repr(word) for word in self.table]
        expected = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        raise PydanticKnownError("literal_error", {"expected": expected})
