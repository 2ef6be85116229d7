"""Next tokens: at positions that have a target, all or some, the teacher's distribution over them, in one of 3 forms.

Position i holds what the teacher says of token i + 1, so the first token of a row is no target and the last position of
one holds nothing.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field as Key
from pydantic import model_validator

from hskcache.encoded import ENCODED
from hskcache.errors import DamageError
from hskcache.spec import EncodingName, VocabularyForm
from hskcache.store.kinds.abc import POSITION, ROW, Array, Kind, Meaning, StoredField

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hskcache.store.request import Request

LOW_BITS = 16
"""Bits of a token id, or of the difference of two, in ``ids`` and ``gaps``; those above are packed beside them."""

MAX_VOCABULARY = 1 << 24
"""More tokens than any model has; the high bits of an id are at most 8."""


class VocabularyField(StoredField):
    """Knowledge of next tokens.

    Attributes:
        form: ``top``, ``sampled`` or ``head``, see :class:`~hskcache.spec.Vocabulary`.
        vocab_size: V, logits of the teacher.
        count: K, tokens kept at a position, or n, draws; None of ``head``.
        width: D, values of a final state; None but of ``head``.
        encoding: how these are stored; None but of ``head``.
        scale: what the product with the head's weight is multiplied by to become logits.
        softcap: c, where they become c tanh(z / c) after that.
        head_dtype: type that holds the head's weight and bias exactly; None but of ``head``.
        has_bias: whether the head has a bias.
        max_tokens: positions of each row at most, the best first; None where their number differs from row to row.
        share: of the positions of a row that have a target; None with ``max_tokens`` None, too: all are kept, in the
            order of the row.
        num_ranged: likeliest tokens that ``ranges`` are of, where fewer of them are kept; None: those that are kept.
    """

    later: ClassVar[frozenset[str]] = frozenset({"share", "num_ranged"})

    kind: Literal["vocabulary"] = "vocabulary"
    form: VocabularyForm
    vocab_size: int = Key(ge=2, le=MAX_VOCABULARY)
    count: int | None = Key(default=None, ge=1)
    width: int | None = Key(default=None, ge=1)
    encoding: EncodingName | None = None
    scale: float = 1.0
    softcap: float | None = Key(default=None, gt=0)
    head_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    has_bias: bool = False
    max_tokens: int | None = Key(default=None, ge=1)
    share: float | None = Key(default=None, gt=0.0, le=1.0)
    num_ranged: int | None = Key(default=None, ge=2)

    @model_validator(mode="after")
    def _check_form(self) -> "VocabularyField":
        of_head = (self.width, self.encoding, self.head_dtype)
        if self.form == "head":
            if None in of_head or self.count is not None:
                raise ValueError("a head has a width, an encoding and a head_dtype, and no count")
        elif self.count is None or any(one is not None for one in of_head) or self.has_bias:
            raise ValueError(f"the form {self.form} has a count, and neither width, encoding, head_dtype nor has_bias")
        if self.form == "top" and self.count is not None and not 2 <= self.count < self.vocab_size:
            raise ValueError("kept tokens are fewer than 2, or none is left for the tail")
        if self.num_ranged is not None and (self.form != "top" or self.num_ranged <= (self.count or 0)):
            raise ValueError("num_ranged is of more tokens than are kept, of the form top")
        return self

    @property
    def high_bits(self) -> int:
        """Bits of the largest token id above the lowest 16; 0 of a vocabulary of up to 65,536 tokens."""
        return max(0, (self.vocab_size - 1).bit_length() - LOW_BITS)

    @property
    def high_bytes(self) -> int:
        """Bytes of a position that these take, for all of its ids."""
        return -(-(self.count or 0) * self.high_bits // 8)


class NextTokens(Kind[VocabularyField]):
    """Arrays along the positions that have a target, of all rows one after the other."""

    name = "vocabulary"
    words = "next tokens"
    field = VocabularyField
    meanings: ClassVar[Mapping[tuple[str, int], Meaning]] = {
        ("position_offsets", 1): Meaning(("row_boundary",), "positions [i, i + 1) are those of row i"),
        ("positions", 1): Meaning(
            ("position",),
            "place of the token in its row, counted from 0, of which the next is told; ascending, or the best first",
        ),
        ("log_z", 1): Meaning(("position",), "log of the sum of exp of the logits"),
        ("gold", 1): Meaning(("position",), "log probability of the row's own next token"),
        ("ids", 2): Meaning(("position", "kept"), "lowest 16 bits of the likeliest tokens, likeliest first"),
        ("ids_high", 2): Meaning(("position", "packed"), "bits above these of each id, packed, lowest bits first"),
        ("steps", 2): Meaning(
            ("position", "step"),
            "of the log probability between two kept tokens, in 255ths of the range",
        ),
        ("ranges", 1): Meaning(
            ("position",),
            "log probability of the likeliest token less that of the last of num_ranged, or of those kept",
        ),
        ("log_tail", 1): Meaning(("position",), "log of the probability of all tokens that are not kept"),
        ("gaps", 2): Meaning(
            ("position", "draw"),
            "lowest 16 bits of each drawn token less the one before it, ascending, the first less 0",
        ),
        ("gaps_high", 2): Meaning(("position", "packed"), "bits above these of each gap, packed, lowest bits first"),
        ("values", 2): Meaning(("position", "column"), "state that goes into the head, encoded"),
        ("scales", 1): Meaning(("position",), "what the integers of values are multiplied by"),
        ("weight", 2): Meaning(("token", "column"), "of the head: logits = weight values + bias, then scale, soft cap"),
        ("bias", 1): Meaning(("token",), "of the head"),
    }

    def arrays(self, field: VocabularyField) -> dict[str, Array]:
        """Places of positions, two numbers of each, and what its form stores."""
        arrays = {
            "position_offsets": Array((), ("int64",)),
            "positions": Array((), ("uint16",)),
            "log_z": Array((), ("float16",)),
            "gold": Array((), ("float16",)),
        }
        match field.form:
            case "top":
                assert field.count is not None
                arrays |= _ids("ids", field)
                arrays["steps"] = Array((field.count - 1,), ("uint8",))
                arrays |= {"ranges": Array((), ("float16",)), "log_tail": Array((), ("float16",))}
            case "sampled":
                arrays |= _ids("gaps", field)
            case "head":
                assert field.encoding is not None
                assert field.width is not None
                encoded = ENCODED[field.encoding].of(field.width)
                arrays |= {name: Array(part.shape, (part.dtype,)) for name, part in encoded.items()}
        return arrays

    def constants(self, field: VocabularyField) -> dict[str, Array]:
        """The head's weight and bias, bit by bit."""
        if field.form != "head":
            return {}
        assert field.head_dtype is not None
        assert field.width is not None
        dtypes = (ENCODED[field.head_dtype].dtype,)
        weight = {"weight": Array((field.vocab_size, field.width), dtypes)}
        return weight | ({"bias": Array((field.vocab_size,), dtypes)} if field.has_bias else {})

    def axis(self, name: str) -> str:
        """All but the offsets have an entry a position."""
        return ROW if name == "position_offsets" else POSITION

    def value_parts(self, field: VocabularyField) -> Collection[str]:
        """All but where positions stand."""
        return self.arrays(field).keys() - {"position_offsets", "positions"}

    def shape(self, field: VocabularyField) -> tuple[int | None, ...]:
        """Positions, and what is kept of each."""
        return (field.max_tokens, field.width or field.count)

    def of_row(self, field: VocabularyField, arrays: "dict[str, NDArray[Any]]") -> Any:
        """Arrays of a row by name, of which ids and log probabilities are decoded.

        ``positions``, ``log_z``, ``gold``; of ``top`` also ``ids`` [P, K], ``logp`` [P, K] and ``log_tail``, of
        ``sampled`` ``draws`` [P, n], of ``head`` the parts of the encoding; where the best positions alone are kept
        ``ranks`` of these, from 1 on.
        """
        import numpy as np

        row: dict[str, Any] = {name: arrays[name] for name in ("positions", "log_z", "gold")}
        if not field.keeps_all:
            row["ranks"] = np.arange(1, len(row["positions"]) + 1)
        if field.form == "top":
            logp = log_probabilities(arrays)
            return row | {"ids": unpacked(field, arrays), "logp": logp, "log_tail": arrays["log_tail"]}
        if field.form == "sampled":
            return row | {"draws": unpacked(field, arrays)}
        return row | arrays

    def is_asked(self, request: "Request") -> bool:
        """True if the spec has a section of them."""
        return request.spec.vocabulary is not None

    def check_content(self, request: "Request", field: VocabularyField, arrays: "Mapping[str, NDArray[Any]]") -> None:
        """Compare ids, drawn ones added up, with the vocabulary; and positions with the longest row."""
        for name in {"ids", "gaps"} & arrays.keys():
            if field.high_bits and f"{name}_high" not in arrays:
                continue
            ids = unpacked(field, arrays)
            if ids.size and int(ids.max()) >= field.vocab_size:
                raise DamageError(f"{name} leads to the token {int(ids.max())}, of {field.vocab_size} counted from 0")
        positions = arrays.get("positions")
        if positions is not None and positions.size and int(positions.max()) + 1 >= request.spec.max_length:
            raise DamageError(
                f"positions holds {int(positions.max())}, and in rows of at most {request.spec.max_length} tokens the "
                "last one has no next token"
            )


