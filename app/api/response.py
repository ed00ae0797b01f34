"""The answers of the completions endpoint, sent without Werkzeug's own additions."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response
from werkzeug.datastructures import Headers

from ..gateway.clients.connections import ClientConnection

# The headers of a stream that keep proxies from buffering it; the last is nginx's.
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class FastResponse(Response):
    """A response whose body and headers are complete, and are sent as they are.

    Werkzeug would look for a Location to make absolute, count the length, and encode
    text: none of that applies here, and each costs time.
    """

    def __init__(
        self, body: Iterable[bytes], headers: Mapping[str, str], content_type: str
    ) -> None:
        # Werkzeug copies and searches any other mapping for a content type.
        complete = Headers({**headers, "Content-Type": content_type})
        super().__init__(body, headers=complete, direct_passthrough=True)

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers


class StreamedResponse(FastResponse):
    """A stream of events that can also be written to through *connection*.

    The heartbeat uses WSGI's `write` callable to send comments between two events. Of
    the servers we know, gunicorn implements it.
    """

    def __init__(
        self,
        events: Iterable[bytes],
        headers: Mapping[str, str],
        connection: ClientConnection,
    ) -> None:
        super().__init__(events, {**headers, **UNBUFFERED}, "text/event-stream")
        self._connection = connection

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(*args: Any) -> Any:
            self._connection.write = start_response(*args)
            return self._connection.write

        return super().__call__(environ, start)
