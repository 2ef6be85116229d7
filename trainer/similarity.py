"""Embeddings of texts by a sentence-transformers folder, and how far their cosines follow gold scores of pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache import runtime
from hskcache.cut import tell_cut
from hskcache.encoder import takes_token_types
from hskcache.errors import DataError, MismatchError
from hskcache.evaluation import Scores, check_labels
from hskcache.inference import check_fit, evaluating, length_batches, pad_batch, row_costs
from hskcache.metrics import Metric, metrics_for
from hskcache.model.load import ENCODER, ModelDemands, load_model
from hskcache.model.sentence import SentenceModules, encoder_of, load_dense, sentence_modules
from hskcache.pooling import finished, pooled
from hskcache.remarks import remark
from hskcache.spec import PoolingName
from hskcache.text import Examples, Task, TokenizedRows, load_tokenizer, tokenized
from hskcache.text.layout import Layout
from hskcache.text.memory import Source
from hskcache.text.singles import singles, with_prompt
from hskcache.text.tokenize import reach_of

_TOKEN_BUDGET = 8192


class SentenceWay(NamedTuple):
    """Way from the last hidden states of a row to its embedding.

    Attributes:
        pooling: of its states.
        head: layers after the pooling; None: none.
        normalize: whether a vector is divided by its length in the end.
    """

    pooling: PoolingName
    head: nn.Module | None
    normalize: bool

    def made(self, states_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        """Embeddings [B, W] float32."""
        return finished(pooled(states_BLD, valid_BL, self.pooling), self.head, None, self.normalize).float()


@dataclass(frozen=True, eq=False)
class SentenceModel:
    """An encoder with the modules of its folder, in eval mode on its device.

    Attributes:
        name: as the user gave it.
        head: layers after the pooling; None: none.
        max_length: tokens of a row at most.
        bf16: whether to compute under bfloat16 autocast.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    modules: SentenceModules
    head: nn.Module | None
    max_length: int
    bf16: bool = False

    def embed(self, texts: Examples) -> NDArray[np.float32]:
        """Embeddings [N, W] of single texts, the prompt before each that the folder takes by itself.

        Raises MismatchError if a row holds more tokens than the model reads.
        """
        modules = self.modules
        prompt = modules.prompts.get(modules.default_prompt or "", "")
        prompted = replace(texts, texts=with_prompt(prompt, texts.texts))
        rows = tokenized(prompted, self.tokenizer, self.max_length)
        tell_cut(rows.cut, len(rows), texts.source, reach_of(self.model, self.name, self.max_length))
        check_fit(self.model, rows)
        way = SentenceWay(modules.pooling, self.head, modules.normalize)
        return embeddings_of(self.model, rows, way, self.bf16)


def embeddings_of(
    model: PreTrainedModel, rows: TokenizedRows, way: SentenceWay, bf16: bool = False
) -> NDArray[np.float32]:
    """Embeddings [N, W] of rows, computed where the model is."""
    device, pad = model.device, model.config.pad_token_id or 0
    vectors_NW: Tensor | None = None
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
    with evaluating(model), torch.inference_mode(), autocast:
        for indices in length_batches(row_costs(rows.lengths), _TOKEN_BUDGET):
            batch = pad_batch(rows, indices, pad)
            if not takes_token_types(model):
                batch.pop("token_type_ids", None)
            inputs = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
            states_BLD = model(**inputs, output_hidden_states=True).hidden_states[-1]
            made_BW = way.made(states_BLD, inputs["attention_mask"].bool())
            if vectors_NW is None:
                vectors_NW = torch.empty(len(rows), made_BW.shape[1], device=device)
            # One copy to the host at the end: a copy per batch would stall the device each time.
            vectors_NW[torch.from_numpy(indices).to(device)] = made_BW
    assert vectors_NW is not None
    made: NDArray[np.float32] = vectors_NW.cpu().numpy()
    return made


