"""TLS to upstream: certificate authorities read once, and sessions resumed.

urllib3 would read all certificates anew for each connection, 14 ms of a processor in
which a gevent worker does nothing else, and do a full handshake with each.

Source: https://docs.python.org/3/library/ssl.html#ssl-session
"""

import os
import ssl
from collections import OrderedDict
from typing import Any

from urllib3.util.ssl_ import create_urllib3_context

# Servers whose last session is kept.
_MAX_SESSIONS = 1024


def client_context(authorities: str) -> ssl.SSLContext:
    """A context that trusts the *authorities* in a file or folder. Raises OSError."""
    context = create_urllib3_context()
    source = "capath" if os.path.isdir(authorities) else "cafile"
    context.load_verify_locations(**{source: authorities})
    # urllib3 has no parameter for a session, so its call of wrap_socket is intercepted.
    # The cache belongs to this context: Python refuses sessions of another one.
    sessions: Any = SessionCache(context)
    context.wrap_socket = sessions  # type: ignore[method-assign]
    return context


class SessionCache:
    """Takes the place of a context's wrap_socket, and offers each server its session.

    A server that does not know the session begins a new one. A session belongs to a
    certificate that was verified, for the name it is looked up by.
    """

    # In a resumed handshake the server sends no certificate. So a session must not be
    # used for another name than that for which it was verified; ports and addresses do
    # not matter.

    def __init__(self, context: ssl.SSLContext) -> None:
        self._wrap: Any = context.wrap_socket
        self._sessions: OrderedDict[str, ssl.SSLSession] = OrderedDict()

    def __call__(
        self, sock: Any, *, server_hostname: str | None = None, **options: Any
    ) -> ssl.SSLSocket:
        session = self._sessions.get(server_hostname or "")
        wrapped: ssl.SSLSocket = self._wrap(
            sock, server_hostname=server_hostname, session=session, **options
        )
        return wrapped

    def keep(self, wire: Any) -> None:
        """Keep the session of *wire*. A server sends it with its first response.

        In TLS 1.3 tickets follow the handshake, so that right after it there is none.
        """
        name = wire.server_hostname or ""
        if wire.session is not None:
            self._sessions[name] = wire.session
            self._sessions.move_to_end(name)
            # The one that was renewed longest ago goes.
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)


def keep_session(wire: Any) -> None:
    """Keep the session of *wire*, if its context is one of `client_context`."""
    sessions = wire.context.wrap_socket
    if isinstance(sessions, SessionCache):
        sessions.keep(wire)
