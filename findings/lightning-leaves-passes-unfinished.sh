#!/usr/bin/env bash
# Lightning 2.6.6 with torch 2.13.0, Python 3.11, CPU.
#
# Behaviour: Lightning counts the batches of an iterable that has a length, and never asks its iterator past the last
# one. So what an iterator does when it is exhausted does not happen: of a generator, the code behind its last yield is
# not reached in any epoch, as it is closed instead. A loader that goes on to its next epoch there stays in the one that
# it is in. Without a length the code is reached, as one batch is fetched ahead. Nothing is told either way.
#
# Seen, three epochs of four batches, from a generator that counts what happens behind its last yield:
#   with a length: 12 batches, 0 passes ended
#   without a length: 12 batches, 3 passes ended
# Seen besides: a batch that is a frozen dataclass ends the run with a ValueError that says so, unless it has a method
# `to`; then it is moved as a whole.
#
# Around it: count a pass as over before its last batch is handed out, and give batches a method `to`.
#
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 lightning==2.6.6

cat >"$folder/see.py" <<'PYTHON'
import dataclasses
import logging
import sys
import warnings

import lightning
import torch

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Unsized:
    def __init__(self, make=lambda number: torch.tensor([float(number)])):
        self.make, self.batches, self.ended = make, 0, 0

    def __iter__(self):
        for number in range(4):
            self.batches += 1
            yield self.make(number)
        self.ended += 1


class Sized(Unsized):
    def __len__(self):
        return 4


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Movable(Frozen):
    def to(self, device, **options):
        return Movable(self.x.to(device))


class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        return (self.weight - getattr(batch, "x", batch)).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(loader):
    lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=sys.argv[1],
    ).fit(Line(), loader)
    return loader.batches, loader.ended


seen = {"with a length": train(Sized()), "without a length": train(Unsized())}
for kind, (batches, ended) in seen.items():
    print(f"{kind}: {batches} batches, {ended} passes ended", file=sys.stderr)
refused = False
try:
    train(Sized(lambda number: Frozen(torch.ones(1))))
except Exception as error:
    refused = isinstance(error, ValueError) and "frozen dataclass" in str(error)
    print(f"a frozen dataclass: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
moved = train(Sized(lambda number: Movable(torch.ones(1))))
expected = {"with a length": (12, 0), "without a length": (12, 3)}
sys.exit(0 if seen == expected and refused and moved == (12, 0) else "changed")
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/out" >/dev/null
