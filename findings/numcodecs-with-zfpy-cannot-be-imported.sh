#!/usr/bin/env bash
# numcodecs 0.16.6 (and 0.15.0 to 0.16.5 have the same lines), zfpy 1.0.1.post0, Python 3.11, Linux x86_64.
#
# Behaviour: `pip install 'numcodecs[zfpy]'` gives a numcodecs of which nothing can be imported, not Blosc either. Its
# optional codecs are meant not to matter: the package imports each under suppress(ImportError). But numcodecs/zfpy.py
# turns the version of zfpy into integers, int("post0") is a ValueError, and that is not suppressed. 1.0.1.post0 is the
# newest zfpy, so the extra of numcodecs itself leads there; with zfpy==1.0.1 it can be imported.
#
# Seen: ValueError: invalid literal for int() with base 10: 'post0'
#
# Around it: a None in sys.modules["numcodecs.zfpy"] before `import numcodecs` is an ImportError, which is suppressed.
# The same must be done after a failed import with care: it leaves numcodecs.blosc in sys.modules without numcodecs, so
# that `import_module("numcodecs.blosc")` succeeds at the second attempt while numcodecs itself is not there.
#
# Exits with 0 while it is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numcodecs==0.16.6 zfpy==1.0.1.post0 'numpy<3'

cat >"$folder/see.py" <<'PYTHON'
import importlib
import sys

try:
    import numcodecs
except ValueError as error:
    print(f"ValueError: {error}")
    assert "'post0'" in str(error), error
else:
    sys.exit("changed: numcodecs can be imported beside zfpy")
assert importlib.import_module("numcodecs.blosc") and "numcodecs" not in sys.modules, "left over without its package"
sys.modules["numcodecs.zfpy"] = None
import numcodecs

data = bytes(range(256)) * 64
assert numcodecs.Blosc().decode(numcodecs.Blosc().encode(data)) == data
print("as described")
PYTHON
"$folder/venv/bin/python" "$folder/see.py"
