"""A spec resolved against a teacher: layers, heads and the fields that a build stores of it."""

from typing import Any, assert_never

from hskcache.counted import counted
from hskcache.encoded import column_bytes
from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.selection.columns import num_columns, uniform_columns
from hskcache.selection.depth import kept_layers, stored_layers
from hskcache.spec import SCORES, VOCABULARY_COUNTS, Attention, Depth, Embedding, Hidden, Length, Spec, Vocabulary
from hskcache.store.fields import AttentionField, Columns, EmbeddingField, HiddenField, VocabularyField
from hskcache.store.request import LayerKept, TeacherInfo
from hskcache.strict import Strict

OUTPUT_HEAD = "output_head"
"""Key of a teacher's configuration under which the shape of its head stands, where it is a language model."""

SENTENCE = "sentence_transformer"
"""Key of a teacher's configuration under which its modules stand, where its embeddings are kept."""


def resolve_spec(spec: Spec, teacher: TeacherInfo) -> Spec:
    """The spec with what it leaves to the teacher filled in; resolving twice changes nothing.

    Raises SpecError if it contradicts itself, or asks for layers that the teacher or the student does not have.
    """
    hidden, attention = spec.hidden, spec.attention
    if hidden is not None and hidden.width.scheme == "all" and hidden.width.fraction < 1.0:
        raise SpecError(
            f"--width all keeps every column, but --keep asks for a share of {hidden.width.fraction:g}; leave one of "
            "them out"
        )
    changes: dict[str, Strict] = {}
    for name, section in (("hidden", hidden), ("attention", attention)):
        if section is not None:
            depth = _resolve_depth(section.depth, teacher.num_layers)
            changes[name] = section.model_copy(
                update={"depth": depth, "length": _resolve_length(section.length, teacher)}
            )
    if spec.embedding is not None:
        changes["embedding"] = _resolve_embedding(spec.embedding, teacher)
    if spec.vocabulary is not None:
        changes["vocabulary"] = _resolve_vocabulary(spec.vocabulary, teacher)
    spec = spec.model_copy(update=changes)
    if spec.hidden is not None:
        hidden_field(spec.hidden, teacher)
    if spec.attention is not None:
        heads = attention_field(spec.attention, teacher).heads
        # All heads written down are all heads: the same bytes must have the same digest.
        if heads == list(range(teacher.num_heads)):
            spec = spec.model_copy(update={"attention": spec.attention.model_copy(update={"heads": "all"})})
    return spec


def _resolve_length(length: Length, teacher: TeacherInfo) -> Length:
    """The length, which says of a score of next tokens that it ranks the positions of these alone.

    Raises SpecError where positions are ranked by what there is not.
    """
    score, admitted, is_language = length.score, SCORES[length.score], head_of(teacher) is not None
    if admitted.targets_alone or length.targets:
        if not is_language:
            others = ", ".join(name for name, one in SCORES.items() if not one.targets_alone)
            raise SpecError(
                f"--score {score} ranks positions whose next token is to be predicted, and {teacher.name} is no causal "
                f"language model; give --score {others}"
            )
        if length.is_whole and admitted.targets_alone:
            raise SpecError(
                f"--score {score} ranks positions, and all of them are kept; say how many, as in --keep 0.2t, or leave "
                "it out"
            )
        if not length.is_whole and not admitted.ranks_targets:
            those = ", ".join(name for name, one in SCORES.items() if one.ranks_targets)
            default = ", as it does where nothing is said," if score == "attention" else ""
            raise SpecError(f"--score {score} ranks{default} no positions of next tokens; give --score {those}")
        return length.model_copy(update={"targets": True})
    if admitted.without_choice and not length.is_whole:
        asked = counted(length.tokens, "token") if length.tokens is not None else f"a share of {length.share:g}"
        raise SpecError(
            f"--score all keeps every position, but {asked} {'is' if length.tokens is None else 'are'} asked for; "
            "leave one of them out"
        )
    return length


def _resolve_depth(depth: Depth, teacher_layers: int) -> Depth:
    """The target filled in where a map asks for one, and listed layers in order.

    Raises SpecError for layers that do not exist, or of which no student would learn.
    """
    layers = stored_layers(depth, teacher_layers)
    depth = _resolve_kept(depth)
    if not isinstance(depth.stored, str):
        if not kept_layers(depth, teacher_layers):
            listed = ", ".join(map(str, layers))
            raise SpecError(
                f"of the layers {listed} that are to be stored none is in the student's layer map; list some that are, "
                "or give a map that has them with --layer-map"
            )
        depth = depth.model_copy(update={"stored": list(layers)})
    if depth.layers is not None or depth.mapping == "bottom":
        if depth.target is not None:
            name = "bottom" if depth.layers is None else "in so many words"
            raise SpecError(f"a map given {name} takes no --depth-target; leave it out")
        return depth
    return depth.model_copy(update={"target": depth.target or teacher_layers})


