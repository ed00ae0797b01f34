"""What the operations of Bedrock's runtime share: paths, in-band errors, usage."""

from collections.abc import Mapping, Sequence
from typing import Any

from .. import safe_json
from ..core.completion import Choice, Completion, Usage
from ..core.sse import Event
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, count_of, finish_reason, usage_of
from .upstream_request import HTTPRequest, UpstreamRequest, quote_path_segment

# The HTTP statuses of exceptions that come as events of a stream. Such an event has no
# status: the answer has already begun with 200.
# Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/
# API_runtime_ConverseStreamOutput.html
_EXCEPTION_STATUSES = {
    "throttlingException": 429,
    "validationException": 400,
    "modelTimeoutException": 408,
    "modelStreamErrorException": 424,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
}


def post(upstream: UpstreamRequest, operation: str, body: object) -> HTTPRequest:
    """The request for an *operation* on the request's model."""
    # Models may be ARNs. Their slashes and colons are quoted, so that all of an ARN is
    # one segment of the path.
    model = quote_path_segment(upstream.request.model)
    return upstream.post(f"/model/{model}/{operation}", body)


def raise_event_error(event: Event) -> None:
    """Raise the exception that *event* is, if it is one."""
    # A frame of the event stream has `:event-type` in its headers (`contentBlockDelta`,
    # `chunk`), or `:exception-type`, or `:error-code`. The decoder makes each the name.
    name = event.name.decode("utf-8", "replace")
    if not name.endswith("Exception") and name not in _EXCEPTION_STATUSES:
        return
    try:
        document, _ = safe_json.load_lenient(event.data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    message = document.get("message") or document.get("Message") or name
    # What the model itself said: in modelStreamErrorException.
    original = document.get("originalMessage")
    if original and str(original) not in str(message):
        message = f"{message}: {original}"
    error = {"message": message, "type": name}
    # An exception that is not documented may be anything; 502 lets other targets try.
    status = _EXCEPTION_STATUSES.get(name, 502)
    raise error_bodies.in_band_error({"error": error, "status_code": status})


def completion_of(
    upstream: UpstreamRequest, text: str, word: Any, usage: Usage | None = None
) -> Completion:
    """A completion, or a chunk, of this text and finish reason."""
    reason = finish_reason(word, strict=upstream.target.strict)
    choices = (Choice(text, 0, None, reason),)
    return Completion(*answer_head({}, upstream), choices, usage)


# The names of four counts: tokens of the input and the output; and those that were read
# from the cache or written to it, which are not part of the input.
# Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/
# API_runtime_TokenUsage.html; recordings of InvokeModel (whole answers have headers,
# streams an object in the last chunk), as of
# https://github.com/DataDog/dd-trace-js (bedrockruntime)
CONVERSE_COUNTS = (
    "inputTokens",
    "outputTokens",
    "cacheReadInputTokens",
    "cacheWriteInputTokens",
)
METRIC_COUNTS = (
    "inputTokenCount",
    "outputTokenCount",
    "cacheReadInputTokenCount",
    "cacheWriteInputTokenCount",
)
HEADER_COUNTS = (
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
)


def parse_usage(counts: Mapping[str, Any], names: Sequence[str]) -> Usage | None:
    """The usage of the counts with these *names*; None without any."""
    uncached, output, read, written = (count_of(counts.get(name)) for name in names)
    return usage_of(uncached + read + written, output, cached=read)
