"""What is answered to requests that are no HTTP, before any application sees them.

gunicorn would send an HTML page. This module is imported in its master, so it loads
nothing that gevent patches later.
"""

import json
from typing import Any

from .errors import GatewayError


def write_error(client: Any, status: int, reason: str, message: str) -> None:
    """Answer *client*, a socket, in OpenAI's shape. Takes the place of gunicorn's own.

    What cannot be sent at once is left out: the caller may not be reading.
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
        _read_the_rest(client)
    except OSError:
        pass
    finally:
        client.settimeout(timeout)


def _read_the_rest(client: Any) -> None:
    """Take what has arrived and was not read: to close upon it would be a reset, which
    overtakes the answer."""
    for _ in range(16):
        if not client.recv(65536):
            return
