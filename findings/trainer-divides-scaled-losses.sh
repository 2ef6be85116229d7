#!/usr/bin/env bash
# transformers 5.18.0 against 5.19.0, with accelerate 1.10.0 and torch 2.13.0, Python 3.11, CPU.
#
# Behaviour: with gradient_accumulation_steps=k a subclass of Trainer whose compute_loss returns a loss that is scaled
# for the whole step already says so by `loss_is_scaled_for_ga = True`. Releases before 5.19 do not know the attribute
# and, as any object takes any attribute, do not complain: they divide once more, and the step has 1/k of its gradient.
# Nothing fails; Adam hides most of it, but not clipping, nor weight decay.
#
# Seen: one SGD step of rate 1 from weight 0 on rows 1, 2, 3, 4 in four passes, the loss a sum:
#   transformers 5.18.0: weight -2.5
#   transformers 5.19.0: weight -10.0
#
# Around it: override training_step, a public method, and call accelerator.backward with the loss as it is.
#
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0

cat >"$folder/see.py" <<'PYTHON'
import sys

import torch
import transformers
from torch import nn


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, labels):
        return self.weight * (x * labels).sum()


class Sums(transformers.Trainer):
    loss_is_scaled_for_ga = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs)


arguments = transformers.TrainingArguments(
    output_dir=sys.argv[1], per_device_train_batch_size=1, gradient_accumulation_steps=4, max_steps=1, optim="sgd",
    learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0, use_cpu=True, save_strategy="no",
    report_to="none", disable_tqdm=True,
)
model = Scale()
rows = [{"x": torch.tensor(float(number)), "labels": torch.tensor(1.0)} for number in range(1, 5)]
Sums(model, arguments, train_dataset=rows).train()
print(f"transformers {transformers.__version__}: weight {model.weight.item()}", file=sys.stderr)
sys.exit(0 if model.weight.item() == float(sys.argv[2]) else "changed")
PYTHON
for expected in 5.18.0=-2.5 5.19.0=-10; do
    "${pip[@]}" "transformers==${expected%=*}" accelerate==1.10.0
    "$folder/venv/bin/python" "$folder/see.py" "$folder/out" "${expected#*=}" >/dev/null
done