def _ids(name: str, field: VocabularyField) -> dict[str, Array]:
    """Arrays of the ids, or of their differences."""
    assert field.count is not None
    arrays = {name: Array((field.count,), ("uint16",))}
    return arrays | ({f"{name}_high": Array((field.high_bytes,), ("uint8",))} if field.high_bits else {})


def unpacked(field: VocabularyField, arrays: "Mapping[str, NDArray[Any]]") -> "NDArray[np.int64]":
    """Token ids as they are stored, likeliest first, or drawn ones ascending; int64 [P, K] or [P, n].

    ``field``: of the form ``top`` or ``sampled``; ``arrays``: ``ids`` or ``gaps`` of some positions, and their high
    bits where there are any.
    """
    import numpy as np

    name = "ids" if field.form == "top" else "gaps"
    ids: NDArray[np.int64] = arrays[name].astype(np.int64)
    if bits := field.high_bits:
        flat = np.unpackbits(arrays[f"{name}_high"], axis=-1, count=ids.shape[-1] * bits, bitorder="little")
        parts = flat.reshape(*ids.shape, bits).astype(np.int64)
        ids |= (parts << np.arange(LOW_BITS, LOW_BITS + bits)).sum(-1)
    return ids if field.form == "top" else ids.cumsum(-1)


