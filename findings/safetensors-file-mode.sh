#!/usr/bin/env bash
# safetensors 0.8 writes its files for their owner alone: mode 0600 whatever the umask, where 0.7 left it to the umask
# (0644 under 022) as open() does.
#
# Seen with safetensors 0.7.0 and 0.8.0, numpy 2.4.6, Linux, Python 3.11. Output:
#     0.7.0 0644
#     0.8.0 0600
# It is so for save_file of numpy and of torch, and with them for save_pretrained of transformers 5.23, which writes
# config.json with 0644 beside it: a model folder on a team's disk, or one that a web server hands out, has a config
# that all may read and weights that only their author may.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
umask 022
for version in 0.7.0 0.8.0; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet --disable-pip-version-check "safetensors==$version" numpy==2.4.6
    "$version/bin/python" -c "
import numpy
from safetensors.numpy import save_file
save_file({'weight': numpy.zeros(3, numpy.float32)}, '$version.safetensors')"
    echo "$version $(stat --format=0%a "$version.safetensors")"
done | tee seen
diff seen - <<'EXPECTED'
0.7.0 0644
0.8.0 0600
EXPECTED
