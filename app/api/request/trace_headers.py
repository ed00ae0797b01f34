"""The headers by which a request is traced: x-portkey-trace-id and traceparent."""

import re
import uuid

from ...errors import InvalidRoute
from ...gateway.tracing import RequestSpan, Tracing
from .headers import RequestHeaders

# The id is part of every log line about a request, of the ledger, and of the answer.
MAX_TRACE_ID = 128
_TRACE_ID = re.compile(rf"[ -~]{{1,{MAX_TRACE_ID}}}")


def check_trace_id(headers: RequestHeaders) -> None:
    """Raise InvalidRoute for a trace id that is too long, or is not ASCII."""
    id = headers.get("x-portkey-trace-id")
    if not id or _TRACE_ID.fullmatch(id):
        return
    problem = "one with others"
    if len(id) > MAX_TRACE_ID:
        problem = f"{len(id)} characters"
    raise InvalidRoute(
        f"Invalid x-portkey-trace-id: expected at most {MAX_TRACE_ID} printable "
        f"characters of ASCII, not {problem}.",
        legacy="Invalid trace id passed",
    )


def trace_id(headers: RequestHeaders, span: RequestSpan | None = None) -> str:
    """The caller's trace id, that of the trace of *span*, or a new one."""
    id = headers.get("x-portkey-trace-id")
    if id and _TRACE_ID.fullmatch(id):
        return id
    return span.trace_id if span else str(uuid.uuid4())


def begin_span(
    headers: RequestHeaders, path: str, tracing: Tracing | None
) -> RequestSpan | None:
    """The span of a request to *path*, a child of the caller's span if there is one."""
    if tracing is None:
        return None
    return tracing.begin(path, headers.get("traceparent"), headers.get("tracestate"))
