"""The answer to a request that is not HTTP, which no application gets to see.

gunicorn would send an HTML page. This module is imported in its master, so it loads
nothing that gevent patches later.
"""

import json
import socket
import time
from typing import Any

from ..errors import GatewayError

# Seconds, and bytes, in which a refused client may stop sending. As many as pass nginx.
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
        # To close upon bytes that are still on their way would be a reset, which
        # overtakes the answer: take them, for a while.
        deadline, remaining = time.monotonic() + _DRAIN_SECONDS, _DRAIN_BYTES
        while remaining > 0 and (seconds := deadline - time.monotonic()) > 0:
            client.settimeout(seconds)
            remaining -= len(client.recv(65536)) or remaining
    except OSError:
        pass
    finally:
        client.settimeout(timeout)
