"""Terms of the loss of a stage, and how they are written in a recipe."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hskcache.store.kinds import LOGITS
from hskcache.store.kinds.attention import AttentionScores
from hskcache.store.kinds.embedding import Embeddings
from hskcache.store.kinds.hidden import HiddenStates
from hskcache.store.kinds.vocabulary import NextTokens
from hskcache.strict import Extended, Strict

Distance = Literal["mse", "cosine"]
Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


class Finite(Strict):
    """A strict model whose numbers are numbers."""

    model_config = ConfigDict(allow_inf_nan=False)


class Term(Finite):
    """A term of a stage's loss.

    Settings in ``later`` came after runs were saved without them: they are left out where they are the default, so that
    such runs go on. ``kind`` is the kind of knowledge that it learns from, None of what the rows say, ``needs_task``
    whether it is about what a classifier answers, ``needs_language`` whether about the next tokens of the rows.

    Attributes:
        weight: of the term in the sum, above 0.
    """

    later: ClassVar[frozenset[str]] = frozenset()
    kind: ClassVar[str | None] = None
    needs_task: ClassVar[bool] = False
    needs_language: ClassVar[bool] = False

    weight: float = Field(default=1.0, gt=0)

    @model_serializer(mode="wrap")
    def _as_ever(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = serialize(self)
        defaults = {name: type(self).model_fields[name].default for name in self.later}
        return {name: value for name, value in plain.items() if name not in defaults or value != defaults[name]}


class StatesTerm(Term):
    """A loss on hidden states [MUD 2.2].

    The projection to the teacher's width is one for all terms and layers that share theirs, or one for each layer.

    Attributes:
        missing: what a dropped column counts as: a target of ``zero``, or nothing, ``ignore``.
    """

    later = frozenset({"project_equal_widths"})
    kind: ClassVar[str] = HiddenStates.name

    missing: Literal["zero", "ignore"] = "zero"
    shared_projection: bool = Field(default=True, description="one Linear for all layers, as TinyBERT's release has it")
    project_equal_widths: bool = Field(default=False, description="have one where no width differs, as the release has")


class HiddenTerm(StatesTerm):
    """Hidden-state loss of the layers."""

    embedding: bool = Field(default=True, description="whether the embedding outputs, layer 0, count here too")


class EmbeddingTerm(StatesTerm):
    """Hidden-state loss of the embedding outputs, layer 0, with a weight of its own [TinyBERT 3.1, eq. 9]."""


class AttentionTerm(Term):
    """Attention loss [TinyBERT 3.1, eq. 7].

    Attributes:
        mean: what the squared errors are averaged over: the pairs of ``real`` tokens, as the paper has it, or as many
            as rows ``padded`` to the cache's greatest length would have, as TinyBERT's release does. There this term
            weighs less beside the others the shorter the rows are.
        heads: which are compared: those of the same number (``match``), the ``mean`` of all, or for each student head
            the stored one that it learns from, see ``losses.attention.pair_heads``.
    """

    later = frozenset({"mean"})
    kind: ClassVar[str] = AttentionScores.name

    mean: Literal["real", "padded"] = "real"
    heads: Literal["match", "mean"] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = "match"


class EmbeddedTerm(Term):
    """A loss on embeddings of whole rows."""

    kind: ClassVar[str] = Embeddings.name


class SentenceTerm(EmbeddedTerm):
    """Loss to the teacher's embeddings [Reimers and Gurevych 2020, section 2].

    Attributes:
        distance: ``mse``, the squared error averaged over the values, or ``cosine``, one minus the cosine.
    """

    distance: Distance = "mse"


class SimilarityTerm(EmbeddedTerm):
    """Loss to the cosines between the teacher's embeddings of the rows of a batch [Park et al. 2019, section 3.2]."""


