#!/usr/bin/env bash
# zarr 3.1.0 with numcodecs 0.15.1 against 0.16.1, numpy 1.26.4, Python 3.11.
#
# Behaviour: the bytes that one version of zarr writes through its Blosc codec depend on the version of numcodecs beside it.
# The array says typesize 4 in its zarr.json both times; with numcodecs 0.15 every chunk is compressed as single bytes all
# the same, so that shuffling does nothing and chunks are larger. Nothing is said, and both read back right.
#
# Seen: float32 numbers 0, 1, 2, ... (65,536 of them, zstd, shuffle), byte 3 of the chunk (Blosc's typesize) and its size:
#   numcodecs 0.15.1: zarr.json says 4, the chunk 1, 179,493 bytes
#   numcodecs 0.16.1: zarr.json says 4, the chunk 4, 2,727 bytes
#
# Around it: ask for numcodecs 0.16.1 or newer beside zarr 3, and do not compare digests of chunks that others wrote.
#
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/see.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec

root = Path(sys.argv[1])
array = zarr.create_array(
    root, shape=(65536,), chunks=(65536,), dtype="float32", compressors=[BloscCodec(cname="zstd", shuffle="shuffle")]
)
array[:] = np.arange(65536, dtype=np.float32)
assert (zarr.open_array(root)[:] == np.arange(65536)).all()
said = json.loads((root / "zarr.json").read_text())["codecs"][-1]["configuration"]["typesize"]
chunk = (root / "c" / "0").read_bytes()
print(f"numcodecs {numcodecs.__version__}: zarr.json says {said}, the chunk {chunk[3]}, {len(chunk):,} bytes", file=sys.stderr)
print(chunk[3], len(chunk))
PYTHON

for version in 0.15.1 0.16.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install --quiet --disable-pip-version-check zarr==3.1.0 "numcodecs[crc32c]==$version" \
        numpy==1.26.4
    "$folder/$version/bin/python" "$folder/see.py" "$folder/$version.zarr" >"$folder/$version.txt"
done
read -r old old_bytes <"$folder/0.15.1.txt"
read -r new new_bytes <"$folder/0.16.1.txt"
[ "$old" = 1 ] && [ "$new" = 4 ] && [ "$old_bytes" -gt "$new_bytes" ]
