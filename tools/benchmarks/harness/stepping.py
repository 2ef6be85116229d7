"""A process that trains a small BERT on labels and takes a block of steps each time it is asked for one.

    python -m benchmarks.harness.stepping SHAPE BATCH_SIZE LENGTH STEPS

For each line on stdin it prints the CPU seconds of the block and its last loss.
"""

import sys
import time
from itertools import repeat

from benchmarks.harness.sides import Side
from benchmarks.harness.synthetic import CLASSES, SHAPES, config

VOCABULARY = 600


def side(shape: str, batch_size: int, length: int) -> Side:
    """A classifier with random weights that learns one batch of random tokens, again and again."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    settings = config(SHAPES[shape], length, VOCABULARY) | {"num_labels": len(CLASSES)}
    model = BertForSequenceClassification(BertConfig(**settings))
    batch = {
        "input_ids": torch.randint(VOCABULARY, (batch_size, length)),
        "labels": torch.randint(len(CLASSES), (batch_size,)),
    }
    return Side(model, lambda given: model(**given).loss, repeat(batch), {"device": "cpu"})


def main(shape: str, batch_size: str, length: str, steps: str) -> None:
    """Take a block of steps for each line on stdin."""
    learner = side(shape, int(batch_size), int(length))
    for _ in sys.stdin:
        begun = time.process_time()
        for _ in range(int(steps)):
            loss = learner.step()
        print(time.process_time() - begun, float(loss), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
