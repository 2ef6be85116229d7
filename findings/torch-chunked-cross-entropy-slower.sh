#!/usr/bin/env bash
# torch.nn.functional.linear_cross_entropy with LinearCrossEntropyOptions(), all at their defaults, takes three to four
# times as long on a CPU as all logits at once, in the very case that it is meant for. Its documentation says "Chunking
# is a win when num_batches >= in_features and num_classes > in_features".
#
# The chunk that it chooses has next_pow2(ceil(num_batches / ceil(num_classes / in_features))) / 2 rows: 4 here, and 8 of
# 1,024 rows of 576 values over 49,152 classes (3.7 times as long). Each passes over the whole weight and its gradient.
# With 256 rows given, chunks are quicker than all logits at once.
#
# Seen with torch 2.13.0 (CPU), Python 3.11, AMD EPYC with AVX2, one thread. Processor's time, output:
#     all at once: 1.0
#     options(): 3.3
#     options(batch_chunk_size=256): 0.7
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=1
python3 -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
environment/bin/python - <<'PYTHON'
import sys
import time
from statistics import median

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn import functional as F

torch.manual_seed(0)
states, weight = torch.randn(512, 192, requires_grad=True), torch.randn(16384, 192, requires_grad=True)
targets = torch.randint(16384, (512,))
ways = {
    "all at once": None,
    "options()": LinearCrossEntropyOptions(),
    "options(batch_chunk_size=256)": LinearCrossEntropyOptions(batch_chunk_size=256),
}
seconds = {name: [] for name in ways}
for _ in range(6):
    for name, options in ways.items():
        begun = time.process_time()
        F.linear_cross_entropy(states, weight, targets, options=options).backward()
        seconds[name].append(time.process_time() - begun)
ratios = {name: median(of[1:]) / median(seconds["all at once"][1:]) for name, of in seconds.items()}
for name, ratio in ratios.items():
    print(f"{name}: {ratio:.1f}")
sys.exit(ratios["options()"] < 1.5)
PYTHON
