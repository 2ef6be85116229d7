"""Short forms of what is kept, as command lines have them: read and written."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from hskcache.encoded import ENCODED
from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.spec.sections import MOST_TOKENS, Embedding, Hidden, Kept, Vocabulary
from hskcache.spec.words import LayerMapName, VocabularyForm
from hskcache.strict import Strict

_COUNT = re.compile(r"[0-9]{1,9}")


class Keep(NamedTuple):
    """The short form ``{k}l_{K}t_{p}h`` in parts; ``None`` keeps everything along that dimension."""

    layers: int | None
    tokens: int | None
    fraction: float


def parse_keep(text: str, flag: str = "--keep") -> Keep | None:
    """Read ``1l_10t_0.1h``, any part of it, ``full`` (all three dimensions) or ``none``.

    Returns the three counts, or None for ``none``. Raises SpecError if not of that form, a count below 1, or a
    fraction outside (0, 1].
    """
    if text == "none":
        return None
    if text == "full":
        return Keep(None, None, 1.0)
    what = f"{flag} {text!r}"
    parts = {part[-1:]: part[:-1] for part in text.split("_")}
    # Each letter at most once and in this order; an empty part has no letter.
    if "_".join(f"{parts[letter]}{letter}" for letter in "lth" if letter in parts) != text or not all(parts.values()):
        raise SpecError(f"{what} is not of the form 1l_10t_0.1h (layers, tokens, share of columns), full or none")
    return Keep(
        _count(what, parts.get("l"), "layers"), _count(what, parts.get("t"), "tokens"), _fraction(what, parts.get("h"))
    )


def _count(what: str, digits: str | None, name: str) -> int | None:
    if digits is None:
        return None
    if not _COUNT.fullmatch(digits):
        raise SpecError(f"{what}: {digits!r} is not a number of {name}; write a whole number such as 10")
    if int(digits) == 0:
        raise SpecError(f"{what}: 0 {name}; give at least 1, leave the part out to keep all, or use none")
    return int(digits)


def _fraction(what: str, digits: str | None) -> float:
    try:
        fraction = float(digits or "1")
    except ValueError:
        raise SpecError(f"{what}: {digits!r} is not a number; write a share such as 0.1h") from None
    if not 0.0 < fraction <= 1.0:
        raise SpecError(f"{what}: the share of columns is {fraction:g}; give one above 0 and at most 1")
    return fraction


def layer_map_changes(text: str) -> dict[str, Any]:
    """The keys of :class:`Depth` that ``uniform`` or ``3,6,9,12`` sets. Raises SpecError for another form."""
    value = numbers_or_word(text, "--layer-map", get_args(LayerMapName))
    return {"mapping": value, "layers": None} if isinstance(value, str) else {"mapping": "uniform", "layers": value}


def numbers_or_word(text: str, flag: str, words: Sequence[str]) -> str | list[int]:
    """One of some words, or whole numbers between commas. Raises SpecError for anything else; names ``flag``."""
    if text in words:
        return text
    try:
        return numbers(text, flag)
    except SpecError:
        raise SpecError(f"{flag} {text!r} is not {', '.join(words)} or numbers such as 3,6,9") from None


def numbers(text: str, flag: str) -> list[int]:
    """Whole numbers between commas. Raises SpecError for something else; names ``flag``."""
    parts = text.split(",")
    if not all(_COUNT.fullmatch(part) for part in parts):
        raise SpecError(f"{flag} {text!r} is not numbers such as 3,6,9")
    return [int(part) for part in parts]


def parse_vocabulary(text: str) -> dict[str, Any] | None:
    """The keys of :class:`Vocabulary` that ``top:32``, ``sampled:50`` or ``head:int8`` sets, or the word alone.

    Returns None for ``none``. Raises SpecError for another form.
    """
    if text == "none":
        return None
    form, is_more, more = text.partition(":")
    forms = get_args(VocabularyForm)
    what = f"--vocabulary {text!r}"
    if form not in forms:
        near = meant(form, [*forms, "none"])
        raise SpecError(f"{what} is none of top:32, sampled:50, head, head:int4 and none{near}")
    if not is_more:
        return {"form": form}
    if form == "head":
        if _COUNT.fullmatch(more):
            raise SpecError(f"{what}: a head is kept whole; leave the number out, or give an encoding of its states")
        # An unknown one is refused with those that there are.
        ENCODED[more]
        return {"form": form, "encoding": more}
    least, such = (1, "sampled:50") if form == "sampled" else (2, "top:32")
    if not _COUNT.fullmatch(more) or not least <= int(more) <= MOST_TOKENS:
        raise SpecError(
            f"{what}: {more!r} is not a number of tokens from {least} to {MOST_TOKENS:,}; write it as in {such}"
        )
    return {"form": form, "count": int(more)}


def format_keep(kept: Strict | None) -> str:
    """The short form of what is kept, which :func:`parse_keep` reads: ``1l_10t_0.1h``, ``full`` or ``none``.

    It tells how many layers, not which.
    """
    if kept is None:
        return "none"
    if isinstance(kept, Embedding):
        return kept.pooling if kept.dims is None else f"{kept.pooling} {kept.dims}"
    if isinstance(kept, Vocabulary):
        return f"head:{kept.encoding}" if kept.form == "head" else f"{kept.form}:{kept.count}"
    assert isinstance(kept, Kept)
    parts = []
    num_layers = kept.depth.num_layers if kept.depth.kept is None else len(kept.depth.kept)
    if num_layers is not None:
        parts.append(f"{num_layers}l")
    if kept.length.tokens is not None:
        parts.append(f"{kept.length.tokens}t")
    if isinstance(kept, Hidden) and kept.width.fraction < 1.0:
        parts.append(f"{kept.width.fraction!r}h")
    return "_".join(parts) or "full"
