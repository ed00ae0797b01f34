"""One target: calls to it, and what comes back, as the provider reads it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..core import sse
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..core.sse import Event
from ..errors import UpstreamProtocol
from ..providers import Call, Provider
from ..providers.spec import Answer, excerpt
from .deadline import Deadline
from .hosted import Engine
from .scope import Scope
from .upstream import HTTPReply, Upstream


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much one request may hold: of an answer and of one event, in bytes; choices
    that are drawn one by one, in all and at a time.
    """

    max_answer_bytes: int
    max_event_bytes: int
    max_choices: int
    fanout: int


@dataclass(slots=True)
class Exchange:
    """The calls of one request to one target.

    *scope* holds what is open; *headers* are those of the last answer. Every method
    raises UpstreamError, or what the provider's functions raise.
    """

    provider: Provider
    target: Target
    upstream: Upstream
    engine: Engine
    sizes: Sizes
    scope: Scope = field(default_factory=Scope)
    headers: Mapping[str, str] = field(default_factory=dict)

    def whole(self, request: CompletionRequest) -> Answer:
        """The answer to one call."""
        call = self.provider.call(self.provider, request, self.target)
        return self.provider.completion(self.body(call), request)

    def chunks(self, request: CompletionRequest) -> Iterator[Answer]:
        """The streamed answer to one call, made when the first chunk is asked for."""
        call = self.provider.call(self.provider, request, self.target)
        reply = self.open(call)
        yield from self.provider.chunks(self._events(reply), request)
        self.scope.drop(reply)

    def body(self, call: Call) -> bytes:
        """The body of the answer to *call*."""
        reply = self.open(call)
        body = reply.read(self.sizes.max_answer_bytes)
        self.scope.drop(reply)
        return body

    def open(self, call: Call) -> HTTPReply:
        """The open answer to *call*, whose status is 2xx."""
        limit = self.upstream.limits.first_byte
        deadline = Deadline.after(limit, self.target.request_timeout)
        if self.provider.hosted:
            return self.engine.patiently(lambda: self._send(call, deadline), deadline)
        return self._send(call, deadline)

    def _send(self, call: Call, deadline: Deadline) -> HTTPReply:
        guarded = self.target.base_url is not None and not self.provider.hosted
        reply = self.scope.hold(self.upstream.send(call, deadline, guarded=guarded))
        self.headers = reply.headers
        if 200 <= reply.status < 300:
            return reply
        body = reply.read(self.sizes.max_answer_bytes)
        self.scope.drop(reply)
        if reply.status >= 400:
            error = self.provider.error(reply.status, body)
            error.headers.update(reply.headers)
            raise error
        raise UpstreamProtocol(
            f"upstream answered {reply.status}, which is no completion and is not "
            f"followed: {excerpt(body)}"
        )

    def _events(self, reply: HTTPReply) -> Iterator[Event]:
        """The events of a stream. A whole answer in a stream's place is one event."""
        if "event-stream" not in reply.headers.get("Content-Type", ""):
            yield Event(reply.read(self.sizes.max_answer_bytes))
            return
        try:
            for event in sse.decode(reply.blocks(), limit=self.sizes.max_event_bytes):
                reply.begin()
                yield event
        except sse.EventTooLong as e:
            raise UpstreamProtocol(f"upstream sent {e}") from e
