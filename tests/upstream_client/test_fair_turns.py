"""A read that never waits still yields to other greenlets."""

import subprocess
import sys

# An upstream in a separate process, which never pauses.
SERVER = r"""
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
client, _ = listener.accept()
client.recv(65536)
client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
try:
    while True:
        client.sendall(b"x" * 2**22)
except OSError:
    pass
"""

# Reads from it until another greenlet has had fifty turns.
CLIENT = """
from gevent import monkey; monkey.patch_all()
import hashlib, sys, time, gevent
from app.providers import HTTPRequest
from app.upstream.client import HTTPClient
from app.upstream.timeouts import Deadline, Timeouts

call = HTTPRequest("GET", f"http://127.0.0.1:{sys.argv[1]}/", {})
reply = HTTPClient(Timeouts(9, 9, 9)).send(call, Deadline.after(9))
turns = blocks = 0

def neighbour():
    # A turn counts only if the reader has read on since the one before.
    global turns
    while turns < 50:
        turns, before = turns + 1, blocks
        while blocks == before:
            gevent.sleep(0)

gevent.spawn(neighbour)
until = time.monotonic() + 10
while turns < 50:
    block = reply.read_block()
    reply.begin()
    # Work for each block, as a stream has: the upstream is always faster.
    hashlib.sha256(block * 20).digest()
    blocks += 1
    assert time.monotonic() < until, f"{turns} turns in 10 s"
reply.abort()
"""


def test_endless_fast_upstream_leaves_turns() -> None:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            port = server.stdout.readline().strip()
            reader = [sys.executable, "-c", CLIENT, port]
            subprocess.run(reader, check=True, timeout=30)
        finally:
            server.kill()
