"""Account of how rows of a causal language model were made."""

from typing import Literal, NamedTuple

Form = Literal["documents", "completions", "conversations"]


class MadeRows(NamedTuple):
    """Account of how rows were made.

    Attributes:
        form: what each document was.
        num_documents: documents, or conversations, that rows were made of.
        num_targets: tokens of all rows that are to be predicted.
        one_document: whether a whole file was read as one.
        roles: whose turns of a conversation are predicted.
        by: how these were found: by the template's own tag, or by what the first turns alone are rendered as.
    """

    form: Form
    num_documents: int
    num_targets: int
    one_document: bool = False
    roles: tuple[str, ...] = ()
    by: Literal["tag", "prefixes"] | None = None
