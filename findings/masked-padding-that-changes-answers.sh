#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# Behaviour: in eval mode, with an attention mask over the padding, a classifier's logits for a row are not in every
# family what they are without padding. ConvBERT's convolutions and YOSO's hashes let the padding through. Rows that are
# batched by length are then answered otherwise than rows that are batched as they come. BERT's are the same.
#
# Seen (random weights, a row of 4 tokens beside one of 12; differences relative to the largest logit):
#   Bert 0.000, ConvBert 0.024, Yoso 0.109
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

transformers.logging.set_verbosity_error()
SIZE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
FAMILIES = {
    "Bert": {},
    "ConvBert": {"embedding_size": 32, "conv_kernel_size": 3},
    "Yoso": {"max_position_embeddings": 64},
}
apart = {}
for family, own in FAMILIES.items():
    config = getattr(transformers, f"{family}Config")(**{**SIZE, **own})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    row, other = torch.randint(5, 100, (1, 4)), torch.randint(5, 100, (1, 12))
    ids = torch.cat([torch.cat([row, torch.zeros(1, 8, dtype=torch.long)], 1), other])
    mask = (torch.arange(12) < torch.tensor([[4], [12]])).long()
    with torch.no_grad():
        alone = model(input_ids=row, attention_mask=mask[:1, :4]).logits[0]
        padded = model(input_ids=ids, attention_mask=mask).logits[0]
    apart[family] = float((padded - alone).abs().max() / alone.abs().max())
    print(f"{family}: {apart[family]:.3f}")
sys.exit(0 if apart.pop("Bert") < 1e-4 and min(apart.values()) > 0.005 else 1)
PYTHON
