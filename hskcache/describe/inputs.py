"""Description of the tokenized rows."""

from collections.abc import Mapping
from typing import ClassVar

from hskcache.describe.abc import About, Description
from hskcache.store.kinds.inputs import InputsField


class DescribedInputs(Description[InputsField]):
    """Token ids, token types and labels."""

    holds = "token ids and labels"
    arrays: ClassVar[Mapping[str, About]] = {
        "input_ids": About("token", "token ids without padding"),
        "token_type_ids": About("token", "token types"),
        "row_offsets": About("row", "tokens [i, i + 1) are those of row i"),
        "row_ids": About("row", "number of the row in the data set"),
        "labels": About("row", "class, or score of a regression"),
    }

    def told(self, field: InputsField) -> str:
        """Names of those that are stored."""
        parts = {"token types": field.has_token_types, "labels": field.has_labels}
        return ", ".join(["token ids", *(part for part, stored in parts.items() if stored)])