def load_sentence_model(name: str, device: str, max_length: int | None = None, bf16: bool = False) -> SentenceModel:
    """A sentence-transformers folder, or such a model of the hub. Raises TeacherError if it is none, or not whole.

    ``max_length``: tokens of a row at most; None: as the folder says, else 128.
    """
    modules = sentence_modules(name)
    if modules is None:
        raise MismatchError(f"{name} has no modules.json; give a folder of sentence-transformers")
    place, folder = runtime.resolve_device(device), encoder_of(name, modules)
    with runtime.quiet():
        tokenizer = load_tokenizer(folder)
    model = load_model(folder, ModelDemands(ENCODER, "an embedder")).model.to(place)
    head = load_dense(name, modules)
    return SentenceModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        modules=modules,
        head=None if head is None else head.to(place),
        max_length=max_length or modules.max_length or 128,
        bf16=bf16,
    )


def read_scored_pairs(source: Source, layout: Layout) -> Examples:
    """Pairs of texts with a gold score each, or one of two classes, of which the second is that of texts alike.

    Raises DataError if rows are no pairs, or have no labels or more classes.
    """
    # Without classes that are named, numbers are scores, though every one be whole.
    problem = None if layout.classes else "regression"
    examples = layout.of_labelled_rows().read(source, None, problem)
    labels = check_labels(examples)
    names = examples.label_names
    if examples.pairs is None or (examples.problem == "classification" and len(names) != 2):
        found = "single texts" if examples.pairs is None else f"the classes {', '.join(names)}"
        raise DataError(
            f"{source} has {found}, and cosines are compared with scores of pairs or with two classes; give --text, "
            "--text-pair and --label of a number, or --task stsb or qqp"
        )
    if names and np.ptp(labels) == 0:
        raise DataError(f"every pair of {source} is of the class {names[labels[0]]}; give pairs of both classes")
    if names and names != ("0", "1"):
        remark(f"{source}: {names[1]} is taken for alike, and {names[0]} for not")
    return examples


def pair_metrics(examples: Examples, task: Task | None, chosen: str | None = None) -> dict[str, Metric]:
    """Metrics of cosines against the labels of pairs: correlations with scores, areas under curves of two classes.

    ``task``: whose metrics are taken where it has scores. ``chosen``: one that comes first. Raises SpecError for one
    that is none of these.
    """
    labels = check_labels(examples)
    if np.isin(labels, (0, 1)).all():
        return metrics_for("duplicates", None, chosen)
    return metrics_for("similarity", task.metrics if task else None, chosen or "spearman")


def cosines(vectors_NW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each vector of even number with the one after it, [N / 2]; 0 where one has no length."""
    first, second = vectors_NW[::2].astype(np.float64), vectors_NW[1::2].astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    similar: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return similar


def scores_of_pairs(vectors_NW: NDArray[np.float32], examples: Examples, metrics: Mapping[str, Metric]) -> Scores:
    """Metrics of the cosines of pairs.

    ``vectors_NW``: of the first text of a pair, then of its second, pair after pair.
    """
    labels, similar = check_labels(examples), cosines(vectors_NW)
    scores = Scores({name: metric(similar, labels) for name, metric in metrics.items()})
    scores.compared, scores.metrics = (similar, labels), metrics
    return scores


def scored_pairs(model: SentenceModel, examples: Examples, layout: Layout) -> dict[str, Any]:
    """Metrics of the cosines of pairs against their labels, none of which is learned from.

    As sentence-transformers evaluates STS. Returns the metrics, their standard errors, and what was run.
    """
    scores = scores_of_pairs(model.embed(singles(examples)), examples, pair_metrics(examples, layout.task))
    return {"metrics": dict(scores), **scores.uncertainty(), "max_length": model.max_length}


@dataclass(frozen=True, eq=False)
class PairScore:
    """Score of a student by the cosines of pairs, as it stands in the middle of its training.

    Attributes:
        examples: pairs with their labels.
        rows: the first text of a pair, then its second, pair after pair.
        metrics: that are taken.
        way: of its states to its vectors; the head is what leads them to another width.
        bf16: whether to compute under bfloat16 autocast.
    """

    examples: Examples
    rows: TokenizedRows
    metrics: Mapping[str, Metric]
    way: SentenceWay
    bf16: bool = False

    def __call__(self, student: PreTrainedModel) -> Scores:
        """The metrics of a student."""
        return scores_of_pairs(embeddings_of(student, self.rows, self.way, self.bf16), self.examples, self.metrics)

    def through(self, head: nn.Module | None) -> "PairScore":
        """The same of a student whose pooled vectors a layer leads on."""
        return replace(self, way=self.way._replace(head=head))
