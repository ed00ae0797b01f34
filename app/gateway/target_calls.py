"""One target: calls to it, and what comes back, as the provider reads it."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..core.hosts import InternalHost, custom_host
from ..core.response_headers import of_error, passed_on
from ..core.routing import Target
from ..core.sse import Event
from ..errors import HostRefused, UpstreamProtocol
from ..providers import HTTPRequest, Provider
from ..providers.declaration import UpstreamAnswer, UpstreamRequest, read_stream
from ..providers.parsing.json_bodies import excerpt, malformed_as_upstream_error
from ..providers.request_parts import merge_headers
from ..upstream import event_decoders
from ..upstream.client import ByteBudget, HTTPClient, HTTPReply
from ..upstream.embedded_engine import EmbeddedEngine
from ..upstream.open_calls import OpenCalls
from ..upstream.target_secrets import redactor
from ..upstream.timeouts import Deadline
from .usage_charges import CallRecord, CallStage

# Bytes that are read of an answer that is no success: enough for any message; and
# more than an excerpt shows of it.
_MAX_ERROR_BYTES = 2**20
_MAX_QUOTED = 4096


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How much one request may hold: of an answer and of one event, in bytes; choices
    that are drawn one by one, in all and at a time.
    """

    max_answer_bytes: int
    max_event_bytes: int
    max_choices: int
    fanout: int


@dataclass(slots=True)
class TargetCalls:
    """The calls of one request to one target.

    *sign* puts a signature on a call, where the provider wants one. *scope* holds what
    is open; *headers* are those of the last answer. Every method raises UpstreamError,
    or what the provider's functions raise.
    """

    provider: Provider
    target: Target
    upstream: HTTPClient
    engine: EmbeddedEngine
    sizes: SizeLimits
    sign: Callable[[HTTPRequest], HTTPRequest]
    scope: OpenCalls = field(default_factory=OpenCalls)
    headers: Mapping[str, str] = field(default_factory=dict)
    _budget: ByteBudget = field(init=False)

    def __post_init__(self) -> None:
        self._budget = ByteBudget(self.sizes.max_answer_bytes)

    def whole(self, ask: UpstreamRequest, record: CallRecord) -> UpstreamAnswer:
        """The answer to one call."""
        body = self.body(ask.endpoint.call(ask), record)
        with record.reading(), malformed_as_upstream_error(body):
            answer = ask.endpoint.completion(body, ask)
        record.note(answer)
        return answer

    def chunks(
        self, ask: UpstreamRequest, record: CallRecord
    ) -> Generator[UpstreamAnswer, None, None]:
        """The streamed answer to one call, made when the first chunk is asked for.

        To close the iterator before its end breaks the call off.
        """
        reply = self.open(ask.endpoint.call(ask), record)
        let_go = self.scope.abandon
        try:
            with record.reading(), malformed_as_upstream_error():
                reader = ask.endpoint.reader(ask)
                for answer in read_stream(reader, self._events(reply, record)):
                    record.note(answer)
                    yield answer
            let_go = self.scope.drop
        finally:
            let_go(reply)

    def body(self, call: HTTPRequest, record: CallRecord | None = None) -> bytes:
        """The body of the answer to *call*."""
        return self._read(self.open(call, record))

    def _read(self, reply: HTTPReply) -> bytes:
        """The body of *reply*, which is let go of in any case."""
        let_go = self.scope.abandon
        try:
            body = reply.read(self._budget)
            let_go = self.scope.drop
        finally:
            let_go(reply)
        return body

    def _read_error(self, reply: HTTPReply) -> bytes:
        """The body of an error, or its start; a connection with more on it is ended."""
        limit = min(_MAX_ERROR_BYTES, self.sizes.max_answer_bytes)
        let_go = self.scope.abandon
        try:
            body = reply.read_start(limit)
            if len(body) < limit:
                let_go = self.scope.drop
        finally:
            let_go(reply)
        return body

    def open(self, call: HTTPRequest, record: CallRecord | None = None) -> HTTPReply:
        """The open answer to *call*, whose status is 2xx. How far it comes is noted in
        *record*.
        """
        limit = self.upstream.limits.first_byte
        deadline = Deadline.after(limit, self.target.request_timeout)
        if self.provider.hosted:
            return self.engine.patiently(
                lambda: self._send(call, deadline, record), deadline
            )
        return self._send(call, deadline, record)

    def _send(
        self, call: HTTPRequest, deadline: Deadline, record: CallRecord | None
    ) -> HTTPReply:
        trusted, once = self._trusted(), self.provider.hosted
        with self.scope.calling(record):
            signed = self.sign(self._within(call))
            sent = self.upstream.send(signed, deadline, trusted=trusted, once=once)
            reply = self.scope.hold(sent)
        self.headers = reply.headers
        if 200 <= reply.status < 300:
            return reply
        if record:
            record.stage = CallStage.REJECTED
        body = self._without_secrets(self._read_error(reply))
        if reply.status >= 400:
            error = self.provider.error(reply.status, body)
            error.headers.update(of_error(reply.headers))
            raise error
        raise UpstreamProtocol(
            f"upstream answered {reply.status}, which is no completion and is not "
            f"followed: {excerpt(body)}"
        )

    def _trusted(self) -> tuple[str, ...] | None:
        """Which internal hosts may be called; None if the address is our own choice.

        An address that is not may have been stored before there were rules for it, or
        while others were trusted, so it is looked at here, right before the call.
        Raises HostRefused, which does not show what the operator has stored.
        """
        target = self.target
        if target.base_url is None or self.provider.hosted:
            return None
        try:
            custom_host(target.base_url, target.trusted_hosts)
        except InternalHost as e:
            raise HostRefused(
                f"{e.reason}, and called only if GATEWAY_TRUSTED_CUSTOM_HOSTS lists it"
            ) from e
        except ValueError as e:
            raise HostRefused(str(e)) from e
        return target.trusted_hosts

    def _without_secrets(self, body: bytes) -> bytes:
        """*body* without what it quotes of the call, as far as an excerpt of it goes:
        a secret has to be gone before it can be cut.
        """
        start = redactor(self.target).content(body[:_MAX_QUOTED])
        return start + body[_MAX_QUOTED:]

    @property
    def shown_headers(self) -> Mapping[str, str]:
        """Those of the last answer that callers get."""
        return redactor(self.target).headers(passed_on(self.headers))

    def _within(self, call: HTTPRequest) -> HTTPRequest:
        """*call*, which says within which span it is made."""
        context = self.target.context
        if context is None:
            return call
        return replace(call, headers=merge_headers(call.headers, context))

    def _events(self, reply: HTTPReply, record: CallRecord) -> Iterator[Event]:
        """The events of a stream. A whole answer in a stream's place is one event."""
        decode = event_decoders.decoder(reply.headers.get("Content-Type", ""))
        if decode is None:
            record.is_stream = False
            yield Event(reply.read(self._budget))
            return
        for event in decode(reply.blocks(), self.sizes.max_event_bytes):
            reply.begin()
            yield event
