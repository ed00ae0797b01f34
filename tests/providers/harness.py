"""Requests to providers and their answers, without network: the plan, its calls, the
reading and the post-processing of answers.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.core import batch, post_processing
from app.core.completion import Completion
from app.core.post_processing import PostProcessing, PostProcessor
from app.core.request import CompletionRequest
from app.core.routing import Target
from app.core.sse import Event
from app.errors import UpstreamError
from app.planning.plan import Plan, make_plan
from app.providers import PROVIDERS, HTTPRequest
from app.providers.declaration import StreamReader, UpstreamAnswer
from app.providers.protocols.openai_completions import to_completion

KEY = "sk-secret-of-the-caller"

# Required settings besides a key and a custom host.
OPTIONS: dict[str, dict[str, Any]] = {
    "vertex-ai": {"vertex_project_id": "p", "vertex_region": "us-central1"},
    "bedrock": {"aws_region": "us-east-1"},
}


def completion_request(
    prompt: Any = "Hi", model: str = "m", **params: Any
) -> CompletionRequest:
    return CompletionRequest(model, prompt, params, id="cmpl-made", created=7)


def target(name: str, **changes: Any) -> Target:
    fields = {"api_key": KEY, "base_url": "http://upstream"}
    fields["options"] = OPTIONS.get(name, {})
    return Target(name, **(fields | changes))


def plan(
    name: str, *, to: dict[str, Any] | None = None, prompt: Any = "Hi", **params: Any
) -> Plan:
    """The plan for one request; *to* are fields of its target, *params* of its body."""
    model = params.pop("model", "m")
    chosen = target(name, **(to or {}))
    request = completion_request(prompt, model, **params)
    return make_plan(PROVIDERS[name], chosen, request)


def calls(name: str, **params: Any) -> list[HTTPRequest]:
    chosen_plan = plan(name, **params)
    upstream_requests = [
        chosen_plan.upstream_request(part, chosen_plan.target)
        for part in chosen_plan.parts
    ]
    return [upstream.endpoint.call(upstream) for upstream in upstream_requests]


def body(name: str, **params: Any) -> dict[str, Any]:
    """The JSON body of the only call."""
    (call,) = calls(name, **params)
    sent: dict[str, Any] = json.loads(call.body or b"")
    return sent


def whole(name: str, answer: bytes, **params: Any) -> Completion:
    """The completion if every call gets this whole *answer*."""
    chosen_plan = plan(name, **params)
    answers = []
    for part in chosen_plan.parts:
        upstream = chosen_plan.upstream_request(part, chosen_plan.target)
        read = to_completion(upstream.endpoint.completion(answer, upstream))
        answers.append(
            read
            if chosen_plan.direct
            else post_processing.whole(read, chosen_plan.shape(part))
        )
    return (
        answers[0]
        if chosen_plan.direct
        else batch.join(chosen_plan.request, chosen_plan.parts, answers)
    )


def streamed(name: str, events: Iterable[Event], **params: Any) -> Sequence[Completion]:
    """The chunks that the *events* of the only call's answer become."""
    chosen_plan = plan(name, stream=True, **params)
    (part,) = chosen_plan.parts
    upstream = chosen_plan.upstream_request(part, chosen_plan.target)
    pieces = map(to_completion, read_stream(upstream.endpoint.reader(upstream), events))
    if chosen_plan.direct:
        return list(pieces)
    return list(post_process(pieces, chosen_plan.shape(part)))


def read_stream(
    reader: StreamReader, events: Iterable[Event]
) -> Iterator[UpstreamAnswer]:
    """The chunks of *events*, each as soon as its event is read."""
    source, feed = iter(events), reader.feed
    while not reader.done:
        try:
            event = next(source)
        except StopIteration:
            yield from reader.end()
            return
        except UpstreamError as e:
            # The connection failed, and the reader decides what that means. Errors
            # of `feed` are final, and not caught here.
            yield from reader.end(e)
            return
        yield from feed(event)


def post_process(
    pieces: Iterable[Completion], shape: PostProcessing
) -> Iterator[Completion]:
    """The chunks that *pieces* become, through a PostProcessor."""
    processor = PostProcessor(shape)
    for piece in pieces:
        yield from processor.feed(piece)
        if processor.finished:
            break
    yield from processor.end()