def _resolve_kept(depth: Depth) -> Depth:
    """Listed student layers in order; where they are the top ones, as many as that: the same bytes, the same digest."""
    if depth.kept is None:
        return depth
    kept = sorted(set(depth.kept))
    if kept != list(range(kept[0], depth.student_layers + 1)):
        return depth.model_copy(update={"kept": kept})
    return depth.model_copy(update={"kept": None, "num_layers": len(kept) if kept[0] else None})


def _resolve_embedding(asked: Embedding, teacher: TeacherInfo) -> Embedding:
    """Section of embeddings with what the teacher's folder says in the place of what is left open.

    Raises SpecError where it says nothing, or another pooling, or has fewer values than are to be kept.
    """
    own, name, width = sentence_config(teacher), teacher.name, embedding_width(teacher)
    if asked.pooling == "model" and own is None:
        raise SpecError(
            f"{name} has no modules.json to say how its states become an embedding; give --embedding mean, cls, max or "
            "last"
        )
    if own is not None and asked.pooling not in {"model", own["pooling"]}:
        raise SpecError(
            f"{name} pools by {own['pooling']}, as its modules.json says, and --embedding asks for {asked.pooling}; "
            f"give --embedding {own['pooling']}"
        )
    if asked.dims is not None and asked.dims > width:
        raise SpecError(f"--dims {asked.dims}: an embedding of {name} has {width} values; give at most so many")
    said: dict[str, Any] = own or {"pooling": asked.pooling, "normalize": False, "prompts": {}, "default_prompt": None}
    prompts: dict[str, str] = said["prompts"]
    prompt = prompts.get(said["default_prompt"] or "", "") if asked.prompt is None else asked.prompt
    if prompt and prompt not in prompts and " " not in prompt and (near := meant(prompt, prompts)):
        raise SpecError(f"--prompt {prompt!r} is none of {', '.join(prompts)}, the prompts of {name}{near}")
    changes = {
        "pooling": said["pooling"],
        "normalize": said["normalize"] if asked.normalize is None else asked.normalize,
        # All values written down are all values: the same bytes must have the same digest.
        "dims": None if asked.dims == width else asked.dims,
        "prompt": prompts.get(prompt, prompt),
    }
    return asked.model_copy(update=changes)


def _resolve_vocabulary(asked: Vocabulary, teacher: TeacherInfo) -> Vocabulary:
    """Section of next tokens with its count filled in, and the default in the place of what its form has no use for.

    Raises SpecError where more tokens are to be kept than there are, or a head is to have a count.
    """
    asked = asked.model_copy(update={"length": _resolve_positions(asked.length, teacher)})
    if asked.form == "head":
        if asked.count is not None:
            raise SpecError(f"--vocabulary head:{asked.count}: a head is kept whole; leave the number out")
        return asked.model_copy(update={"seed": 0})
    count = asked.count or VOCABULARY_COUNTS[asked.form]
    head = head_of(teacher)
    if asked.form == "top" and count < 2:
        raise SpecError("--vocabulary top:1 would keep one token at a position, which a text does, too; keep 2 or more")
    if asked.form == "top" and head is not None and count >= head["vocab_size"]:
        raise SpecError(
            f"--vocabulary top:{count}: {teacher.name} knows {counted(head['vocab_size'], 'token')}; keep fewer, or "
            "give --vocabulary head, which keeps the distribution over all of them"
        )
    changes = {"count": count, "encoding": Vocabulary.defaults().encoding}
    return asked.model_copy(update=changes if asked.form == "sampled" else changes | {"seed": 0})


def _resolve_positions(length: Length, teacher: TeacherInfo) -> Length:
    """Positions of next tokens, with defaults in the place of what is of no use. Raises as :func:`_resolve_length`."""
    if length.is_whole:
        return Length()
    of_no_use = {"score_layer": Length().score_layer} | ({} if length.score == "random" else {"seed": 0})
    return _resolve_length(length.model_copy(update={**of_no_use, "targets": True}), teacher)


def head_of(teacher: TeacherInfo) -> dict[str, Any] | None:
    """Account of a language model's head: ``vocab_size``, ``width``, ``dtype``, ``has_bias``, ``scale``, ``softcap``.

    None of other teachers.
    """
    own: Any = teacher.config.get(OUTPUT_HEAD)
    return dict(own) if own else None


