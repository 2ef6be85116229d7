"""Gate between knowledge and recipe: whether they fit is asked before step 1, and answered with what to change."""

from collections.abc import Mapping

from pydantic import JsonValue
from transformers import PreTrainedModel

from hskcache.classes import require_one_score, require_outputs
from hskcache.counted import counted
from hskcache.encoder import num_positions
from hskcache.errors import MismatchError, SpecError
from hskcache.store.kinds import KINDS, LOGITS
from hskcache.store.kinds import knowledge as learned_kinds
from hskcache.text.tokenize import vocabulary_difference
from trainer.loading.kinds import LOADED
from trainer.losses import LOSSES, pairs_of
from trainer.losses.matches import Matches
from trainer.recipe import Recipe, Stage, known_recipes, load_recipe
from trainer.source.knowledge import Knowledge


def check_recipe(knowledge: Knowledge, recipe: Recipe, slices: int = 1) -> None:
    """Refuse a recipe that asks for knowledge there is none of, or whose batches cannot be cut as asked.

    ``slices``: parts of each batch, processes x forward passes. Raises MismatchError saying which stage asks for what,
    and what to change; SpecError for a batch size that ``slices`` does not divide, or a field that was chosen and no
    stage learns from.
    """
    _check_choice(knowledge, recipe)
    if knowledge.num_answers is not None and any(stage.losses.needs_task for stage in recipe.stages):
        teacher = knowledge.request_for(LOGITS).teacher
        where = f"{teacher.name}, the teacher of {knowledge.where_of(LOGITS)},"
        require_one_score(where, teacher.config, knowledge.num_answers)
        _check_problem(where, teacher.config.get("problem_type"), knowledge)
    for stage in recipe.stages:
        called = _called(stage, recipe)
        if (lacking := _lacking(knowledge, stage)) is not None:
            raise MismatchError(f"{called} {lacking}; {_change(knowledge, recipe, stage)}")
        if stage.batch_size % slices:
            raise SpecError(
                f"{called} has batches of {stage.batch_size} rows, which cannot be cut into {slices} equal parts "
                f"(processes x accumulated passes); use --set {stage.name}.batch_size=N with N a multiple of {slices}"
            )


def _check_problem(where: str, told: JsonValue, knowledge: Knowledge) -> None:
    """Raise where a teacher answers any number of classes and its rows were read, or are, as of one class each."""
    is_multilabel = knowledge.request.data.problem == "multilabel"
    if told is not None and is_multilabel != (told == "multi_label_classification"):
        asked = "any number of classes" if is_multilabel else "one class or score"
        raise MismatchError(
            f"{where} has the problem_type {told}, and the rows ask for {asked} each; build the cache again from the "
            "teacher as it is, or choose a field of such answers"
        )


def _check_choice(knowledge: Knowledge, recipe: Recipe) -> None:
    """Raise unless fields chosen in place of the cache's own are learned from, and answer what the rows ask."""
    for kind in learned_kinds():
        if (names := knowledge.choice.of(kind)) and kind not in recipe.kinds:
            raise SpecError(
                f"--field {names[0]}: recipe {recipe.name!r} learns from no {KINDS[kind].words}; leave the flag out"
            )
    data, given = knowledge.request.data, knowledge.num_answers
    outputs = 1 if data.problem == "regression" else len(data.label_names)
    if knowledge.choice.of(LOGITS) and given is not None and outputs and given != outputs:
        raise MismatchError(
            f"{knowledge.where_of(LOGITS)} has {counted(given, 'output')} and the rows ask for {outputs} (1 is a "
            "score); give --field the name of logits of this task"
        )


def _lacking(knowledge: Knowledge, stage: Stage) -> str | None:
    """Words on what a stage asks for that there is none of; None where there is all."""
    where, losses = knowledge.where, stage.losses
    if not knowledge.has_task and losses.needs_task:
        return f"learns from a classifier's answers, and {where} holds {knowledge.rows}"
    can_score = knowledge.has_task or knowledge.has_language or knowledge.embedded(losses.kinds) is not None
    if stage.select == "best" and not can_score:
        return f"picks the epoch that scores best, and {where} holds {knowledge.rows}"
    if not knowledge.has_language and losses.needs_language:
        return f"learns next tokens, which causal language models say, and {where} holds {knowledge.rows}"
    for kind in losses.kinds:
        if kind not in knowledge.fields:
            return f"learns from {KINDS[kind].words}, and {where} keeps none"
    if losses.label is not None and not knowledge.has_labels:
        return f"learns from labels, and the rows of {where} have none"
    return None


