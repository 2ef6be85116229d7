"""Specs resolved against a teacher: what is left to it filled in, and all that is asked for to be seen of it."""

from functools import reduce
from operator import or_

from hskcache import console
from hskcache.build.kinds import BUILT
from hskcache.build.kinds.abc import FieldBasis
from hskcache.build.windows import check_singles, resolve_windows
from hskcache.counted import counted
from hskcache.encoded import ENCODED
from hskcache.errors import SpecError
from hskcache.inference import EVEN_TOKENS
from hskcache.resolved import resolve_spec
from hskcache.spec import Hidden, Spec, Vocabulary
from hskcache.teacher.capture import Wanted, require_seen
from hskcache.teacher.inputs import most_tokens
from hskcache.teacher.load import Teacher
from hskcache.units import human_bytes


def check_corpus_spec(spec: Spec, teacher: Teacher) -> Spec:
    """The resolved spec of a corpus, once it is known that an encoder can serve it; asked before anything is read.

    Raises:
        SpecError: nothing would be kept, rows would be longer than the encoder reads, or as :func:`resolve_for`.
    """
    spec = resolve_for(teacher, spec)
    if not any(kept is not None for kept in spec.sections.values()):
        raise SpecError(
            "nothing would be kept: a corpus has no logits, so give --keep full, --attention full, parts of them, or "
            "--embedding"
        )
    check_prompt(spec, "a corpus is packed as it is")
    check_singles(spec, spec.packing.pairs != "none")
    if spec.windows is None and spec.max_length > (most := most_tokens(teacher.model)):
        raise SpecError(
            f"{teacher.info.name} reads at most {counted(most, 'token')} and rows may have {spec.max_length}; give "
            f"--max-length {most}, or --stride to read windows"
        )
    return spec.model_copy(update={"packing": spec.packing.resolved})


def check_prompt(spec: Spec, why: str) -> None:
    """Raise SpecError if a prompt is to stand before rows that take none; ``why`` they do not."""
    if spec.embedding is not None and spec.embedding.prompt:
        raise SpecError(f"the prompt {spec.embedding.prompt!r} stands before texts alone, and {why}; give --prompt ''")


def resolve_for(teacher: Teacher, spec: Spec) -> Spec:
    """A spec resolved against a teacher, of which all that it keeps can be seen.

    Raises:
        SpecError: it asks for layers or heads that do not exist.
        TeacherError: the architecture does not show what is to be kept.
    """
    spec = resolve_windows(resolve_spec(language_spec(teacher, spec), teacher.info), teacher)
    require_seen(teacher.taps, _wanted(teacher, spec), type(teacher.model).__name__)
    return spec


def language_spec(teacher: Teacher, spec: Spec) -> Spec:
    """A spec with what is kept of a language model where it does not say it: next tokens, and no hidden states.

    Positions that are said are those of both. That of another teacher is left as it is. Raises SpecError if nothing
    would be kept.
    """
    if teacher.output_head is None:
        return spec
    said, changes = spec.model_fields_set, dict[str, Hidden | Vocabulary | None]()
    if "vocabulary" not in said:
        changes["vocabulary"] = Vocabulary()
        if spec.hidden is not None and not spec.hidden.length.is_whole:
            length = spec.hidden.length.model_copy(update={"targets": True})
            changes = {
                "vocabulary": Vocabulary(length=length),
                "hidden": spec.hidden.model_copy(update={"length": length}),
            }
    if "hidden" not in said:
        changes["hidden"] = None
    spec = spec.with_sections(changes)
    if not any(kept is not None for kept in spec.sections.values()):
        raise SpecError(
            "nothing would be kept: give --vocabulary top:32, sampled:50 or head, --keep full, or parts of them"
        )
    return spec


def tell_surprises(teacher: Teacher, spec: Spec) -> None:
    """Say what is allowed and may surprise: how positions are scored, and states too coarse to say next tokens."""
    _tell_maps(teacher, spec)
    _tell_coarse(spec)


def _tell_coarse(spec: Spec) -> None:
    """Say it where final states are kept in so few bits that what the head makes of them is another distribution."""
    vocabulary = spec.vocabulary
    if vocabulary is None or vocabulary.form != "head" or ENCODED[vocabulary.encoding].per_entry == 1:
        return
    # Figures of data/guide/language-models.md.
    console.say(
        f"--vocabulary head:{vocabulary.encoding} keeps another distribution than the teacher's: of SmolLM2-135M "
        "states in int4 are off by a KL of 2.6 nats, in int8 by 0.007; give head:int8, or top:32, which takes less room"
    )


def _tell_maps(teacher: Teacher, spec: Spec) -> None:
    """Say what the scores of positions cost where a teacher shows its attention as whole maps alone."""
    if teacher.taps.attention == "maps" and _wanted(teacher, spec).scores:
        # What a budget of tokens admits, see row_costs; a row that is longer is a batch of its own.
        entries = max(spec.token_budget * min(spec.max_length, EVEN_TOKENS), spec.max_length**2)
        most_bytes = 4 * teacher.info.num_layers * teacher.info.num_heads * entries
        console.say(
            f"{type(teacher.model).__name__} {teacher.taps.without_attention}: positions are scored by whole maps, up "
            f"to {human_bytes(most_bytes)} of memory a batch; a smaller --token-budget takes less, --score left none"
        )


def _wanted(teacher: Teacher, spec: Spec) -> Wanted:
    """Parts of a forward pass that a spec needs, all kinds together."""
    asked = FieldBasis(spec, teacher.info, teacher.num_labels)
    fields = {built: built.field(asked) for built in BUILT.values()}
    return reduce(or_, (built.wanted(field, asked) for built, field in fields.items() if field), Wanted())
