#!/usr/bin/env bash
# Where nobody listens at the hub's address, hf_hub_download asks for one file six times, with waits of 1, 2, 4, 8 and
# 8 s, before it looks into its cache: a connection that is refused, or a host that has no name, is taken for one that
# comes back. HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT, which read as if they bounded the wait, do not: they bound
# one attempt. A model is several files, each waited for anew, also where all of it was fetched before.
#
# Seen with huggingface_hub 2.4.0, Python 3.11. Output:
#     default: LocalEntryNotFoundError, 6 attempts, waits 23 s
#     timeouts of 1 s: LocalEntryNotFoundError, 6 attempts, waits 23 s
#     offline: LocalEntryNotFoundError, 0 attempts, waits 0 s
# Ask once with get_session().head(endpoint, timeout=...), and look things up offline where that fails.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cat >ask.py <<'PYTHON'
import logging
import sys
import time

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

attempts = []


class Counting(logging.Handler):
    def emit(self, record):
        attempts.append("thrown while requesting" in record.getMessage())


logging.getLogger("huggingface_hub.utils._http").addHandler(Counting())
begun = time.monotonic()
try:
    huggingface_hub.hf_hub_download("some/name", "config.json")
    found = "a file"
except LocalEntryNotFoundError:
    found = "LocalEntryNotFoundError"
waited = time.monotonic() - begun
whole = 23 if 23 <= waited < 40 else 0 if waited < 5 else round(waited)
print(f"{sys.argv[1]}: {found}, {sum(attempts)} attempts, waits {whole} s")
PYTHON
# A port that was free a moment ago: nobody listens there.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export HF_HOME="$work/home" HF_ENDPOINT="http://127.0.0.1:$port" HF_HUB_OFFLINE=0
{
    venv/bin/python ask.py default
    HF_HUB_ETAG_TIMEOUT=1 HF_HUB_DOWNLOAD_TIMEOUT=1 venv/bin/python ask.py "timeouts of 1 s"
    HF_HUB_OFFLINE=1 venv/bin/python ask.py offline
} 2>/dev/null | tee seen
cat >expected <<'TEXT'
default: LocalEntryNotFoundError, 6 attempts, waits 23 s
timeouts of 1 s: LocalEntryNotFoundError, 6 attempts, waits 23 s
offline: LocalEntryNotFoundError, 0 attempts, waits 0 s
TEXT
diff seen expected
