"""Creation of a student from what ``hsktrain create`` is asked for with; imports torch when it runs."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hskcache import console, runtime
from hskcache.classes import Problem
from hskcache.errors import DataError, SpecError, TeacherError
from hskcache.text.layout import Layout
from hskcache.text.remembered import Remembered, of_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trainer.student.importance import By, LabelledBatches, LayerImportance
    from trainer.student.prune import Pruned, Pruning


@dataclass(frozen=True)
class Created:
    """A student, its tokenizer, what there is to tell beside its sizes, and how the rows of its teacher are read."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    facts: dict[str, Any] = field(default_factory=dict)
    rows: Remembered | None = None


@dataclass(frozen=True)
class CreateRequest:
    """A student to create, as the options say it that are called alike, one of three ways."""

    student: str | None
    teacher: str | None
    prune: str | None
    layers: str | None
    heads: int | None
    ffn: int | None
    share: float | None
    embedding_rank: int | None
    data: str | None
    layout: Layout
    num_rows: int | None
    batch_size: int
    max_length: int | None
    device: str
    tokenizer: str | None
    labels: str | None
    multilabel: bool
    seed: int


def create_as_asked(request: CreateRequest) -> Created:
    """The student, in memory. Raises CacheError if what was given is too much, too little or does not fit."""
    if request.prune is not None:
        return _prune(request, request.prune)
    return _begin(request) if request.teacher is None else _cut(request, request.teacher)


def _begin(request: CreateRequest) -> Created:
    from hskcache.text import load_tokenizer
    from trainer.student.causal import is_causal_source
    from trainer.student.create import Interface, create_student
    from trainer.student.origin import tell_origin

    student, source, labels = request.student, request.tokenizer, request.labels
    if student and source and labels is None and request.layers is None and is_causal_source(student):
        return _begin_causal(request, student, source)
    if student is None or source is None or labels is None or request.layers is not None:
        missing = "tokenizer" if source is None else "labels" if labels is None else None
        needed = (
            "give --student with --tokenizer and --labels (of a causal language model without), or --from with "
            "--layers, or --prune"
        )
        raise SpecError(f"--student lacks --{missing}; {needed}" if student and missing else needed)
    tokenizer = load_tokenizer(source)
    names, problem = parse_labels(labels, request.multilabel)
    has_types = "token_type_ids" in tokenizer.model_input_names
    interface = Interface(
        len(tokenizer),
        names,
        problem,
        tokenizer.pad_token_id or 0,
        type_vocab_size=2 if has_types else 1,
        # What comes may be pairs: single texts lose nothing by a type that they do not have.
        reads_pairs=has_types,
    )
    model = create_student(student, interface, request.seed)
    tell_origin(student, has_types)
    return Created(model, tokenizer)


def _begin_causal(request: CreateRequest, student: str, source: str) -> Created:
    """A causal language model, which has no classes; of the tokenizer's model it takes over the number of ids."""
    from hskcache.model.load import load_config
    from hskcache.text import load_tokenizer
    from trainer.student.causal import LanguageInterface, create_causal
    from trainer.student.origin import tell_origin

    if request.multilabel:
        raise SpecError("--multilabel belongs to --labels; leave it out")
    tokenizer = load_tokenizer(source)
    try:
        vocab_size = getattr(load_config(source, "a teacher"), "vocab_size", None)
    except TeacherError:
        # A tokenizer alone.
        vocab_size = None
    model = create_causal(student, LanguageInterface.of(tokenizer, vocab_size), request.seed)
    tell_origin(student)
    return Created(model, tokenizer)


def _cut(request: CreateRequest, teacher: str) -> Created:
    from hskcache.model.adapter import tokenizer_of
    from hskcache.text import load_tokenizer
    from trainer.student.layers import from_teacher_layers, load_layered, resolve_layers

    given = [
        flag for flag, value in (("--student", request.student), ("--labels", request.labels)) if value is not None
    ]
    if given:
        raise SpecError(f"--from brings its own head; leave out {' and '.join(given)}")
    if request.multilabel:
        raise SpecError("--multilabel belongs to --labels; leave it out")
    if request.layers is None:
        raise SpecError("--from lacks --layers; give some of the teacher's layers, such as 2,4,6 or uniform:3")
    tokenizer = load_tokenizer(request.tokenizer or tokenizer_of(teacher))
    model = load_layered(teacher)
    layers = resolve_layers(request.layers, model.config.num_hidden_layers)
    return Created(from_teacher_layers(model, layers), tokenizer, rows=of_model(teacher))


