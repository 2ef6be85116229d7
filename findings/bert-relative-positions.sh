#!/usr/bin/env bash
# A BERT with relative positions (position_embedding_type "relative_key") computes something else in transformers 5:
# its distance embeddings are read by no layer, from_pretrained succeeds, and at the default verbosity a table in the
# log is all that tells; output_loading_info lists them as unexpected keys.
#
# Seen with transformers 4.57.3 and 5.23.0, torch 2.13.0, safetensors 0.8.0, Python 3.11. The same checkpoint, written
# by 4.57.3, gives hidden states that differ by more than 0.1 where a plain BERT's agree to 1e-5. Output:
#     absolute: same True, unexpected 0
#     relative_key: same False, unexpected 2
# Checkpoints of that kind are on the hub; whoever runs one as a teacher gets another model's hidden states.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
for version in 4.57.3 5.23.0; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
    "$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version" safetensors==0.8.0
done
cat >write.py <<'PYTHON'
import torch
from transformers import BertConfig, BertModel

for kind in ("absolute", "relative_key"):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        position_embedding_type=kind,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(20)
        states = model(torch.arange(5, 45)[None]).last_hidden_state
    model.save_pretrained(kind)
    torch.save(states, f"{kind}.pt")
PYTHON
cat >read.py <<'PYTHON'
import torch
from transformers import AutoModel

for kind in ("absolute", "relative_key"):
    model, loading = AutoModel.from_pretrained(kind, output_loading_info=True)
    with torch.no_grad():
        states = model.eval()(torch.arange(5, 45)[None]).last_hidden_state
    difference = (states - torch.load(f"{kind}.pt")).abs().max().item()
    assert difference < 1e-5 or difference > 0.1, difference
    print(f"{kind}: same {difference < 1e-5}, unexpected {len(loading['unexpected_keys'])}")
PYTHON
4.57.3/bin/python write.py 2>write.log || { cat write.log; exit 1; }
5.23.0/bin/python read.py 2>read.log | tee seen
diff seen - <<'EXPECTED'
absolute: same True, unexpected 0
relative_key: same False, unexpected 2
EXPECTED
