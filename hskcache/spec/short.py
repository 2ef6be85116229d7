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
_SHARE = re.compile(r"[.eE]")
"""Signs of a number that is no whole one."""


class Keep(NamedTuple):
    """The short form ``{k}l_{K}t_{p}h`` in parts; ``None`` keeps everything along that dimension.

    ``share``: of the tokens, where K is one.
    """

    layers: int | None
    tokens: int | None
    fraction: float
    share: float | None = None


def parse_keep(text: str, flag: str = "--keep") -> Keep | None:
    """Read ``1l_10t_0.1h``, any part of it, ``full`` (all three dimensions) or ``none``; ``0.2t`` is a share of tokens.

    Returns the counts, or None for ``none``. Raises SpecError if not of that form, a count below 1, or a share outside
    (0, 1].
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
    layers, fraction = _count(what, parts.get("l"), "layers"), _share(what, parts.get("h", "1"), "columns", "0.1h")
    tokens = parts.get("t")
    if tokens is not None and _SHARE.search(tokens):
        return Keep(layers, None, fraction, _share(what, tokens, "tokens", "0.2t"))
    return Keep(layers, _count(what, tokens, "tokens"), fraction)


def _count(what: str, digits: str | None, name: str) -> int | None:
    if digits is None:
        return None
    if not _COUNT.fullmatch(digits):
        or_share = ", or a share such as 0.2" if name == "tokens" else ""
        raise SpecError(f"{what}: {digits!r} is not a number of {name}; write a whole number such as 10{or_share}")
    if int(digits) == 0:
        raise SpecError(f"{what}: 0 {name}; give at least 1, leave the part out to keep all, or use none")
    return int(digits)


def _share(what: str, digits: str, name: str, such: str) -> float:
    try:
        share = float(digits)
    except ValueError:
        raise SpecError(f"{what}: {digits!r} is not a number; write a share such as {such}") from None
    if not 0.0 < share <= 1.0:
        raise SpecError(f"{what}: the share of {name} is {share:g}; give one above 0 and at most 1")
    return share


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
        form = f"head:{kept.encoding}" if kept.form == "head" else f"{kept.form}:{kept.count}"
        return " ".join([form, *format_tokens(kept.length.tokens, kept.length.share)])
    assert isinstance(kept, Kept)
    parts = []
    num_layers = kept.depth.num_layers if kept.depth.kept is None else len(kept.depth.kept)
    if num_layers is not None:
        parts.append(f"{num_layers}l")
    parts += format_tokens(kept.length.tokens, kept.length.share)
    if isinstance(kept, Hidden) and kept.width.fraction < 1.0:
        parts.append(f"{kept.width.fraction!r}h")
    return "_".join(parts) or "full"


def format_tokens(tokens: int | None, share: float | None) -> list[str]:
    """The part of a short form that says how many positions, ``10t`` or ``0.2t``; none where all are kept."""
    if share is not None:
        return [f"{share!r}t"]
    return [] if tokens is None else [f"{tokens}t"]
