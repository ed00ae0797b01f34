"""A collector of traces on a real socket, speaking OTLP over HTTP.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class Span:
    """A span as it arrived. Ids are in hex digits, times in seconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    failed: bool
    began: float
    ended: float
    attributes: dict[str, Any]
    resource: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]


@dataclass
class Collector:
    """Receives spans, and keeps the headers of each batch."""

    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.collector = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def take(self, body: bytes) -> None:
        """Keep the spans of one export request."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            resource_attributes = _dict(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(each, resource_attributes) for each in scope.spans]

    @property
    def request(self) -> Span:
        """The only server span."""
        (span,) = [span for span in self.spans if span.kind == SERVER]
        return span

    @property
    def tries(self) -> list[Span]:
        """The client spans of attempts, in their order."""
        spans = [span for span in self.spans if span.kind == CLIENT]
        return sorted(spans, key=lambda span: span.began)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


# Kinds of spans, in the protocol's numbers.
SERVER, CLIENT = 2, 3

_ERROR = 2


def _span(encoded: Any, resource: dict[str, Any]) -> Span:
    return Span(
        encoded.name,
        encoded.trace_id.hex(),
        encoded.span_id.hex(),
        encoded.parent_span_id.hex(),
        encoded.trace_state,
        encoded.kind,
        encoded.status.code == _ERROR,
        encoded.start_time_unix_nano / 1e9,
        encoded.end_time_unix_nano / 1e9,
        _dict(encoded.attributes),
        resource,
    )


def _dict(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    collector: Collector


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.collector.headers.append(
            {name.lower(): value for name, value in self.headers.items()}
        )
        self.server.collector.take(body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
