"""Windows of a spec checked against a teacher: what is read at once, and what cannot be kept of rows in windows."""

from hskcache import console
from hskcache.counted import counted
from hskcache.errors import SpecError
from hskcache.spec import Spec
from hskcache.teacher.load import Teacher
from hskcache.text import TokenizedRows
from hskcache.text.windows import windowing_for

_WHOLE_ROW = ("cls", "last")
"""Poolings that take one token for the whole row."""


def resolve_windows(spec: Spec, teacher: Teacher) -> Spec:
    """A resolved spec with the length of its windows filled in; the same where all rows are read whole.

    Raises:
        SpecError: the teacher, or what is to be kept, does not go with windows, or no row can be longer than one.
    """
    windows = spec.windows
    if windows is None:
        return spec
    stride, name = f"--stride {windows.overlap}", teacher.info.name
    if teacher.taps.is_causal:
        raise SpecError(
            f"{stride}: {name} reads from left to right, and a token in a later window would lack what stands before; "
            "leave it out, or give an encoder"
        )
    if spec.attention is not None:
        raise SpecError(
            f"{stride}: attention scores are of tokens that the teacher reads at once, and there are none between "
            "windows; leave --stride or --attention out"
        )
    if spec.embedding is not None and spec.embedding.pooling in _WHOLE_ROW:
        raise SpecError(
            f"{stride}: an embedding by {spec.embedding.pooling} is of one token, which stands in one window; leave it "
            "out, or give --embedding mean or max"
        )
    length = windowing_for(teacher.model, teacher.tokenizer, windows, name).length
    if spec.max_length <= length:
        raise SpecError(
            f"{stride} reads rows of more than {counted(length, 'token')} in windows, and with --max-length "
            f"{spec.max_length} there are none; give --max-length as long as rows may be for the student, or leave "
            "--stride out"
        )
    return spec.model_copy(update={"windows": windows.model_copy(update={"length": length})})


def check_singles(spec: Spec, are_pairs: bool, are_words: bool = False) -> None:
    """Raise SpecError if pairs of texts, or rows of words, are to be read in windows."""
    if spec.windows is not None and are_words:
        raise SpecError(
            f"--stride {spec.windows.overlap}: rows are words with a tag each, which are not read in windows yet; "
            "leave it out, or cut long rows into sentences"
        )
    if spec.windows is not None and are_pairs:
        raise SpecError(
            f"--stride {spec.windows.overlap}: rows are pairs of texts, and which of the two moves on is not settled; "
            "leave it out, or give single texts"
        )


def told_windows(teacher: Teacher, are_singles: bool) -> str:
    """The other way to read rows that are too long, beside a shorter --max-length; empty where there is none."""
    return ", or with --stride, which reads windows" if are_singles and not teacher.taps.is_causal else ""


def tell_unused(spec: Spec, rows: TokenizedRows, source: str) -> None:
    """Say it where no row is read in windows."""
    if spec.windows is not None and int(rows.lengths.max(initial=0)) <= (spec.windows.length or 0):
        console.say(f"{source} has no row of more than {spec.windows.length} tokens: none is read in windows")
