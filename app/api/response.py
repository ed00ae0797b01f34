"""An answer of the endpoint: what is said of it is complete, and goes out as it is."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response
from werkzeug.datastructures import Headers

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
    """Events. The server sends each piece of them as soon as it has it."""

    def __init__(self, events: Iterable[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(events, {**headers, **AT_ONCE}, "text/event-stream")
