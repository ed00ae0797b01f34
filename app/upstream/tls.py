"""TLS to upstream: trust that is read once, and sessions that are taken up again.

urllib3 would read all certificates anew for each connection, 14 ms of a processor in
which a gevent worker does nothing else, and greet each server as if it were new.
"""

import os
import ssl
from collections import OrderedDict
from typing import Any

from urllib3.util.ssl_ import create_urllib3_context

# Servers whose last session is remembered.
_MOST = 1024


def context(authorities: str) -> ssl.SSLContext:
    """What trusts the *authorities* in a file, or in a folder. Raises OSError."""
    made = create_urllib3_context()
    place = "capath" if os.path.isdir(authorities) else "cafile"
    made.load_verify_locations(**{place: authorities})
    sessions: Any = Sessions(made)
    made.wrap_socket = sessions  # type: ignore[method-assign]
    return made


class Sessions:
    """Wraps sockets as *context* does, with the last session that their server gave.

    Whoever is offered one that it does not know, begins a new one. A session is that
    of a certificate which was trusted, for the name that is asked for.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._wrap: Any = context.wrap_socket
        self._last: OrderedDict[str, ssl.SSLSession] = OrderedDict()

    def __call__(
        self, sock: Any, *, server_hostname: str | None = None, **named: Any
    ) -> ssl.SSLSocket:
        session = self._last.get(server_hostname or "")
        wrapped: ssl.SSLSocket = self._wrap(
            sock, server_hostname=server_hostname, session=session, **named
        )
        return wrapped

    def note(self, wire: Any) -> None:
        """Remember the session of *wire*. A server gives it with its first answer."""
        name = wire.server_hostname or ""
        if wire.session is not None:
            self._last[name] = wire.session
            self._last.move_to_end(name)
            if len(self._last) > _MOST:
                self._last.popitem(last=False)


def note(wire: Any) -> None:
    """Remember the session of *wire*, if it is one of ours."""
    sessions = wire.context.wrap_socket
    if isinstance(sessions, Sessions):
        sessions.note(wire)
