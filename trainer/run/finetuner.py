"""The Trainer of plain fine-tuning: labelled rows, in batches padded to their longest, and their metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PrinterCallback, TrainerControl, TrainingArguments

from hskcache.classes import NO_CLASS, of_words
from hskcache.encoder import takes_token_types
from hskcache.evaluation import evaluate
from hskcache.inference import pad_batch
from hskcache.metrics import Metric
from hskcache.text import Examples, TokenizedRows
from hskcache.timeline import span
from trainer.losses.logits import label_loss
from trainer.run import processes
from trainer.run.midway import MidwayTrainer, Order


@dataclass(frozen=True)
class Labelled:
    """Labelled rows beside their tokens."""

    examples: Examples
    rows: TokenizedRows


class RowsDataset(Dataset[dict[str, Any]]):
    """Rows by number, with their ids for the length-grouped sampler."""

    def __init__(self, data: Labelled) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        offsets = self.data.rows.offsets
        return {"input_ids": self.data.rows.input_ids[offsets[index] : offsets[index + 1]], "row": index}


class Finetuner(MidwayTrainer):
    """The Trainer with batches padded to their longest row and our own evaluation."""

    control: TrainerControl

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        train: Labelled,
        dev: Labelled,
        metrics: Mapping[str, Metric],
    ) -> None:
        self.train_data, self.dev_data, self.metrics = train, dev, metrics
        self.with_token_types = takes_token_types(model)
        self.scores: dict[int, Mapping[str, float]] = {}
        super().__init__(model, args, self.collate, train_dataset=RowsDataset(train), eval_dataset=RowsDataset(dev))
        self.remove_callback(PrinterCallback)  # it prints to stdout

    def collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad rows into ``input_ids``, ``attention_mask`` [B, L] and ``labels`` [B] or, a value for each class, [B, C].

        Of rows of words ``labels`` are [B, L]: tags at first pieces, NO_CLASS elsewhere.
        """
        indices = np.array([item["row"] for item in items])
        batch = pad_batch(self.train_data.rows, indices, self.model.config.pad_token_id or 0)
        if not self.with_token_types:
            batch.pop("token_type_ids", None)
        labels, words = self.train_data.examples.labels, self.train_data.rows.words
        assert labels is not None
        if words is None:
            return batch | {"labels": torch.from_numpy(labels[indices])}
        tags = torch.full(batch["input_ids"].shape, NO_CLASS)
        places = torch.from_numpy(words.padded(indices, tags.shape[1]))
        tags.view(-1)[places] = torch.from_numpy(of_words(labels)[words.among_words()[words.of(indices)]])
        return batch | {"labels": tags}

    def _get_train_sampler(self, *args: Any) -> Sampler[int]:
        self.order = Order(super()._get_train_sampler(*args))
        return self.order

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        """The mean loss of a batch's rows, or tagged words, by the number of batches in the step: the mean of all."""
        # The first of what a model gives back, whether its config asks for a tuple or for names; an epoch's last step
        # may have fewer batches than were asked for.
        loss: torch.Tensor
        problem = self.train_data.examples.problem
        if inputs["labels"].dim() > 1 and problem != "multilabel":
            labels = inputs.pop("labels")
            logits = model(**inputs)[0]
            if problem == "tagging":
                # Of words without a tag alone the model's own mean would be 0 of 0.
                tags = labels.flatten()
                loss = label_loss(logits.flatten(0, 1), tags, max(1, int((tags != NO_CLASS).sum())))
            else:
                # transformers knows no labels that are distributions.
                loss = label_loss(logits, labels, len(labels))
        else:
            loss = model(**inputs)[0]
        loss = loss / self.current_gradient_accumulation_steps
        return loss

    @span("evaluate")
    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """The metrics on the dev rows, whatever data set is named."""
        values = self.scores[self.state.global_step] = processes.on_first(self.score)
        logs = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(logs))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs

    def score(self) -> Mapping[str, float]:
        """The metrics on the dev rows of the model as it is; the evaluations of this process stand in ``scores``."""
        return evaluate(self.model, self.dev_data.examples, self.dev_data.rows, self.metrics, bf16=self.args.bf16)
