"""Description of the tokenized rows."""

from hskcache.describe.abc import Description
from hskcache.store.kinds.inputs import InputsField


class DescribedInputs(Description[InputsField]):
    """Token ids, token types and labels."""

    holds = "token ids and labels"

    def told(self, field: InputsField) -> str:
        """Names of those that are stored."""
        labels = "tags of words" if field.has_words else "labels"
        parts = {"token types": field.has_token_types, labels: field.has_labels, "copies": field.has_copies}
        parts |= {"targets": field.has_targets, "documents": field.has_documents, "texts": field.text is not None}
        return ", ".join(["token ids", *(part for part, stored in parts.items() if stored)])
