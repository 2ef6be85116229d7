#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# Behaviour: BigBird with the block-sparse attention that it is configured with computes full attention for a batch of
# rows too short for its blocks, and then for every batch after it: the first short batch switches the model over for
# good, while config.attention_type goes on saying block_sparse. The same long row is answered otherwise after a short
# one than before it, so what such a model says of a data set depends on the order of its batches. There is a warning
# at the switch, which loggers set to errors alone do not show.
#
# Seen (random weights, blocks of 16, a row of 512 tokens, in eval mode):
#   before a short row and after it: the logits of the long row are 0.044 apart; before it, twice: 0.000
#
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import BigBirdConfig, BigBirdForSequenceClassification

transformers.logging.set_verbosity_error()
torch.manual_seed(0)
config = BigBirdConfig(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=1024,
    block_size=16,
    num_random_blocks=2,
    initializer_range=0.3,
)
model = BigBirdForSequenceClassification(config).eval()
long, short = torch.randint(5, 100, (1, 512)), torch.randint(5, 100, (1, 20))
with torch.no_grad():
    first, again = model(long).logits, model(long).logits
    model(short)
    after = model(long).logits
twice, moved = float((again - first).abs().max()), float((after - first).abs().max())
print(f"the same long row twice: {twice:.3f} apart; before and after a short one: {moved:.3f} apart")
print(f"config.attention_type: {model.config.attention_type}")
ok = twice < 1e-5 and moved > 0.01 and model.config.attention_type == "block_sparse"
sys.exit(0 if ok else 1)
PYTHON
