"""Distillation of an embedder as sentence-transformers documents it, for a Python that has that library.

The teacher's embeddings are computed first and become the labels of a data set, which MSELoss trains the student to
give. This runs in another environment than the project's: it imports nothing of it.

    python sentence_recipe.py train TEACHER STUDENT TEXTS OUT    # an epoch; seconds as JSON on stdout
    python sentence_recipe.py step TEACHER STUDENT TEXTS BATCH_SIZE STEPS
    python sentence_recipe.py encode TEACHER TEXTS

The last two do a block of work for each line on stdin and print its CPU seconds.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from transformers import TrainerCallback


class Asked(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Take so many optimizer steps for each line on stdin, and print the CPU seconds of their threads."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.begun = 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Wait for the first line."""
        self._wait()

    def on_step_end(self, _arguments: object, state: Any, *_: object, **__: object) -> None:
        """Tell of a block that is done and wait for the next line."""
        if state.global_step % self.steps == 0:
            print(process_time() - self.begun, flush=True)
            self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)
        self.begun = process_time()


def read_texts(path: str) -> list[str]:
    """Texts of a file with an object a line."""
    return [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]


def trained(teacher: str, student: str, texts: str, out: str, **changes: Any) -> tuple[Any, float]:
    """A trainer with the settings of the recipe ``embedding``, and the seconds that the teacher took.

    ``changes``: of the arguments.
    """
    from datasets import Dataset
    from sentence_transformers import (  # type: ignore[import-not-found]
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MSELoss  # type: ignore[import-not-found]

    begun = perf_counter()
    rows = read_texts(texts)
    labels = SentenceTransformer(teacher, device="cpu").encode(rows, batch_size=64)
    encode_s = perf_counter() - begun
    learner = SentenceTransformer(student, device="cpu")
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 64} | changes
    arguments = SentenceTransformerTrainingArguments(
        output_dir=out,
        learning_rate=1e-4,
        weight_decay=0.01,
        warmup_steps=0.1,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
        **settings,
    )
    data = Dataset.from_dict({"sentence": rows, "label": labels.tolist()})
    return SentenceTransformerTrainer(learner, arguments, train_dataset=data, loss=MSELoss(learner)), encode_s


def train(teacher: str, student: str, texts: str, out: str) -> None:
    """Train for an epoch, save, and print seconds as JSON on stdout."""
    trainer, encode_s = trained(teacher, student, texts, out)
    begun = perf_counter()
    trainer.train()
    train_s = perf_counter() - begun
    trainer.model.save(out)
    print(json.dumps({"encode_s": encode_s, "train_s": train_s}))


def step(teacher: str, student: str, texts: str, batch_size: str, steps: str) -> None:
    """Train as long as it is asked to, a block of steps at a time."""
    sizes = {"num_train_epochs": 1000, "per_device_train_batch_size": int(batch_size)}
    trainer, _ = trained(teacher, student, texts, "unused", **sizes)
    trainer.add_callback(Asked(int(steps)))
    trainer.train()


def encode(teacher: str, texts: str) -> None:
    """Encode all texts for each line on stdin."""
    from sentence_transformers import SentenceTransformer

    model, rows = SentenceTransformer(teacher, device="cpu"), read_texts(texts)
    for _ in sys.stdin:
        begun = process_time()
        model.encode(rows)
        print(process_time() - begun, flush=True)


SIDES: dict[str, Callable[..., None]] = {"train": train, "step": step, "encode": encode}

if __name__ == "__main__":
    SIDES[sys.argv[1]](*sys.argv[2:])
