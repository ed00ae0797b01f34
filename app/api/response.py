"""The answers of the completions endpoint, sent without Werkzeug's own additions."""

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response
from werkzeug.datastructures import Headers

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
    """A stream of events. The server sends each piece as soon as it is there."""

    def __init__(self, events: Iterable[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(events, {**headers, **UNBUFFERED}, "text/event-stream")