def _prune(request: CreateRequest, name: str) -> Created:
    from hskcache.model.adapter import tokenizer_of
    from hskcache.text import load_tokenizer
    from trainer.student.create import load_classifier
    from trainer.student.prune import Pruning, check_cut, prunable_layers, prune

    if any(one is not None for one in (request.student, request.teacher, request.labels)):
        raise SpecError("--prune brings its own layers and classifier; leave out --student, --from and --labels")
    if request.multilabel:
        raise SpecError("--multilabel belongs to --labels; leave it out")
    kept = (request.layers, request.heads, request.ffn, request.share, request.embedding_rank)
    if all(one is None for one in kept):
        raise SpecError(
            "--prune lacks what to keep; give some of --layers, --heads, --ffn, --global and --embedding-rank"
        )
    device = runtime.resolve_device(request.device)
    teacher = load_classifier(name)
    tokenizer = load_tokenizer(request.tokenizer or tokenizer_of(name))
    layers = prunable_layers(request.layers, teacher.config.num_hidden_layers)
    cut = Pruning(layers, request.heads, request.ffn, request.embedding_rank, request.share)
    check_cut(teacher, cut)
    scores, num_rows = None, 0
    if cut.needs_importance(teacher):
        sample = _sample(request, (name, teacher), tokenizer)
        num_rows = sum(map(len, sample.batches))
        scores = _importance(teacher.to(device), sample, cut)
    elif request.data is not None:
        console.say(f"all heads and neurons stay, so {request.data} is not read")
    pruned = prune(teacher, cut, scores)
    facts = _facts(teacher, pruned, cut) | {"num_rows": num_rows}
    return Created(pruned.model, tokenizer, facts, of_model(name))


def _facts(teacher: "PreTrainedModel", pruned: "Pruned", cut: "Pruning") -> dict[str, Any]:
    """Facts of a pruning."""
    config = pruned.model.config
    facts = {
        "heads": config.num_attention_heads,
        "head_size": teacher.config.hidden_size // teacher.config.num_attention_heads,
        "ffn": config.intermediate_size,
        "embedding_rank": cut.embedding_rank,
        "teacher_parameters": teacher.num_parameters(),
        "kept_heads": [{"layer": layer, "heads": list(heads)} for layer, heads in pruned.heads.items()],
    }
    if cut.share is None:
        return facts
    most = {"heads": teacher.config.num_attention_heads, "ffn": teacher.config.intermediate_size}
    return facts | {
        "heads": sum(map(len, pruned.heads.values())),
        "ffn": sum(map(len, pruned.neurons.values())),
        "ffn_by_layer": [len(neurons) for neurons in pruned.neurons.values()],
        "share": cut.share,
        "of": {name: each * len(cut.layers) for name, each in most.items()},
    }


def _sample(
    request: CreateRequest, named: "tuple[str, PreTrainedModel]", tokenizer: "PreTrainedTokenizerBase"
) -> "LabelledBatches":
    from hskcache.cut import tell_cut
    from hskcache.text import tokenized
    from hskcache.text.tokenize import reach_of
    from trainer.student.importance import LabelledBatches, draw_batches

    (name, teacher), data, columns = named, request.data, request.layout
    if data is None:
        raise SpecError(
            "--heads, --ffn and --global need labelled rows to choose by; give --data FILE with --task or columns"
        )
    memory = of_model(name)
    columns = columns.of_labelled_rows().recalling(memory, data, labelled=True)
    examples = columns.read_for(name, teacher.config, data)
    examples.require_gold("which importance needs")
    if examples.labels is None:
        raise DataError(f"--data {data} is read without labels, and importance needs them; give --task or --label")
    max_length = request.max_length or memory.length(columns.task)
    rows = tokenized(examples, tokenizer, max_length)
    tell_cut(rows.cut, len(rows), data, reach_of(teacher, name, max_length))
    batches = draw_batches(len(examples), request.batch_size, request.seed, request.num_rows)
    return LabelledBatches(rows, examples.labels, batches)


def _importance(teacher: "PreTrainedModel", sample: "LabelledBatches", cut: "Pruning") -> "dict[int, LayerImportance]":
    from trainer.student.importance import importance

    by: By = "weights" if cut.share is None else "masks"
    with console.advancing("importance", sum(map(len, sample.batches))) as advance:
        return importance(teacher, sample, cut.layers, advance, by)


def parse_labels(text: str, is_multilabel: bool = False) -> tuple[tuple[str, ...], Problem]:
    """Class names in index order and the kind of problem; classes that are only counted are called 0, 1, ...

    ``is_multilabel``: whether a row may have any number of them, and there may be one alone. Raises SpecError for no
    class, one named class, or a name twice.
    """
    if text == "1" and not is_multilabel:
        return (), "regression"
    names = tuple(map(str, range(int(text)))) if text.isdecimal() else tuple(part.strip() for part in text.split(","))
    if len(names) < (1 if is_multilabel else 2) or len(set(names)) < len(names) or not all(names):
        raise SpecError(f"--labels {text!r}: give a number of classes or different names: negative,positive")
    return names, "multilabel" if is_multilabel else "classification"
