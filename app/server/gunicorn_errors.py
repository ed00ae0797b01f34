"""The answer to a request that is not HTTP, which no application gets to see.

gunicorn would send an HTML page. This module is imported in its master, so it loads
nothing that gevent patches later.
"""

import json
import socket
import time
from typing import Any

from ..errors import GatewayError

# Seconds and bytes within which a refused client may finish sending.
# As many bytes as deploy/nginx.conf lets through, and some more.
_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 12 * 2**20


def write_error(client: Any, status: int, reason: str, message: str) -> None:
    """Answer *client*, a socket, in OpenAI's shape. Replaces gunicorn's own function.

    What cannot be sent at once is left out: the client may not be reading.
    """
    error = GatewayError(f"{reason}: {message[:200]}", status=status, code="malformed")
    body = json.dumps(error.to_body()).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    timeout = client.gettimeout()
    client.setblocking(False)
    try:
        client.sendall(head.encode("latin-1", "replace") + body)
        client.shutdown(socket.SHUT_WR)
        # To close a socket with unread input sends a reset, which makes the client drop
        # the answer that it has not read yet. So its bytes are read, for a while.
        deadline, remaining = time.monotonic() + _DRAIN_SECONDS, _DRAIN_BYTES
        while remaining > 0 and (seconds := deadline - time.monotonic()) > 0:
            client.settimeout(seconds)
            # An empty read is the client's end: `or remaining` makes it 0.
            remaining -= len(client.recv(65536)) or remaining
    except OSError:
        pass
    finally:
        client.settimeout(timeout)
