"""What the operations of Bedrock's runtime share: paths, in-band errors, usage."""

from collections.abc import Mapping
from typing import Any

from .. import safe_json
from ..core.completion import Choice, Completion, Usage
from ..core.sse import Event
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, finish_reason
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
        document = safe_json.load(event.data)
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


def parse_usage(
    counts: Mapping[str, Any], input_key: str, output_key: str
) -> Usage | None:
    """The usage, if there are counts.

    Tokens that were read from the cache, or written to it, are not part of the input.
    """
    if input_key not in counts and output_key not in counts:
        return None
    read = counts.get("cacheReadInputTokens") or 0
    written = counts.get("cacheWriteInputTokens") or 0
    prompt_tokens = (counts.get(input_key) or 0) + read + written
    return Usage(prompt_tokens, counts.get(output_key) or 0, cached_tokens=read)
