"""An answer of the endpoint: what is said of it is complete, and goes out as it is."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response
from werkzeug.datastructures import Headers

from ..gateway.clients.connections import ClientConnection

# Proxies hold a stream back unless they are told not to; nginx by the last one.
AT_ONCE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class FastResponse(Response):
    """A body that ends itself, and its headers. There is nothing to put right for it:
    no address, no length, no text to encode.
    """

    def __init__(
        self, body: Iterable[bytes], headers: Mapping[str, str], content_type: str
    ) -> None:
        told = Headers({**headers, "Content-Type": content_type})
        # Handed over whole, or it would be looked through for a type of its own.
        super().__init__(body, headers=told, direct_passthrough=True)

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers


class StreamedResponse(FastResponse):
    """Events, between which the caller on *connection* can also be spoken to.

    That is what WSGI's `write` is for. Of servers we know gunicorn to mean it.
    """

    def __init__(
        self,
        events: Iterable[bytes],
        headers: Mapping[str, str],
        connection: ClientConnection,
    ) -> None:
        super().__init__(events, {**headers, **AT_ONCE}, "text/event-stream")
        self._connection = connection

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(*given: Any) -> Any:
            self._connection.write = start_response(*given)
            return self._connection.write

        return super().__call__(environ, start)
