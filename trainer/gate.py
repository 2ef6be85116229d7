"""Does the knowledge fit the recipe and the student? Asked before step 1, answered with what to change."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from hskcache.cache import Cache, HiddenField, InputsField, LogitsField, Request
from hskcache.errors import MismatchError, SpecError
from trainer.evaluation import num_positions
from trainer.objective import LayerMatch
from trainer.recipe import Recipe
from trainer.student.create import Interface


@dataclass(frozen=True)
class Knowledge:
    """What there is to learn from, whether it comes from a cache or from a teacher in the loop.

    Attributes:
        request: teacher, tokenizer, data and spec it was asked for with.
        logits, hidden: the fields, or None.
        has_labels: whether the rows carry gold labels.
        where: what to call it in an error.
    """

    request: Request
    logits: LogitsField | None
    hidden: HiddenField | None
    has_labels: bool
    where: str

    @property
    def matches(self) -> tuple[LayerMatch, ...]:
        """Student layers and the teacher layers they learn from."""
        return tuple(LayerMatch(pair.student, pair.teacher) for pair in self.request.layers)

    @property
    def student_layers(self) -> int | None:
        """Layers of the student that the layer map was made for; None without hidden states."""
        hidden = self.request.spec.hidden
        return hidden.depth.student_layers if hidden is not None else None

    @property
    def num_labels(self) -> int:
        """Outputs C of the teacher; 1 for a regression."""
        return self.logits.num_labels if self.logits is not None else max(1, len(self.request.data.label_names))

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in index order, numbered where rows without labels named none; empty for a regression."""
        if self.num_labels == 1:
            return ()
        return tuple(self.request.data.label_names) or tuple(map(str, range(self.num_labels)))

    def interface(self, vocab_size: int | None = None) -> Interface:
        """What a student must read and answer.

        Args:
            vocab_size: one more than the largest id of the tokenizer, where it is at hand: some teachers' tables are
                larger than their tokenizer needs.
        """
        tokenizer = self.request.tokenizer
        return Interface(
            vocab_size=vocab_size or max(tokenizer.vocab_size, self.request.teacher.vocab_size),
            label_names=self.label_names,
            problem=self.request.data.problem,
            pad_token_id=tokenizer.pad_token_id,
            max_positions=max(512, self.request.spec.max_length),
            type_vocab_size=2,
        )


def cached_knowledge(cache: Cache) -> Knowledge:
    """What a cache offers to learn from."""
    logits, hidden, inputs = (cache.fields.get(name) for name in ("logits", "hidden", "inputs"))
    return Knowledge(
        request=cache.manifest.request,
        logits=logits if isinstance(logits, LogitsField) else None,
        hidden=hidden if isinstance(hidden, HiddenField) else None,
        has_labels=isinstance(inputs, InputsField) and inputs.has_labels,
        where=f"the cache {cache.root}",
    )


def check_recipe(knowledge: Knowledge, recipe: Recipe, slices: int = 1) -> None:
    """Refuse a recipe that asks for knowledge there is none of, or whose batches cannot be cut as asked.

    Args:
        knowledge: to learn from.
        recipe: the stages.
        slices: parts of each batch, processes x forward passes.

    Raises:
        MismatchError: saying which stage asks for what, and what to change.
        SpecError: a batch size that ``slices`` does not divide.
    """
    where = knowledge.where
    for stage in recipe.stages:
        what = f"stage {stage.name!r} of recipe {recipe.name!r}"
        if stage.losses.hidden is not None and knowledge.hidden is None:
            raise MismatchError(
                f"{what} learns from hidden states, and {where} keeps none; build it with --keep 1l_10t_0.1h, or use "
                "--recipe logits"
            )
        if stage.losses.soft is not None and knowledge.logits is None:
            raise MismatchError(f"{what} learns from logits, and {where} keeps none; build it again")
        if stage.losses.label is not None and not knowledge.has_labels:
            raise MismatchError(
                f"{what} learns from labels, and the rows of {where} have none; build it with --label, or use "
                "--recipe logits"
            )
        if stage.batch_size % slices:
            raise SpecError(
                f"{what} has batches of {stage.batch_size} rows, which cannot be cut into {slices} equal parts "
                f"(processes x accumulated passes); use --set {stage.name}.batch_size=N with N a multiple of {slices}"
            )


def check_student(knowledge: Knowledge, recipe: Recipe, student: PreTrainedModel) -> None:
    """Refuse a student that cannot read the rows or learn from the layers.

    Raises:
        MismatchError: layers, classes, vocabulary or positions do not fit, saying what to change.
    """
    config, where = student.config, knowledge.where
    layers, made_for = int(config.num_hidden_layers), knowledge.student_layers
    if recipe.needs_hidden and made_for != layers:
        raise MismatchError(
            f"the student has {layers} layers and {where} maps the teacher's to a student of {made_for}; build it "
            f"with --student-layers {layers}, or use a student of {made_for} layers"
        )
    if int(config.num_labels) != knowledge.num_labels:
        raise MismatchError(
            f"the student has {config.num_labels} outputs and {where} has {knowledge.num_labels} (1 is a score); use a "
            "student of this task"
        )
    positions, longest = num_positions(student), knowledge.request.spec.max_length
    if positions is not None and positions < longest:
        raise MismatchError(
            f"the student has {positions} positions and rows of {where} may have {longest} tokens; build it with "
            f"--max-length {positions}, or use another student"
        )
    if int(config.vocab_size) < knowledge.request.tokenizer.vocab_size:
        raise MismatchError(
            f"the student knows {config.vocab_size} token ids and the tokenizer of {where} gives "
            f"{knowledge.request.tokenizer.vocab_size}; use a student with the teacher's vocabulary"
        )


def check_tokenizer(knowledge: Knowledge, theirs: Mapping[str, int], ours: Mapping[str, int], student: str) -> None:
    """Refuse a student whose own tokenizer gives other ids than the rows hold.

    Args:
        knowledge: the rows.
        theirs: token -> id of the student's tokenizer.
        ours: token -> id of the tokenizer the rows were made with.
        student: what to call the student in the error.

    Raises:
        MismatchError: naming the first token that differs.
    """
    if theirs == ours:
        return
    token = min(token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token))
    raise MismatchError(
        f"the tokenizer of {student} is not the one of {knowledge.where}: token {token!r} has id {theirs.get(token)} "
        f"there and {ours.get(token)} here; use a student with the teacher's tokenizer"
    )
