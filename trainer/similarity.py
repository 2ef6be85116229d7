"""Embeddings of texts by a sentence-transformers folder, and how far their cosines follow gold scores of pairs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache import runtime
from hskcache.cut import tell_cut
from hskcache.encoder import takes_token_types
from hskcache.errors import DataError, MismatchError
from hskcache.evaluation import Scores, check_labels, metrics_for
from hskcache.inference import check_fit, length_batches, pad_batch
from hskcache.model.load import ENCODER, ModelDemands, load_model
from hskcache.model.sentence import SentenceModules, encoder_of, load_dense, sentence_modules
from hskcache.pooling import finished, pooled
from hskcache.text import Examples, TokenizedRows, load_tokenizer, tokenized
from hskcache.text.layout import Layout
from hskcache.text.singles import Prompted, singles
from hskcache.text.tokenize import reach_of

_TOKEN_BUDGET = 8192


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
        prompted = replace(texts, texts=Prompted(prompt, texts.texts)) if prompt else texts
        rows = tokenized(prompted, self.tokenizer, self.max_length)
        tell_cut(rows.cut, len(rows), texts.source, reach_of(self.model, self.name, self.max_length))
        check_fit(self.model, rows)
        return self._run(rows)

    def _run(self, rows: TokenizedRows) -> NDArray[np.float32]:
        device, pad = self.model.device, self.model.config.pad_token_id or 0
        vectors_NW: torch.Tensor | None = None
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)
        with torch.inference_mode(), autocast:
            for indices in length_batches(rows.lengths, _TOKEN_BUDGET):
                batch = pad_batch(rows, indices, pad)
                if not takes_token_types(self.model):
                    batch.pop("token_type_ids", None)
                inputs = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
                output = self.model(**inputs, output_hidden_states=True)
                pooled_BD = pooled(output.hidden_states[-1], inputs["attention_mask"].bool(), self.modules.pooling)
                made_BW = finished(pooled_BD, self.head, None, self.modules.normalize).float()
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


def read_scored_pairs(source: str, layout: Layout) -> Examples:
    """Pairs of texts with a gold score each. Raises DataError if rows are no pairs, or have classes or no scores."""
    examples = layout.of_labelled_rows().read(source, None, "regression")
    check_labels(examples)
    if examples.pairs is None or examples.problem != "regression":
        found = "single texts" if examples.pairs is None else f"the classes {', '.join(examples.label_names)}"
        raise DataError(
            f"{source} has {found}, and cosines are compared with scores of pairs; give --text, --text-pair and "
            "--label of a number, or --task stsb"
        )
    return examples


def cosines(vectors_NW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each vector of even number with the one after it, [N / 2]; 0 where one has no length."""
    first, second = vectors_NW[::2].astype(np.float64), vectors_NW[1::2].astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    similar: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return similar


def scored_pairs(model: SentenceModel, examples: Examples, layout: Layout) -> dict[str, Any]:
    """Correlations of the cosines of pairs with their gold scores, first Spearman's; no label is learned from.

    As sentence-transformers evaluates STS. Returns the metrics, their standard errors, and what was run.
    """
    labels, task = check_labels(examples), layout.task
    similar = cosines(model.embed(singles(examples)))
    metrics = metrics_for("regression", task.metrics if task else None, "spearman")
    scores = Scores({name: metric(similar, labels) for name, metric in metrics.items()})
    scores.compared, scores.metrics = (similar, labels), metrics
    return {"metrics": dict(scores), **scores.uncertainty(), "max_length": model.max_length}
