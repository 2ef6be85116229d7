"""Distillation of an embedder as sentence-transformers documents it, for a Python that has that library.

The teacher's embeddings are computed first and become the labels of a data set, which MSELoss trains the student to
give. This runs in another environment than the project's: it imports nothing of it.
"""

import json
import sys
from pathlib import Path
from time import perf_counter


def main(teacher: str, student: str, texts: str, out: str) -> None:
    """Train for an epoch with the settings of the recipe ``embedding``, save, and print seconds as JSON on stdout."""
    from datasets import Dataset
    from sentence_transformers import (  # type: ignore[import-not-found]
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MSELoss  # type: ignore[import-not-found]

    begun = perf_counter()
    rows = [json.loads(line)["text"] for line in Path(texts).read_text(encoding="utf-8").splitlines()]
    labels = SentenceTransformer(teacher, device="cpu").encode(rows, batch_size=64)
    encoded = perf_counter()
    learner = SentenceTransformer(student, device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=out,
        num_train_epochs=1,
        per_device_train_batch_size=64,
        learning_rate=1e-4,
        weight_decay=0.01,
        warmup_steps=0.1,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    data = Dataset.from_dict({"sentence": rows, "label": labels.tolist()})
    SentenceTransformerTrainer(learner, arguments, train_dataset=data, loss=MSELoss(learner)).train()
    trained = perf_counter()
    learner.save(out)
    print(json.dumps({"encode_s": encoded - begun, "train_s": trained - encoded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
