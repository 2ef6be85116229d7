#!/usr/bin/env bash
# torch 2.13.0 (CPU wheel, Linux x86-64, which brings GNU's libgomp), Python 3.11.
#
# Behaviour: a thread that waits for another at the end of an operation looks for it 300,000 times, some milliseconds,
# before it sleeps. Where other programs want the same cores, the thread that is waited for cannot run meanwhile: the
# waiting thread is in its way. So two threads beside one busy program a core burn many times the processor time that
# the operations take. libgomp counts its own threads alone, so it does not notice. OMP_WAIT_POLICY=PASSIVE lets waiting
# threads sleep at once, GOMP_SPINCOUNT=400 soon; neither changes a value.
#
# Seen (300 times tanh of 65,536 numbers in two threads, on two cores with a busy program each):
#   as it is: 9.96 s, 1.404 s of processor time
#   OMP_WAIT_POLICY=PASSIVE: 0.14 s, 0.077 s of processor time
#   GOMP_SPINCOUNT=400: 0.19 s, 0.081 s of processor time
#
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat >"$folder/work.py" <<'PYTHON'
import time

import torch

torch.set_num_threads(2)
x = torch.linspace(-1, 1, 65536)
x.tanh()
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(300):
    x = x.tanh()
print(time.perf_counter() - wall, time.process_time() - cpu, x.sum().item())
PYTHON
cat >"$folder/see.py" <<'PYTHON'
import os
import subprocess
import sys

cores = sorted(os.sched_getaffinity(0))[:2]
if len(cores) < 2:
    sys.exit("two cores are needed")
os.sched_setaffinity(0, cores)
plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
ways = {"as it is": {}, "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}, "GOMP_SPINCOUNT=400": {"GOMP_SPINCOUNT": "400"}}
busy = "import os; os.sched_setaffinity(0, [{}])\nwhile True: pass"
neighbours = [subprocess.Popen([sys.executable, "-c", busy.format(core)]) for core in cores]
seen = {}
try:
    for name, way in ways.items():
        done = subprocess.run([sys.executable, sys.argv[1]], env=plain | way, capture_output=True, check=True, text=True)
        wall, cpu, value = map(float, done.stdout.split())
        seen[name] = cpu, value
        print(f"{name}: {wall:.2f} s, {cpu:.3f} s of processor time", file=sys.stderr)
finally:
    for neighbour in neighbours:
        neighbour.kill()
assert len({value for _, value in seen.values()}) == 1, "the values differ"
spins, *others = (cpu for cpu, _ in seen.values())
sys.exit("changed" if spins < 4 * max(others) else 0)
PYTHON
"$folder/venv/bin/python" "$folder/see.py" "$folder/work.py"
