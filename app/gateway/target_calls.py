"""The upstream calls of one request to one target.

A call is made of an UpstreamRequest by the provider's declaration, signed, sent within
its limits of time, and its answer read by the provider's own functions. Everything that
is open is in `open_calls`, so that it can be broken off at any time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..core.completion import Completion
from ..core.hosts import InternalHost, custom_host
from ..core.post_processing import PostProcessor
from ..core.response_headers import caller_headers, error_headers, has_wait
from ..core.routing import Target
from ..errors import HostRefused, UpstreamInBand, UpstreamProtocol
from ..providers import HTTPRequest, Provider
from ..providers.declaration import UpstreamAnswer
from ..providers.parsing.excerpts import excerpt
from ..providers.parsing.json_answers import (
    MALFORMED,
    as_upstream_error,
    malformed_as_upstream_error,
)
from ..providers.upstream_request import UpstreamRequest, merge_headers
from ..upstream.client import ByteBudget, HTTPClient, HTTPReply
from ..upstream.embedded_engine import EmbeddedEngine
from ..upstream.event_decoders import StreamDecoder, events_in_whole
from ..upstream.open_calls import OpenCalls
from ..upstream.target_secrets import redactor
from ..upstream.timeouts import Deadline
from .streaming.call_stream import CallStream
from .streaming.completed_stream import complete_events
from .usage_charges import CallEnding, CallRecord

# Statuses of an error that is about the path.
_PATH_STATUSES = (404, 405)

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
    """Makes the calls of one request to one target.

    *budget* is what all of them together may hold. *sign* puts a signature on a call,
    where the provider wants one; *headers* are those of the last answer. Every method
    raises UpstreamError, or what the provider's functions raise.
    """

    provider: Provider
    target: Target
    client: HTTPClient
    engine: EmbeddedEngine
    sizes: SizeLimits
    budget: ByteBudget
    sign: Callable[[HTTPRequest], HTTPRequest] | None = None
    open_calls: OpenCalls = field(default_factory=OpenCalls)
    headers: Mapping[str, str] = field(default_factory=dict)

    def complete(self, request: UpstreamRequest, record: CallRecord) -> UpstreamAnswer:
        """The whole answer to one call."""
        endpoint = request.endpoint
        reply = self.open(endpoint.call(request), record)
        body = self._read_whole(reply)
        try:
            # Some servers stream although nobody asked them to.
            content_type = reply.headers.get("content-type", "")
            events = events_in_whole(body, content_type, self.sizes.max_event_bytes)
            if events is None:
                answer = endpoint.completion(body, request)
                record.note(answer)
            else:
                answer = complete_events(events, request, record)
        except UpstreamInBand as e:
            record.fail(e)
            raise
        except MALFORMED as e:
            raise as_upstream_error(e, body) from e
        if isinstance(answer, Completion) and (
            counted := endpoint.header_usage(reply.headers)
        ):
            usage = (answer.usage or counted).updated(counted)
            answer = replace(answer, usage=usage)
            record.usage = usage
        record.ending = CallEnding.ANSWERED
        return answer

    def stream(
        self,
        request: UpstreamRequest,
        record: CallRecord,
        post_processor: PostProcessor | None = None,
    ) -> CallStream:
        """The streamed answer to one call, which has been made: its head is here."""
        with malformed_as_upstream_error():
            call = request.endpoint.call(request)
        reply = self.open(call, record)
        content_type = reply.headers.get("content-type", "")
        decoder = StreamDecoder(content_type, self.sizes.max_event_bytes, self.budget)
        record.is_stream = not decoder.is_document
        if decoder.is_document:
            try:
                reply.refuse_length(self.budget)
            except UpstreamProtocol:
                self.open_calls.abandon(reply)
                raise
        endpoint = request.endpoint
        return CallStream(
            reply,
            self.open_calls,
            decoder,
            endpoint.reader(request),
            # In the legacy shape, documents and frames are the same.
            (
                None
                if endpoint.legacy_shape
                else lambda body: endpoint.completion(body, request)
            ),
            record,
            post_processor,
        )

    def read_body(self, call: HTTPRequest, record: CallRecord | None = None) -> bytes:
        """The body of the answer to *call*."""
        return self._read_whole(self.open(call, record))

    def _read_whole(self, reply: HTTPReply) -> bytes:
        """The body of *reply*, whose connection is free then."""
        # Until it is read to its end, its connection cannot serve the next call.
        let_go = self.open_calls.abandon
        try:
            body = reply.read(self.budget)
            let_go = self.open_calls.drop
        finally:
            let_go(reply)
        return body

    def open(self, call: HTTPRequest, record: CallRecord | None = None) -> HTTPReply:
        """The open answer to *call*, whose status is 2xx. How far it comes is noted in
        *record*.
        """
        trusted = self._trusted_hosts()
        limit = self.client.limits.first_byte
        deadline = Deadline.after(limit, self.target.request_timeout)
        if self.provider.embedded:
            # The engine may be about to come up, or to come up again.
            return self.engine.send_when_loaded(
                lambda: self._send(call, deadline, trusted, record), deadline
            )
        return self._send(call, deadline, trusted, record)

    def _send(
        self,
        call: HTTPRequest,
        deadline: Deadline,
        trusted: tuple[str, ...] | None,
        record: CallRecord | None,
    ) -> HTTPReply:
        if self.target.context is not None:
            # The span within which the call is made.
            headers = merge_headers(call.headers, self.target.context)
            call = replace(call, headers=headers)
        if self.sign:
            call = self.sign(call)
        if record:
            # It may be sent again: what became of the try before does not count.
            record.is_sent, record.ending = False, None
        with self.open_calls.calling(record) as observer:
            reply = self.client.send(
                call,
                deadline,
                observer=observer,
                trusted=trusted,
                once=self.provider.embedded,
            )
            self.open_calls.hold(reply)
        self.headers = reply.headers
        if 200 <= reply.status < 300:
            return reply
        if record:
            record.ending = CallEnding.REJECTED
        body = self._read_error(reply)
        # A secret that the error quotes has to be gone before it can be cut in two.
        quoted = redactor(self.target).content(body[:_MAX_QUOTED])
        body = quoted + body[_MAX_QUOTED:]
        # Redirects are not followed: they would take the key to another host.
        if reply.status >= 400:
            error = self.provider.error(reply.status, body)
            # A wait in the body counts where the headers have none.
            headers = error_headers(reply.headers)
            error.headers = headers if has_wait(headers) else error.headers | headers
            if reply.status in _PATH_STATUSES:
                hidden = self.target.base_url if self.target.stored_host else None
                error.called = f"{call.method} {call.path(hidden)}"
                # With a code or a parameter, it is about what was asked for there.
                is_about_path = error.code is None and error.param is None
                if is_about_path and error.called not in error.message:
                    error.message += f" (called: {error.called})"
            raise error
        raise UpstreamProtocol(
            f"upstream answered {reply.status}, which is no completion and is not "
            f"followed: {excerpt(body)}"
        )

    def _read_error(self, reply: HTTPReply) -> bytes:
        """The body of an error, or its start; a connection with more on it is ended."""
        limit = min(_MAX_ERROR_BYTES, self.sizes.max_answer_bytes)
        let_go = self.open_calls.abandon
        try:
            body = reply.read_start(limit)
            if len(body) < limit:
                let_go = self.open_calls.drop
        finally:
            let_go(reply)
        return body

    def _trusted_hosts(self) -> tuple[str, ...] | None:
        """Which internal hosts may be called; None if the address is our own choice.

        An address that is not may have been stored before there were rules for it, or
        while others were trusted, so it is looked at here, right before the call.
        Raises HostRefused, which does not show what the operator has stored.
        """
        target = self.target
        if target.base_url is None or self.provider.embedded:
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

    @property
    def shown_headers(self) -> Mapping[str, str]:
        """Those of the last answer that callers get."""
        headers = caller_headers(self.headers)
        return redactor(self.target).headers(headers) if headers else headers