def vocabulary_field(vocabulary: Vocabulary, teacher: TeacherInfo) -> VocabularyField:
    """Field for the next tokens of a teacher, of a resolved spec.

    Raises SpecError where the teacher is no language model.
    """
    head = head_of(teacher)
    if head is None:
        raise SpecError(
            f"{teacher.name} is no causal language model, so nothing can be kept of next tokens; leave --vocabulary out"
        )
    of_head = {
        "width": head["width"],
        "encoding": vocabulary.encoding,
        "head_dtype": head["dtype"],
        "has_bias": head["has_bias"],
    }
    return VocabularyField(
        form=vocabulary.form,
        vocab_size=head["vocab_size"],
        count=vocabulary.count,
        scale=head["scale"],
        softcap=head["softcap"],
        max_tokens=vocabulary.length.tokens,
        share=vocabulary.length.share,
        **(of_head if vocabulary.form == "head" else {}),
    )


def sentence_config(teacher: TeacherInfo) -> dict[str, Any] | None:
    """Account of an embedder's modules by its folder, see ``hskcache.model.sentence``; None of other teachers."""
    own: Any = teacher.config.get(SENTENCE)
    return dict(own) if own else None


def embedding_width(teacher: TeacherInfo) -> int:
    """Values of an embedding: the hidden width, or what the last layer after the pooling leads to."""
    dense = (sentence_config(teacher) or {}).get("dense")
    return int(dense[-1]["out"]) if dense else teacher.width


def embedding_field(embedding: Embedding, teacher: TeacherInfo) -> EmbeddingField:
    """Field for the embeddings of a teacher, of a resolved spec."""
    assert embedding.pooling != "model"
    width = embedding_width(teacher)
    return EmbeddingField(
        width=width,
        num_dims=embedding.dims or width,
        pooling=embedding.pooling,
        is_normalized=bool(embedding.normalize),
        encoding=embedding.encoding,
    )


def layer_pairs(kept: Hidden | Attention | None, teacher: TeacherInfo) -> list[LayerKept]:
    """The pairs of layers that learn from what is kept, as a manifest lists them; empty where nothing is kept."""
    pairs = () if kept is None else kept_layers(kept.depth, teacher.num_layers)
    return [LayerKept(student=pair.student, teacher=pair.teacher) for pair in pairs]


def hidden_field(hidden: Hidden, teacher: TeacherInfo) -> HiddenField:
    """Field for the hidden states of a teacher. Raises SpecError if the layers asked for do not exist."""
    layers = list(stored_layers(hidden.depth, teacher.num_layers))
    width, scheme = teacher.width, hidden.width
    kept = num_columns(width, scheme.fraction)
    columns: Columns
    match "all" if scheme.fraction == 1.0 else scheme.scheme:
        case "all":
            kept, columns = width, "all"
        case "uniform":
            kept, columns = len(uniform_columns(width, scheme.fraction)), "shared"
        case "random":
            columns = "shared"
        case "pca":
            columns = "pca"
        case "magnitude":
            columns = "bitmask" if column_bytes(kept, width)[0] == "bitmask" else "indices"
        case unknown:
            assert_never(unknown)
    return HiddenField(
        width=width,
        num_columns=kept,
        columns=columns,
        encoding=hidden.encoding,
        layers=layers,
        max_tokens=hidden.length.tokens,
        share=hidden.length.share,
    )


def attention_field(attention: Attention, teacher: TeacherInfo) -> AttentionField:
    """Field for the attention of a teacher. Raises SpecError if the layers or heads asked for do not exist."""
    layers = [layer for layer in stored_layers(attention.depth, teacher.num_layers) if layer > 0]
    if not layers:
        raise SpecError("attention is to be kept of the embedding output alone, which has none; keep more layers")
    heads = attention.heads
    if isinstance(heads, list) and (not heads or len(set(heads)) < len(heads) or max(heads) >= teacher.num_heads):
        raise SpecError(
            f"heads {heads} of the attention are to be kept, but the teacher has heads 0 to {teacher.num_heads - 1}; "
            "list some of those, each once"
        )
    kept_heads = list(range(teacher.num_heads)) if heads == "all" else heads
    return AttentionField(
        num_heads=1 if kept_heads == "mean" else len(kept_heads),
        heads=kept_heads,
        teacher_heads=teacher.num_heads,
        encoding=attention.encoding,
        layers=layers,
        max_tokens=attention.length.tokens,
        share=attention.length.share,
    )
