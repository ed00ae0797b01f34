"""What a provider declares, and the pieces that several declarations share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import documents
from ..core.completion import Completion
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..core.sse import Event
from ..errors import UpstreamProtocol, UpstreamStatus

# JSON that goes to the caller as it came from upstream, or a completion to be written.
Answer = bytes | Completion


@dataclass(frozen=True, slots=True)
class Call:
    """A decided, unsent HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How one provider is asked, and what its answers mean. Functions are pure.

    check        raises UnsupportedParameter for what cannot be had, before any call
    call         the request as this provider wants it; the request stays unchanged,
                 since a retry reads it again
    completion   a whole answer's body; raises UpstreamProtocol if it is none
    chunks       the events of a streamed answer; raises UpstreamCut if they end early
    error        an answer with an error status, as the error that the caller gets
    models       the call that lists its models
    model_list   its answer to that, in OpenAI's shape
    one_by_one   takes one prompt and draws one choice a call: the gateway splits a
                 batch into calls, and `completion` and `chunks` return Completions
    hosted       the gateway runs it itself, and knows its address and key
    headers      request headers of the caller that it understands: theirs -> its own
    """

    name: str
    base_url: str
    needs_key: bool = True
    one_by_one: bool = False
    hosted: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[CompletionRequest], None] = lambda request: None
    call: Callable[["Provider", CompletionRequest, Target], Call]
    completion: Callable[[bytes, CompletionRequest], Answer]
    chunks: Callable[[Iterable[Event], CompletionRequest], Iterator[Answer]]
    error: Callable[[int, bytes], UpstreamStatus]
    models: Callable[["Provider", Target], Call]
    model_list: Callable[[bytes], bytes]


def url(provider: Provider, target: Target, path: str) -> str:
    """Where *path* of the provider lies, for this target."""
    return (target.base_url or provider.base_url) + path


def bearer(target: Target) -> dict[str, str]:
    """The headers of a JSON call with the target's key, if it has one."""
    key = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    return {"Content-Type": "application/json", **key, **target.headers}


def get_models(provider: Provider, target: Target) -> Call:
    """`GET /models`, as on every OpenAI-compatible provider."""
    headers = bearer(target)
    del headers["Content-Type"]
    return Call("GET", url(provider, target, "/models"), headers)


def model_list(body: bytes) -> bytes:
    """A list of models, as it came if it is one."""
    if not isinstance(read_object(body).get("data"), list):
        raise UpstreamProtocol(f"the answer is no list of models: {excerpt(body)}")
    return body


def read_object(body: bytes) -> dict[str, Any]:
    """*body* as a JSON object. Raises UpstreamProtocol with an excerpt of other."""
    try:
        document = documents.load(body)
    except ValueError as e:
        raise UpstreamProtocol(f"the answer is not JSON: {excerpt(body)}") from e
    if not isinstance(document, dict):
        raise UpstreamProtocol(f"the answer is no JSON object: {excerpt(body)}")
    return document


def excerpt(body: bytes, length: int = 200) -> str:
    """At most *length* characters of what was seen, on one line."""
    text = " ".join(body[: 4 * length].decode("utf-8", "replace").split())
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return printable[:length] or "(an empty body)"