def _change(knowledge: Knowledge, recipe: Recipe, stage: Stage) -> str:
    """Advice where a stage lacks something; whoever follows it comes to no other lack."""
    if not knowledge.has_task and not stage.losses.needs_task and stage.select == "best":
        return f"use --set {stage.name}.select=last"
    asked = [one.losses for one in recipe.stages]
    is_of_others = (not knowledge.has_task and any(losses.needs_task for losses in asked)) or (
        not knowledge.has_language and any(losses.needs_language for losses in asked)
    )
    ways = [] if is_of_others else [_kept(knowledge, recipe)]
    stages = {name: load_recipe(name).stages for name in known_recipes()}
    if fitting := [name for name in stages if all(_lacking(knowledge, one) is None for one in stages[name])]:
        ways.append(f"use --recipe {' or '.join(fitting)}")
    if not ways:
        # Of the recipes that ship one is for a corpus, and one for what a language model says of it.
        other = "lm" if knowledge.has_language else "tinybert-general"
        ways.append(f"for --recipe {other} {_kept(knowledge, load_recipe(other))}")
    return ", or ".join(ways)


def _kept(knowledge: Knowledge, recipe: Recipe) -> str:
    """Options of a build that keeps all that a recipe needs, or of a field that was added to the cache in its place."""
    optional = {term.kind for name, term in recipe.terms.items() if LOSSES[name].keep}
    lacking = [kind for kind in recipe.kinds if kind in optional and kind not in knowledge.fields]
    given = [f"--field {knowledge.added[kind][0]}" for kind in lacking if knowledge.added.get(kind)]
    options: dict[str, str] = {}
    for name in recipe.terms:
        for flag, value in LOSSES[name].keep.items():
            # Of terms with one option the first keeps the most.
            options.setdefault(flag, value)
    flags = [f"{flag} {value}" for flag, value in options.items()]
    if not knowledge.has_labels and any(stage.losses.label is not None for stage in recipe.stages):
        flags.append("--label COLUMN")
    elif given and len(given) == len(lacking):
        return f"give {' '.join(given)}, which {'was' if len(given) == 1 else 'were'} added to it"
    return f"build it with {' '.join(flags)}" if flags else "build it again"


def check_student(knowledge: Knowledge, recipe: Recipe, student: PreTrainedModel, layer_map: str | None = None) -> None:
    """Refuse a student that cannot read the rows or learn from the layers.

    ``layer_map``: chosen in place of the one the knowledge was made for, see :meth:`Knowledge.matches_for`. Raises
    MismatchError if layers, heads, classes, vocabulary or positions do not fit, saying what to change; SpecError for a
    layer map that is none, or that nothing is learned by.
    """
    config, where = student.config, knowledge.where
    _check_layers(knowledge, recipe, int(config.num_hidden_layers), layer_map)
    _check_terms(knowledge, recipe, student)
    if knowledge.has_task:
        require_outputs("the student", config, where, knowledge.num_labels, "a student of this task")
    positions, longest = num_positions(student), knowledge.request.spec.max_length
    if positions is not None and positions < longest:
        raise MismatchError(
            f"the student has {counted(positions, 'position')} and rows of {where} may have "
            f"{counted(longest, 'token')}; build it with "
            f"--max-length {positions}, or use another student"
        )
    if int(config.vocab_size) < knowledge.request.tokenizer.vocab_size:
        raise MismatchError(
            f"the student knows {config.vocab_size} token ids and the tokenizer of {where} gives "
            f"{knowledge.request.tokenizer.vocab_size}; use a student with the teacher's vocabulary"
        )
    if int(config.vocab_size) <= knowledge.request.tokenizer.pad_token_id:
        raise MismatchError(
            f"the student knows {config.vocab_size} token ids and rows of {where} are padded with "
            f"{knowledge.request.tokenizer.pad_token_id}; use a student with the teacher's vocabulary"
        )


def _called(stage: Stage, recipe: Recipe) -> str:
    return f"stage {stage.name!r} of recipe {recipe.name!r}"


