"""``hsktrain evaluate``: the task metrics of a model, or how well a language model says texts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hskcache import console, runtime
from hskcache.completion import fields, places
from hskcache.errors import SpecError
from hskcache.options import as_json, device, each_once, gathered, layout
from hskcache.ranges import Whole
from hskcache.text.layout import Layout
from trainer.cli import options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hskcache.text import Examples
    from hskcache.text.windows import Windowing


@dataclass(frozen=True)
class EvaluateRequest:
    """A model to score and the rows, as the options say it that are called alike."""

    model: str
    sources: Sequence[str]
    corpus: str | None
    one_document: bool
    cache: str | None
    field: str | None
    layout: Layout
    max_length: int | None
    stride: int | None
    bf16: bool
    device: str


@click.command()
@options.classifier
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="FILE",
    callback=each_once,
    help="Labelled rows, of a causal language model texts; may be repeated, each file is scored by itself.",
    shell_complete=places,
)
@click.option(
    "--corpus",
    metavar="FILE",
    help="Of a causal language model: plain text, whose tokens it is to say.",
    shell_complete=places,
)
@click.option("--one-document", is_flag=True, help="Read all of --corpus as one document, blank lines too.")
@click.option(
    "--cache",
    metavar="PATH_OR_URL",
    help="Of a causal language model: the rows of a cache, beside what its teacher said of them.",
    shell_complete=places,
)
@click.option(
    "--field",
    metavar="NAME",
    help="With --cache: the teacher's field of next tokens.  [default: vocabulary, the cache's own]",
    shell_complete=fields,
)
@layout
@options.trained_max_length
@click.option(
    "--stride",
    type=Whole(min=0),
    help="Read rows that are longer than the model reads in windows that share so many tokens, and take the mean of "
    "their logits.  [default: such rows are cut]",
)
@options.bf16
@device
@as_json
@gathered(EvaluateRequest, "request")
def evaluate(request: EvaluateRequest, as_json: bool) -> None:
    """Score a model on labelled rows, or a causal language model on texts.

    Class indices follow the order of the labels in the model's config. Columns that are not given are those that the
    model was trained on. Several files, such as both development sets of MNLI, are scored one by one.

    Of a sentence-transformers folder the cosines of pairs are compared with their scores, or with the two classes of
    pairs that are alike or not, and nothing is learned from these: --task stsb or qqp, or --text, --text-pair and
    --label.

    Of a causal language model it is told how well it says the tokens of --corpus, of texts of --data, or of the rows of
    --cache: perplexity, and bits a byte, which models of other tokenizers can be compared by.
    """
    from hskcache.model.sentence import sentence_modules
    from trainer import chance
    from trainer.student.causal import is_causal_source

    model, sources = request.model, request.sources
    is_embedder = sentence_modules(model) is not None
    if not is_embedder and is_causal_source(model):
        from trainer.cli.speaking import evaluated

        evaluated(request, as_json)
        return
    for flag, value in (("--corpus", request.corpus), ("--cache", request.cache), ("--field", request.field)):
        if value is not None:
            raise SpecError(f"{flag} {value} is for causal language models, and {model} is none; give --data FILE")
    if request.one_document:
        raise SpecError(f"--one-document is for causal language models, and {model} is none; leave it out")
    if not sources:
        raise SpecError("give labelled rows to score the model on: --data FILE")
    results = _embedded(request) if is_embedder else _classified(request)
    if as_json:
        plain = [{"data": source, **result} for source, result in zip(sources, results, strict=True)]
        console.print_json({"model": model, **(plain[0] if len(plain) == 1 else {"evaluations": plain})})
    else:
        options.print_scores({source: result["metrics"] for source, result in zip(sources, results, strict=True)})
    for source, result in zip(sources, results, strict=True):
        where = f"{model} on {Path(source).name}" if len(sources) > 1 else model
        chance.tell(result, where, "train it at another learning rate, for more epochs or on more rows")


def _embedded(asked: EvaluateRequest) -> list[dict[str, Any]]:
    """Metrics of cosines on each file."""
    from hskcache.text.remembered import of_model
    from trainer.similarity import load_sentence_model, read_scored_pairs, scored_pairs

    if asked.stride is not None:
        raise SpecError(f"--stride {asked.stride} is for classifiers, and {asked.model} gives embeddings; leave it out")
    layout = asked.layout.recalling(of_model(asked.model), asked.sources[0], labelled=True)
    # What it learned from may have been single texts; pairs are scored all the same.
    layout = replace(layout, memory=None)
    rows = [read_scored_pairs(source, layout) for source in asked.sources]
    model = load_sentence_model(asked.model, asked.device, asked.max_length, asked.bf16)
    return [scored_pairs(model, examples, layout) for examples in rows]


def _classified(asked: EvaluateRequest) -> list[dict[str, Any]]:
    """Metrics of a classifier on each file."""
    from hskcache.model.adapter import tokenizer_of
    from hskcache.text import load_tokenizer
    from hskcache.text.remembered import of_model
    from trainer.student.create import load_classifier

    model, sources = asked.model, asked.sources
    memory = of_model(model)
    place = runtime.resolve_device(asked.device)
    columns = asked.layout.recalling(memory, sources[0], labelled=True)
    for source in sources[1:]:
        columns.check(source)
    max_length = asked.max_length or memory.length(columns.task)
    with runtime.quiet():
        tokenizer = load_tokenizer(tokenizer_of(model))
        classifier = load_classifier(model)
    scored = _Scored(model, classifier, tokenizer, max_length, asked.bf16, _windowing(asked, classifier, tokenizer))
    rows = [scored.read(source, columns) for source in sources]
    scored.classifier.to(place)
    return [scored.score(examples, columns) for examples in rows]


def _windowing(
    asked: EvaluateRequest, classifier: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> "Windowing | None":
    """Way of reading long rows; None where all are read whole."""
    from hskcache.spec import Windows
    from hskcache.text.windows import windowing_for

    if asked.stride is None:
        return None
    return windowing_for(classifier, tokenizer, Windows(overlap=asked.stride), asked.model)


@dataclass(frozen=True)
class _Scored:
    """A model that is scored, and how its rows are read."""

    name: str
    classifier: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    bf16: bool
    windowing: "Windowing | None"

    def read(self, source: str, layout: Layout) -> "Examples":
        """Labelled rows, their classes in the order of the model's."""
        from hskcache.evaluation import check_labels

        examples = layout.of_labelled_rows().read_for(self.name, self.classifier.config, source)
        check_labels(examples)
        return examples

    def score(self, examples: "Examples", layout: Layout) -> dict[str, Any]:
        """The metrics on some rows, what these lost and what there is to notice."""
        from hskcache.cut import tell_beyond, tell_cut
        from hskcache.encoder import trained_length
        from hskcache.evaluation import evaluate
        from hskcache.metrics import metrics_for
        from hskcache.text import tokenized
        from hskcache.text.tokenize import reach_of
        from trainer import chance

        task, source = layout.task, examples.source
        if self.windowing is not None and examples.pairs is not None:
            raise SpecError(f"--stride {self.windowing.overlap}: rows of {source} are pairs of texts; leave it out")
        rows = tokenized(examples, self.tokenizer, self.max_length)
        reach = reach_of(self.classifier, self.name, self.max_length)
        tell_cut(rows.cut, len(rows), source, reach if self.windowing is None else replace(reach, most=None))
        if self.windowing is None:
            tell_beyond(int(rows.lengths.max(initial=0)), trained_length(self.classifier), source, self.name)
        metrics = metrics_for(examples.problem, task.metrics if task else None)
        values = evaluate(self.classifier, examples, rows, metrics, bf16=self.bf16, windowing=self.windowing)
        lost = {"num_rows": len(examples), "max_length": self.max_length, "cut": asdict(rows.cut)}
        return {**lost, "metrics": values, **chance.record(values)}
