"""Free ports for servers that have to be told theirs."""

import random
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

# Where the ephemeral ports begin on most systems, if the system does not say.
_USUAL_START = 32768

# Below it are the ports of services that a developer's machine may run.
_LOWEST = 20000


def free_port() -> int:
    """A port of the loopback interface that nothing listens on.

    Not an ephemeral one, as binding to port 0 would give: the system hands those to
    outgoing connections, and with many of them open, one is likely to have the port
    before the server is up, or while a server is restarted.
    """
    for port in random.sample(_not_ephemeral(), 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("100 ports were tried, and all are in use")


def _not_ephemeral() -> range:
    try:
        start = int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        start = _USUAL_START
    # A system may be set up so that nearly all its ports are ephemeral.
    return range(_LOWEST, start) if start > _LOWEST + 100 else range(_LOWEST, 2**16)