def _check_layers(knowledge: Knowledge, recipe: Recipe, layers: int, layer_map: str | None) -> None:
    where = knowledge.where
    wanted = [kind for kind in recipe.kinds if kind in knowledge.depths]
    if layer_map is not None and not wanted:
        raise SpecError(f"--layer-map {layer_map}: recipe {recipe.name!r} learns from no layer; leave the flag out")
    for name in wanted if layer_map is None else ():
        if (made_for := knowledge.depths[name].student_layers) != layers:
            there = not _not_stored(knowledge, recipe, knowledge.matches_for(layers, "uniform"))
            raise MismatchError(
                f"the student has {counted(layers, 'layer')} and {knowledge.where_of(name)} maps the "
                "teacher's to a student of "
                f"{made_for}; build it with --student-layers {layers}, or use a student of {counted(made_for, 'layer')}"
                + (", or give --layer-map uniform: the layers are there" if there else "")
            )
    matches = knowledge.matches_for(layers, layer_map)
    if missing := _not_stored(knowledge, recipe, matches):
        raise MismatchError(
            f"--layer-map {layer_map} needs {missing}, which {where} does not keep; build it with --store-layers all, "
            "or choose another map"
        )
    for stage in recipe.stages:
        if lacking := _without_pairs(stage, matches):
            kind, what = lacking
            uniform = knowledge.matches_for(layers, "uniform")
            there = not _not_stored(knowledge, recipe, uniform) and not _without_pairs(stage, uniform)
            change = (
                "give --layer-map uniform: the layers are there"
                if there and layer_map is None
                else "build it with more layers (--keep without a number of them), or leave the term out"
            )
            learner = f"{_called(stage, recipe)} learns from {what}"
            keeper = knowledge.where_of(kind)
            raise MismatchError(f"{learner}, and {keeper} keeps none for the student's layers; {change}")


def _not_stored(knowledge: Knowledge, recipe: Recipe, matches: Matches) -> str:
    """Teacher layers that the stages need and that are not stored, in words; empty where all are."""
    wanted: dict[str, set[int]] = {}
    for stage in recipe.stages:
        for kind, pairs in pairs_of(stage.losses, matches).items():
            wanted.setdefault(kind, set()).update(pair.teacher for pair in pairs)
    missing = []
    for kind, needed in wanted.items():
        field = knowledge.fields.get(kind)
        if layers := sorted(needed - set(field.stored_layers if field is not None else ())):
            chosen = "".join(f" of field {name}" for name in knowledge.choice.of(kind))
            missing.append(f"{LOADED[kind].of_layers} {', '.join(map(str, layers))}{chosen}")
    return " and ".join(missing)


def _without_pairs(stage: Stage, matches: Matches) -> tuple[str, str] | None:
    """A term of the stage that no pair of layers serves: the kind it is about, and it in words."""
    for name, settings in stage.losses.terms.items():
        term = LOSSES[name]
        if term.has_layers and settings.kind is not None and not term.pairs(settings, matches):
            return settings.kind, term.what or KINDS[settings.kind].words
    return None


def _check_terms(knowledge: Knowledge, recipe: Recipe, student: PreTrainedModel) -> None:
    """Raise unless the student shows what the terms compare, and as they are set."""
    num_heads = int(getattr(student.config, "num_attention_heads", 0))
    for stage in recipe.stages:
        for name, settings in stage.losses.terms.items():
            if settings.kind is not None and settings.kind not in knowledge.fields:
                continue
            LOSSES[name].check_student(student, knowledge.matches)
            try:
                LOSSES[name].check(settings, knowledge.matches, num_heads)
            except MismatchError as error:
                raise MismatchError(f"{error} (--set {stage.name}.losses.{name}.{LOSSES[name].setting}=...)") from None


def check_template(knowledge: Knowledge, theirs: str | None, ours: str | None, student: str) -> None:
    """Refuse a student with another chat template than the one that the conversations of a cache went through.

    ``theirs``: template of the student's tokenizer, None of one without; ``ours``: of the cache's. Raises MismatchError
    where both have one and they differ.
    """
    provenance = knowledge.request.data.provenance
    made = None if provenance is None else provenance.language
    if made is not None and made.form == "conversations" and theirs not in (None, ours):
        raise MismatchError(
            f"the chat template of {student} is not the one that the conversations of {knowledge.where} went through; "
            "give a student with the teacher's, or build with its template beside the teacher's tokenizer"
        )


def check_tokenizer(knowledge: Knowledge, theirs: Mapping[str, int], ours: Mapping[str, int], student: str) -> None:
    """Refuse a student whose own tokenizer gives other ids than the rows hold.

    ``theirs``: token -> id of the student's tokenizer; ``ours``: token -> id of the tokenizer the rows were made with.
    Raises MismatchError naming the first token that differs.
    """
    if (difference := vocabulary_difference(theirs, ours)) is None:
        return
    token, there, here = difference
    raise MismatchError(
        f"the tokenizer of {student} is not the one of {knowledge.where}: token {token!r} has id {there} there and "
        f"{here} here; use a student with the teacher's tokenizer, or give --tokenizer where the cache keeps its text"
    )
