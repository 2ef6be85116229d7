#!/usr/bin/env bash
# Fused attention (sdpa) needs no L by L numbers, until one token of a batch is padding: then transformers makes a mask
# [B, 1, L, L] of a byte a place, and torch on a CPU turns it into one of four bytes a place, 5 B L^2 in all.
#
# Seen with torch 2.13.0, transformers 5.23.0, Python 3.11. A BERT of width 32 over two rows of 4,096 tokens; most bytes
# of tensors at once, of which 5 * 2 * 4096^2 are 168 MB. Output:
#     no padding: less than 20 MB
#     one padded token: more than 160 MB
# Whoever fills batches of long rows by their tokens alone runs out of memory in the batch that is padded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 KINETO_LOG_LEVEL=99
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6
cat >measure.py <<'PYTHON'
import json

import torch
from transformers import BertConfig, BertModel

config = BertConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=4096, attn_implementation="sdpa",
)
model = BertModel(config).eval()
ids = torch.ones(2, 4096, dtype=torch.long)
for name, padded in (("no padding", 0), ("one padded token", 1)):
    mask = torch.ones_like(ids)
    mask[1, 4096 - padded :] = 0
    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as seen:
        model(input_ids=ids, attention_mask=mask)
    seen.export_chrome_trace("trace.json")
    with open("trace.json") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("name") == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        most = max(most, live)
    assert most < 20e6 or most > 160e6, most
    print(f"{name}: {'less than 20 MB' if most < 20e6 else 'more than 160 MB'}")
PYTHON
venv/bin/python measure.py 2>log | tee seen || { cat log; exit 1; }
diff seen - <<'EXPECTED'
no padding: less than 20 MB
one padded token: more than 160 MB
EXPECTED
