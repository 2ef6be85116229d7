"""View of a cache, and its spelling in one word: ``1l_5t_0.05h,attention=1l_5t,rows=1000``."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.spec import EncodingName, Keep, format_tokens, parse_keep
from hskcache.strict import Strict, first_problem

PlainScore = Literal["left", "right", "random", "cls", "last"]
"""Scores of positions that the rows alone give, so that positions which are all stored can be ranked by them anew."""
Scheme = Literal["magnitude", "uniform", "random"]

_WANTED = {
    "layers": "a number of layers from 1 on, or teacher layers such as (6, 8)",
    "tokens": "a number of positions from 1 on",
    "share": "a share of the positions above 0 and at most 1",
    "width": "a share of the columns above 0 and at most 1",
    "target": "a teacher layer from 1 on",
    "score": f"one of {', '.join(get_args(PlainScore))}",
    "specials": "no, or yes",
    "columns": f"one of {', '.join(get_args(Scheme))}",
    "encoding": "an encoding such as int8",
    "attention": "a short form such as 1l_5t",
    "dims": "a number of values from 1 on",
    "top": "a number of tokens from 2 on",
    "copies": "a number of copies from 0 on",
    "rows": "a number of rows, or a start and a stop",
    "fields": "names of fields",
}
"""Values that each part of a view takes."""
_PLAIN = ("target", "score", "specials", "columns", "encoding", "attention", "dims", "top", "copies")
"""Parts that are written as they are."""
_YES_OR_NO = {False: "no", True: "yes"}


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | set | range) else value


def _range(value: Any) -> Any:
    """Rows as a range: N are the first N, as everywhere."""
    if isinstance(value, int):
        return (0, value)
    return (value.start, value.stop) if isinstance(value, range) and value.step == 1 else _listed(value)


Layer = Annotated[int, Field(ge=0)]
Layers = Annotated[tuple[Layer, ...], Field(min_length=1)]


class View(Strict):
    """Parts of a cache to see; whatever is left out is seen as it is stored.

    Attributes:
        layers: of hidden states: the top so many of the student's map, or teacher layers.
        tokens: of hidden states and of next tokens: the best so many positions of each row and layer.
        share: in its place, the best of each row's, as a share of those that may be kept.
        width: of hidden states: share of the teacher's columns, above 0 and at most 1.
        target: of hidden states: the teacher layer that the student's top layer learns from.
        score: of hidden states: what ranks the positions in place of the cache's own score.
        specials: False leaves special tokens but the first out of the hidden states.
        columns: of hidden states: how columns are chosen in place of the cache's own way.
        encoding: of hidden states that are stored as they came, in float32.
        attention: of attention scores, in the short form ``1l_5t``: layers and positions.
        dims: of embeddings: the first so many values, of length 1 where those of the cache are.
        top: of next tokens: the likeliest so many at a position.
        copies: of every row at most so many, beside the original; of pairs so many of each text.
        rows: [start, stop), counted in the cache; an integer N stands for the first N.
        fields: names; the rows are always among them.
    """

    layers: Annotated[int, Field(ge=1)] | Annotated[Layers, BeforeValidator(_listed)] | None = None
    tokens: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0.0, le=1.0)
    width: float | None = Field(default=None, gt=0.0, le=1.0)
    target: int | None = Field(default=None, ge=1)
    score: PlainScore | None = None
    specials: bool | None = None
    columns: Scheme | None = None
    encoding: EncodingName | None = None
    attention: str | None = None
    dims: int | None = Field(default=None, ge=1)
    top: int | None = Field(default=None, ge=2)
    copies: int | None = Field(default=None, ge=0)
    rows: Annotated[tuple[int, int] | None, BeforeValidator(_range)] = None
    fields: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(f"rows {self.rows[0]} to {self.rows[1]} are none; give a start, and a larger stop")
        if self.tokens is not None and self.share is not None:
            raise ValueError("a number of tokens and a share of them are two ways to say the same; give one")
        if self.attention is not None:
            _short(self.attention, "attention")
        return self

    @property
    def attention_layers(self) -> int | None:
        """Layers of attention scores, the top so many; None: all that are stored."""
        return None if self.attention is None else _short(self.attention, "attention").layers

    @property
    def attention_positions(self) -> dict[str, Any]:
        """Positions of attention scores as a length has them; empty: all that are stored."""
        return {} if self.attention is None else _positions(_short(self.attention, "attention"))

    @property
    def positions(self) -> dict[str, Any]:
        """Positions of hidden states and next tokens, likewise."""
        return _positions(self)

    @property
    def length(self) -> dict[str, Any]:
        """Keys of a length that the view says for hidden states and next tokens: how many positions, and which."""
        others = {"score": self.score, "specials": self.specials}
        return self.positions | {name: value for name, value in others.items() if value is not None}

    def __str__(self) -> str:
        """The view as :func:`parse_view` reads it; the same for the same view."""
        count = self.layers if isinstance(self.layers, int) else None
        layers = [] if count is None else [f"{count}l"]
        columns = [] if self.width is None else [f"{self.width!r}h"]
        parts = ["_".join([*layers, *format_tokens(self.tokens, self.share), *columns])]
        if isinstance(self.layers, tuple):
            parts.append(f"layers={'+'.join(map(str, sorted(set(self.layers))))}")
        plain = {name: value for name in _PLAIN if (value := getattr(self, name)) is not None}
        parts += [
            f"{name}={_YES_OR_NO[value] if value is True or value is False else value}" for name, value in plain.items()
        ]
        if self.rows is not None:
            parts.append(f"rows={self.rows[0]}:{self.rows[1]}")
        if self.fields is not None:
            parts.append(f"fields={'+'.join(sorted(set(self.fields)))}")
        return ",".join(filter(None, parts)) or "full"


def parse_view(text: str = "", **parts: Any) -> View:
    """A view from its text, its parts, or both.

    Args:
        text: parts between commas: a short form of hidden states such as ``1l_5t_0.05h``, ``layers=6+8`` (teacher
            layers), ``target=8``, ``score=left``, ``specials=no``, ``columns=uniform``, ``encoding=int8``,
            ``attention=1l_5t``, ``dims=256``, ``top=8``, ``copies=1``, ``rows=1000`` or ``rows=64:128``,
            ``fields=logits+hidden``.
        parts: attributes of :class:`View`.

    Raises:
        SpecError: not of that form, a part that does not exist, or one that is given twice.
    """
    found: dict[str, Any] = dict(parts)
    for part in filter(None, text.split(",")):
        for name, value in _part(part).items():
            if name in found:
                raise SpecError(f"the view {text!r} gives {name} twice; give each part once")
            found[name] = value
    try:
        return View.model_validate(found)
    except ValidationError as error:
        raise SpecError(f"the view{f' {text!r}' if text else ''}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """Complaint about the first part that is none."""
    first = error.errors()[0]
    if first["type"] in {"extra_forbidden", "value_error"}:
        return first_problem(error, View).partition(" (given ")[0].removeprefix("the document: ")
    name = str(first["loc"][0])
    return f"{name} is {first['input']!r:.80}, which is not {_WANTED[name]}"


def _part(part: str) -> dict[str, Any]:
    """Attributes that one part of the text sets."""
    name, equals, value = part.partition("=")
    if not equals:
        kept = _short(part, "")
        said = {"layers": kept.layers, "tokens": kept.tokens, "share": kept.share}
        said["width"] = None if kept.fraction == 1.0 else kept.fraction
        return {key: one for key, one in said.items() if one is not None}
    readers: dict[str, Callable[[str], Any]] = {
        "layers": lambda text: tuple(map(_number, text.split("+"))),
        **dict.fromkeys(("target", "dims", "top", "copies"), _number),
        "specials": _yes_or_no,
        **dict.fromkeys(("score", "columns", "encoding", "attention"), str),
        "rows": _rows,
        "fields": lambda text: tuple(text.split("+")),
    }
    if name not in readers:
        raise SpecError(
            f"the view {part!r}: there is no part {name}; there are {', '.join(readers)}, and a short form such as "
            f"1l_5t_0.05h{meant(name, readers)}"
        )
    return {name: readers[name](value)}


def _short(text: str, of: str) -> Keep:
    """A short form that keeps something."""
    flag = f"the view {of}".rstrip()
    kept = parse_keep(text, flag)
    if kept is None:
        raise SpecError(f"{flag} none would see nothing; name the fields to see, as in fields=logits+hidden")
    if of and kept.fraction != 1.0:
        raise SpecError(f"{flag} {text!r}: attention scores have no columns; leave out the share, as in 1l_5t")
    return kept


def _positions(of: Keep | View) -> dict[str, Any]:
    """Number or share of positions, as keys of a length; empty where all that are stored are meant."""
    return {} if of.tokens is None and of.share is None else {"tokens": of.tokens, "share": of.share}


def _yes_or_no(text: str) -> bool:
    for value, word in _YES_OR_NO.items():
        if text == word:
            return value
    raise SpecError(f"the view: specials is {text!r}, which is neither yes nor no")


def _rows(text: str) -> tuple[int, int]:
    start, _, stop = text.rpartition(":")
    return _number(start or "0"), _number(stop)


def _number(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise SpecError(f"the view: {text!r} is not a number; give layers as 6+8, and rows as 1000 or 64:128")
    return int(text)