class SoftTerm(Term):
    """Soft-label loss [TinyBERT 3.1, eq. 10].

    The squared error of a regression knows no temperature and stays as it is.

    Attributes:
        temperature: T, above 0, of both sides.
        temperature_squared: multiplies the loss by T^2, so that beside a loss to the labels its gradient is as large at
            every temperature [Hinton et al. 2015, section 2].
    """

    kind = LOGITS
    needs_task = True

    temperature: float = Field(default=1.0, gt=0)
    temperature_squared: bool = False


class LabelTerm(Term):
    """Loss to the gold labels."""

    needs_task = True


class NextTerm(Term):
    """Loss to the teacher's distribution of the next token [Hinton et al. 2015, section 2].

    Attributes:
        divergence: of the teacher's distribution p and the student's q: ``forward_kl``, KL(p || q), ``reverse_kl``,
            KL(q || p), or ``jsd``, share KL(p || m) + (1 - share) KL(q || m) with m = share p + (1 - share) q. Of
            the likeliest tokens and of draws, which are not all of p, forward KL alone.
        temperature: T, above 0, of both sides; 1 where not all of p is known.
        temperature_squared: multiplies the loss by T^2, see :class:`SoftTerm`.
        share: of ``jsd``, between 0 and 1.
    """

    kind = NextTokens.name
    needs_language = True

    divergence: Divergence = "forward_kl"
    temperature: float = Field(default=1.0, gt=0)
    temperature_squared: bool = False
    share: float = Field(default=0.5, gt=0, lt=1)


class GoldTerm(Term):
    """Cross-entropy to the next tokens of the text."""

    needs_language = True


TERMS: dict[str, type[Term]] = {
    "embedding": EmbeddingTerm,
    "hidden": HiddenTerm,
    "attention": AttentionTerm,
    "sentence": SentenceTerm,
    "similarity": SimilarityTerm,
    "soft": SoftTerm,
    "label": LabelTerm,
    "next": NextTerm,
    "gold": GoldTerm,
}
"""Terms that a stage may learn from, in the order in which losses are added up."""


class Losses(Extended):
    """The terms of a stage's loss; those left out are not computed.

    Beside these the terms of :data:`TERMS`, keys of their own only where they are given: ``sentence``,
    ``similarity``, ``next`` and ``gold``.

    Attributes:
        embedding: to the teacher's embedding outputs.
        hidden: to its hidden states.
        attention: to its attention scores.
        soft: to its logits.
        label: to the gold labels.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    further: ClassVar[Mapping[str, type[BaseModel]]] = TERMS

    embedding: EmbeddingTerm | None = None
    hidden: HiddenTerm | None = None
    attention: AttentionTerm | None = None
    soft: SoftTerm | None = None
    label: LabelTerm | None = None

    @property
    def terms(self) -> dict[str, Term]:
        """Terms that are computed, by name."""
        given = {name: getattr(self, name, None) for name in TERMS}
        return {name: term for name, term in given.items() if term is not None}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knowledge that they learn from, each once."""
        return tuple(dict.fromkeys(term.kind for term in self.terms.values() if term.kind is not None))

    @property
    def projected(self) -> bool:
        """True if a term is about states or vectors that may be learned through a projection."""
        return any(isinstance(term, StatesTerm | EmbeddedTerm) for term in self.terms.values())

    @property
    def needs_task(self) -> bool:
        """True if a term is about what a classifier answers."""
        return any(term.needs_task for term in self.terms.values())

    @property
    def needs_language(self) -> bool:
        """True if a term is about the next tokens of the rows."""
        return any(term.needs_language for term in self.terms.values())

    @property
    def embeds(self) -> bool:
        """True if a term is about embeddings of whole rows."""
        return any(isinstance(term, EmbeddedTerm) for term in self.terms.values())

    @model_validator(mode="after")
    def _some(self) -> "Losses":
        if not self.terms:
            *some, last = TERMS
            raise ValueError(f"a stage needs at least one of {', '.join(some)} and {last}")
        if self.embedding is not None and self.hidden is not None and self.hidden.embedding:
            raise ValueError("embedding and hidden both count the embedding outputs; set hidden.embedding to false")
        return self
