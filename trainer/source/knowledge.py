"""Knowledge to learn from: fields, layers and rows, whether from a cache or from a teacher in the loop."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from pydantic import ValidationError

from hskcache.cache import Cache, Request
from hskcache.classes import Problem
from hskcache.errors import SpecError
from hskcache.recall import of_cache, told_rows
from hskcache.selection.depth import LayerPair, kept_layers
from hskcache.spec import Depth, layer_map_changes
from hskcache.store.agreement import Agreement
from hskcache.store.evaluation import Evaluation
from hskcache.store.fields import INPUTS, KINDS, LOGITS, InputsField, StoredField, kind_of, knowledge
from hskcache.store.kinds.embedding import EmbeddingField, Embeddings
from hskcache.strict import first_problem
from trainer.loading.choice import OWN, Choice, resolved
from trainer.losses.matches import Matches
from trainer.student.create import Interface


@dataclass(frozen=True)
class Knowledge:
    """Knowledge to learn from, whether it comes from a cache or from a teacher in the loop.

    Attributes:
        request: teacher, tokenizer, data and spec it was asked for with.
        fields: by kind, how it is stored; a kind of which there is none is missing.
        has_labels: whether the rows carry gold labels.
        where: what to call it in an error.
        choice: fields of a cache that were chosen in place of its own.
        requests: by kind, what a chosen field was asked for with that another teacher added: its layers are counted
            and paired by that; the rows are those of ``request``.
        added: by kind, the names of all fields that were added to the cache.
        evaluations: scores of the teacher of the logits on rows that are not learned from.
        agreement: of the logits with the labels of the rows; None where that is not known.
    """

    request: Request
    fields: Mapping[str, StoredField]
    has_labels: bool
    where: str
    choice: Choice = OWN
    requests: Mapping[str, Request] = field(default_factory=dict)
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    agreement: Agreement | None = None

    @property
    def has_task(self) -> bool:
        """False if the rows are texts without a task: nothing of a classifier can be learned or scored."""
        return self.request.data.has_task

    @property
    def has_language(self) -> bool:
        """True if a causal language model is to say the next tokens of the rows."""
        return self.request.data.problem == "language"

    def embedded(self, kinds: Collection[str]) -> EmbeddingField | None:
        """The embeddings that a student learns to give; None where it answers a task, or learns of none.

        ``kinds``: that it learns from.
        """
        found = self.fields.get(Embeddings.name) if Embeddings.name in kinds and not self.has_task else None
        return found if isinstance(found, EmbeddingField) else None

    @property
    def rows(self) -> str:
        """The rows in words, such as ``a corpus without a task``."""
        return told_rows(self.request.data)

    @property
    def reads_pairs(self) -> bool:
        """True if rows are known to be pairs of texts, which token types tell apart."""
        if not self.request.tokenizer.has_token_types:
            return False
        if not self.has_task:
            return self.request.spec.packing.pairs != "none"
        return of_cache(self.where, self.request).is_pairs is True

    def request_for(self, kind: str) -> Request:
        """Request of the field of a kind."""
        return self.requests.get(kind, self.request)

    def where_of(self, kind: str) -> str:
        """Name of the field of a kind in errors."""
        names = self.choice.of(kind)
        if not names:
            return self.where
        return f"{'fields' if len(names) > 1 else 'field'} {', '.join(names)} of {self.where}"

    @property
    def depths(self) -> dict[str, Depth]:
        """The depth asked for of every kind that has layers, as far as it is kept."""
        sections = {kind: one.kept(self.request_for(kind).spec) for kind, one in KINDS.items()}
        return {kind: asked.depth for kind, asked in sections.items() if asked is not None}

    @property
    def matches(self) -> Matches:
        """The pairs of layers it was made for."""
        pairs = {
            kind: tuple(LayerPair(pair.student, pair.teacher) for pair in found)
            for kind, one in KINDS.items()
            if (found := one.pairs(self.request_for(kind)))
        }
        return Matches(pairs, self.fields, self.request.spec.max_length)

    def matches_for(self, student_layers: int, layer_map: str | None) -> Matches:
        """The pairs of layers for a student, whether their teacher layers are stored or not.

        ``layer_map``: ``uniform``, ``top``, ``bottom`` or the teacher layers of student layers 1 to the last, such as
        ``3,6,9,12``; None takes the pairs it was made for. Raises SpecError if not of that form, or a map that the
        teacher's layers do not allow.
        """
        made_for = self.matches
        if layer_map is None:
            return made_for
        pairs: dict[str, tuple[LayerPair, ...]] = {}
        for name, depth in self.depths.items():
            asked = _mapped(depth, student_layers, layer_map)
            kept = kept_layers(asked, self.request_for(name).teacher.num_layers)
            pairs[name] = tuple(pair for pair in kept if pair.teacher >= KINDS[name].first_layer)
        return replace(made_for, pairs=pairs)

    @property
    def num_labels(self) -> int:
        """Outputs C of the teacher; 1 for a regression."""
        return self.num_answers or max(1, len(self.request.data.label_names))

    @property
    def num_answers(self) -> int | None:
        """Outputs of the teacher whose answers there are to learn from; None where there are none."""
        stored = self.fields.get(LOGITS)
        return None if stored is None else kind_of(stored).num_answers(stored)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in index order, numbered where rows without labels named none; empty for a regression."""
        if self.num_labels == 1 and self.request.data.problem != "multilabel":
            return ()
        return tuple(self.request.data.label_names) or tuple(map(str, range(self.num_labels)))

    def interface(self, vocab_size: int | None = None) -> Interface:
        """Inputs and outputs that a student must have.

        ``vocab_size``: one more than the largest id of the tokenizer, where it is at hand: some teachers' tables are
        larger than their tokenizer needs.
        """
        tokenizer, asked = self.request.tokenizer, self.request.data.problem
        # Without a task it says nothing: an encoder has no head.
        problem: Problem = "classification" if asked in {"text", "none", "language"} else cast("Problem", asked)
        return Interface(
            vocab_size=vocab_size or max(tokenizer.vocab_size, self.request.teacher.vocab_size),
            label_names=self.label_names,
            problem=problem,
            pad_token_id=tokenizer.pad_token_id,
            max_positions=max(512, self.request.spec.max_length),
            type_vocab_size=2,
            reads_pairs=self.reads_pairs,
        )


