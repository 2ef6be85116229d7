#!/usr/bin/env bash
# A file that is read over sftp ends where the connection does, and nothing says so: paramiko's packetizer raises
# EOFError when it cannot send the next question, and SFTPFile.read, like every BufferedFile, takes that for the end of
# the file. A part of the file is then the whole of it: with read() to the end no exception is raised at all. Only where
# the loss is noticed before there is a question to send is it an OSError, "Socket is closed".
#
# Seen with paramiko 5.1.0, server asyncssh 2.24.1, Python 3.11. Output:
#     file of 1048576 bytes, after 65536 its connection cannot be written to: read() gives b'', no exception
#     the next stat: an error
# Compare the bytes that came with stat().st_size, asked for while the connection was whole.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check paramiko==5.1.0 asyncssh==2.24.1
mkdir served
head -c 1048576 /dev/zero >served/file
cat >serve.py <<'PYTHON'
import asyncio

import asyncssh


class Anyone(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False


async def main():
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        server_factory=Anyone,
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=b"served"),
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


asyncio.run(main())
PYTHON
cat >read.py <<'PYTHON'
import socket
import sys

import paramiko

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
transport = paramiko.Transport(connection)
transport.start_client(timeout=10)
transport.auth_none("reader")
files = paramiko.SFTPClient.from_transport(transport)
size = files.stat("/file").st_size
file = files.open("/file", "rb")
begun = len(file.read(65536))
connection.shutdown(socket.SHUT_WR)
print(f"file of {size} bytes, after {begun} its connection cannot be written to: read() gives {file.read()!r}, no exception")
try:
    files.stat("/file")
except (OSError, EOFError, paramiko.SSHException):
    print("the next stat: an error")
PYTHON
coproc SERVER { exec venv/bin/python serve.py; }
server=$SERVER_PID
trap 'kill "$server"; rm -rf "$work"' EXIT
read -r port <&"${SERVER[0]}"
timeout 60 venv/bin/python read.py "$port" | tee seen
cat >expected <<'TEXT'
file of 1048576 bytes, after 65536 its connection cannot be written to: read() gives b'', no exception
the next stat: an error
TEXT
diff seen expected
