#!/usr/bin/env bash
# obstore 0.12 in a child that was forked from a process which has used it gets no answer, for ever; and its parent, which
# shares with it the queue of events that its threads wait for, may crash by a segmentation fault or wait for ever, too.
#
# Seen with obstore 0.12.1, Linux, Python 3.11. Output:
#     parent: hello
#     child: no answer in 10 s
# A new store in the child does not help: the runtime below all stores is one a process, and the child has a copy of it
# without its threads. Parents crashed where the child spoke to S3; here only the child's silence is shown, which is so
# each time.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $server; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv new
new/bin/pip install --quiet --disable-pip-version-check obstore==0.12.1
printf hello >file
python3 -m http.server 18321 --bind 127.0.0.1 >log 2>&1 &
server=$!
sleep 1
cat >fork.py <<'PYTHON'
import os
import signal
import time

import obstore
from obstore.store import HTTPStore


def fetch():
    store = HTTPStore("http://127.0.0.1:18321", client_options={"allow_http": True})
    return bytes(obstore.get(store, "file").bytes()).decode()


print("parent:", fetch(), flush=True)
child = os.fork()
if child == 0:
    print("child:", fetch(), flush=True)
    os._exit(0)
time.sleep(10)
if os.waitpid(child, os.WNOHANG) == (0, 0):
    print("child: no answer in 10 s", flush=True)
os.kill(child, signal.SIGKILL)
os._exit(0)
PYTHON
new/bin/python fork.py | tee seen
diff seen - <<'EXPECTED'
parent: hello
child: no answer in 10 s
EXPECTED