def cached_knowledge(cache: Cache, choice: Choice = OWN) -> Knowledge:
    """Knowledge that a cache offers: its own fields, those of a kind that was chosen in their place.

    Raises MismatchError, SpecError if the cache has no such fields, or they cannot go together.
    """
    manifest, chosen = cache.manifest, resolved(cache, choice)
    names = {kind: chosen.of(kind)[0] for kind in knowledge() if chosen.of(kind)}
    single = len(chosen.of(LOGITS)) == 1
    inputs = cache.fields[INPUTS]
    return Knowledge(
        request=manifest.request,
        fields={kind: cache.fields[name] for kind, name in names.items()},
        has_labels=isinstance(inputs, InputsField) and inputs.has_labels,
        where=f"the cache {cache.name}",
        choice=choice,
        requests={kind: manifest.request_for(name) for kind, name in names.items() if name in manifest.added},
        # Several teachers together, or another one, have no scores of their own.
        evaluations=tuple(manifest.evaluations) if names.get(LOGITS) == LOGITS and single else (),
        agreement=manifest.agreement.get(names.get(LOGITS, "")) if single else None,
        added={kind: tuple(name for name in manifest.added if cache.fields[name].kind == kind) for kind in knowledge()},
    )


def _mapped(depth: Depth, student_layers: int, layer_map: str) -> Depth:
    """The depth for another student: what was asked for, through another map."""
    # Where all layers are stored, a number of layers was no wish to have fewer of them.
    all_kept = depth.num_layers is None or depth.stored == "all"
    num_layers = None if all_kept else min(depth.num_layers or 1, student_layers + 1)
    changes = {"student_layers": student_layers, "num_layers": num_layers, "stored": "all"}
    if depth.stored == "all":
        changes["kept"] = None
    changes |= layer_map_changes(layer_map)
    if changes["layers"] is not None or changes["mapping"] == "bottom":
        # Such maps lead nowhere but where they say.
        changes["target"] = None
    try:
        return Depth.model_validate(depth.model_dump() | changes)
    except ValidationError as error:
        raise SpecError(f"--layer-map {layer_map}: {first_problem(error)}") from None
