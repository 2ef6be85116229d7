"""The tokenized rows, which every cache holds and which are no knowledge of a teacher."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field as Key

from hskcache.classes import has_gold
from hskcache.errors import DamageError
from hskcache.store.kinds.abc import (
    POSITION,
    ROW,
    TEXT,
    TOKEN,
    Array,
    Kind,
    Meaning,
    StoredField,
    check_below,
    check_positions,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hskcache.store.request import Request


class InputsField(StoredField):
    """The tokenized rows.

    Attributes:
        id_dtype: type of the token ids on disk.
        has_token_types: whether the tokenizer has two types of tokens.
        has_labels: whether rows have labels, or words have tags.
        has_unlabelled: whether some of the labels stand for none, where rows were kept that have no gold label:
            NO_CLASS in place of a class, NaN in place of a score.
        has_copies: whether it is known which rows are copies of which.
        text: whether the texts of the rows are kept, and rows are one or two; None where they are not.
        has_words: whether rows are words, of which each is answered for at its first piece.
        has_targets: whether a language model is to predict some tokens alone, and it is stored which.
        has_documents: whether rows are parts of documents, and it is stored of which.
        num_label_values: C, where a label is a value in [0, 1] for each class; None where it is a class or a score.
    """

    later: ClassVar[frozenset[str]] = frozenset(
        {"has_copies", "has_documents", "has_targets", "has_words", "num_label_values", "text"}
    )

    kind: Literal["inputs"] = "inputs"
    id_dtype: Literal["uint16", "int32"]
    has_token_types: bool
    has_labels: bool
    has_unlabelled: bool = False
    has_copies: bool = False
    has_words: bool = False
    has_targets: bool = False
    has_documents: bool = False
    text: Literal["single", "pair"] | None = None
    num_label_values: int | None = Key(default=None, ge=1)


class Inputs(Kind[InputsField]):
    """Token ids and, where there are any, token types and labels."""

    name = "inputs"
    field = InputsField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        ("input_ids", 1): Meaning(("token",), "token ids without padding"),
        ("token_type_ids", 1): Meaning(("token",), "token types"),
        ("row_offsets", 1): Meaning(("row_boundary",), "tokens [i, i + 1) are those of row i"),
        ("row_ids", 1): Meaning(("row",), "number of the row in the data set"),
        ("labels", 1): Meaning(("row",), "class, or score of a regression"),
        ("labels", 2): Meaning(("row", "class"), "1 of the classes that the row has, or their probabilities"),
        ("copies", 1): Meaning(("row",), "number of the copy that the row is, 0 for an original"),
        ("text", 1): Meaning(("byte",), "texts of the rows in UTF-8, of pairs the first and then the second"),
        ("text_offsets", 1): Meaning(("row_boundary",), "bytes [i, i + 1) are those of row i"),
        ("text_splits", 1): Meaning(("row",), "bytes of the first text of a pair"),
        ("origins", 1): Meaning(("row",), "row_ids of the row that it was made from, -1 where that is not known"),
        ("position_offsets", 1): Meaning(("row_boundary",), "words [i, i + 1) are those of row i"),
        ("positions", 1): Meaning(("word",), "place of the word's first piece in its row, counted from 0"),
        ("tags", 1): Meaning(("word",), "class"),
        ("targets", 1): Meaning(("token",), "1 of the tokens that are to be predicted from those before them"),
        ("documents", 1): Meaning(("row",), "number, from 0, of the document that the row is a part of"),
    }

    def arrays(self, field: InputsField) -> dict[str, Array]:
        """Tokens of row after row, and of each row its number, its label and where its tokens begin.

        Of rows of words, where the first piece of each word stands, and its tag.
        """
        arrays = {
            "input_ids": Array((), (field.id_dtype,)),
            "row_ids": Array((), ("int64",)),
            "row_offsets": Array((), ("int64",)),
        }
        if field.has_token_types:
            arrays["token_type_ids"] = Array((), ("uint8",))
        if field.has_words:
            arrays |= {"position_offsets": Array((), ("int64",)), "positions": Array((), ("uint16",))}
        if field.has_labels and field.has_words:
            arrays["tags"] = Array((), ("int64",))
        elif field.has_labels:
            width = field.num_label_values
            arrays["labels"] = Array((), ("int64", "float32")) if width is None else Array((width,), ("float32",))
        if field.has_copies:
            arrays |= {"copies": Array((), ("int32",)), "origins": Array((), ("int64",))}
        if field.has_targets:
            arrays["targets"] = Array((), ("uint8",))
        if field.has_documents:
            arrays["documents"] = Array((), ("int64",))
        if field.text is not None:
            arrays |= {"text": Array((), ("uint8",)), "text_offsets": Array((), ("int64",))}
        if field.text == "pair":
            arrays["text_splits"] = Array((), ("int32",))
        return arrays

    def axis(self, name: str) -> str:
        """Tokens, bytes of text, first pieces of words, or rows."""
        if name in {"positions", "tags"}:
            return POSITION
        if name == "text":
            return TEXT
        return TOKEN if name in {"input_ids", "token_type_ids", "targets"} else ROW

    def of_row(self, field: InputsField, arrays: "dict[str, NDArray[Any]]") -> dict[str, Any]:
        """Tokens, ``row_id``, ``label``, which is None where the row has none, ``copy`` and ``origin`` where known.

        ``texts``, one or two, where they are kept; of rows of words ``positions`` and ``tags``; of rows of a language
        model ``document`` and, where some tokens alone are targets, ``targets``.
        """
        row: dict[str, Any] = {"row_id": int(arrays.pop("row_ids"))}
        if "labels" in arrays:
            label = arrays.pop("labels")
            row["label"] = label.tolist() if has_gold(label[None])[0] else None
        if field.has_copies:
            row |= {"copy": int(arrays.pop("copies")), "origin": int(arrays.pop("origins"))}
        if field.has_documents:
            row["document"] = int(arrays.pop("documents"))
        if field.text is not None:
            data, split = arrays.pop("text").tobytes(), arrays.pop("text_splits", None)
            row["texts"] = [
                part.decode(errors="replace") for part in ([data] if split is None else [data[:split], data[split:]])
            ]
        return row | arrays

    def is_asked(self, request: "Request") -> bool:
        """True: rows are what all knowledge is about."""
        return True

    def check_content(self, request: "Request", field: InputsField, arrays: "Mapping[str, NDArray[Any]]") -> None:
        """Compare token ids, token types, labels, targets and the longest row with their limits."""
        for name in {"labels", "tags"} & arrays.keys() if field.has_unlabelled else ():
            arrays = {**arrays, name: arrays[name][has_gold(arrays[name])]}
        # A vocabulary with gaps has ids beyond its size, which the teacher knows.
        ids = max(request.tokenizer.vocab_size, request.teacher.vocab_size)
        types = request.teacher.config.get("type_vocab_size")
        num_types = types if type(types) is int else 256
        limits = {"input_ids": (ids, "token ids"), "token_type_ids": (num_types, "token types")}
        if field.num_label_values is not None:
            _check_shares(arrays.get("labels"))
        elif request.data.problem in {"classification", "tagging"}:
            limits |= dict.fromkeys(("labels", "tags"), (len(request.data.label_names), "classes"))
        if field.has_targets:
            limits["targets"] = 2, "values"
        if field.has_documents:
            # As many as there may be: a part of a cache does not know how many there are.
            limits["documents"] = 1 << 62, "documents"
        if field.has_copies:
            limits["copies"] = max(len(part.copies) for part in request.parts), "numbers of copies"
        for name, (limit, what) in limits.items():
            if name in arrays:
                check_below(name, arrays[name], limit, what)
        if "row_offsets" in arrays and len(arrays["row_offsets"]) > 1:
            offsets = arrays["row_offsets"]
            check_positions(arrays, offsets[1:] - offsets[:-1])
            if "targets" in arrays and arrays["targets"][offsets[:-1]].any():
                raise DamageError("targets holds the first token of a row, which nothing stands before")
            longest = int((offsets[1:] - offsets[:-1]).max())
            if longest > request.spec.max_length:
                raise DamageError(f"has a row of {longest} tokens, where rows have at most {request.spec.max_length}")


def _check_shares(labels_NC: "NDArray[Any] | None") -> None:
    """Raise DamageError unless labels lie in [0, 1], those of gold that is missing left out."""
    if labels_NC is not None and not ((labels_NC >= 0) & (labels_NC <= 1)).all():
        raise DamageError("labels holds a value outside of 0 to 1")