def packed(ids_PK: "NDArray[np.int64]", high_bits: int) -> "tuple[NDArray[np.uint16], NDArray[np.uint8] | None]":
    """Lowest 16 bits of ids, uint16 [P, K], and those above, uint8 [P, bytes]: what :func:`unpacked` reads.

    ``high_bits``: bits above the lowest 16 that the largest id has; without any there is no second array.
    """
    import numpy as np

    low = ids_PK.astype(np.uint16)
    if not high_bits:
        return low, None
    bits = (ids_PK[..., None] >> np.arange(LOW_BITS, LOW_BITS + high_bits)) & 1
    return low, np.packbits(bits.reshape(len(ids_PK), -1).astype(np.uint8), axis=-1, bitorder="little")


def log_probabilities(arrays: "Mapping[str, NDArray[Any]]") -> "NDArray[np.float64]":
    """Log p of the likeliest tokens, float64 [P, K]; with the tail's p they add up to 1.

    ``arrays``: ``steps``, ``ranges`` and ``log_tail`` of some positions.
    """
    import numpy as np

    steps_PK = np.pad(arrays["steps"].astype(np.float64), ((0, 0), (1, 0)))
    falls_PK = steps_PK.cumsum(-1) * (arrays["ranges"].astype(np.float64) / 255)[:, None]
    kept_P = np.log(-np.expm1(arrays["log_tail"].astype(np.float64)))
    found: NDArray[np.float64] = kept_P[:, None] - falls_PK - np.log(np.exp(-falls_PK).sum(-1))[:, None]
    return found
