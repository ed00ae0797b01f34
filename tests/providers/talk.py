"""What would be said to a provider, and what its answers would be taken for.

The same path as in the gateway, without its network: the plan, its calls, the reading
and the shaping of the answers.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from app.core import batch, post_processing
from app.core.completion import Completion
from app.core.request import CompletionRequest
from app.core.routing import Target
from app.core.sse import Event
from app.planning import plan as fitting
from app.planning.plan import Plan
from app.providers import PROVIDERS, HTTPRequest
from app.providers.declaration import read_stream
from app.providers.protocols.openai_completions import to_completion

KEY = "sk-secret-of-the-caller"

# What each provider has to know besides a key and a custom host.
OPTIONS: dict[str, dict[str, Any]] = {
    "vertex-ai": {"vertex_project_id": "p", "vertex_region": "us-central1"},
    "bedrock": {"aws_region": "us-east-1"},
}


def asked(prompt: Any = "Hi", model: str = "m", **params: Any) -> CompletionRequest:
    return CompletionRequest(model, prompt, params, id="cmpl-made", created=7)


def target(name: str, **changes: Any) -> Target:
    known = {"api_key": KEY, "base_url": "http://upstream"}
    known["options"] = OPTIONS.get(name, {})
    return Target(name, **(known | changes))


def plan(
    name: str, *, to: dict[str, Any] | None = None, prompt: Any = "Hi", **params: Any
) -> Plan:
    """The plan for one request; *to* are fields of its target, *params* of its body."""
    model = params.pop("model", "m")
    chosen = target(name, **(to or {}))
    request = asked(prompt, model, **params)
    return fitting.make_plan(PROVIDERS[name], chosen, request)


def calls(name: str, **asked: Any) -> list[HTTPRequest]:
    made = plan(name, **asked)
    asks = [made.ask(part, made.target) for part in made.parts]
    return [ask.endpoint.call(ask) for ask in asks]


def body(name: str, **asked: Any) -> dict[str, Any]:
    """The JSON of the one call that is made."""
    (call,) = calls(name, **asked)
    sent: dict[str, Any] = json.loads(call.body or b"")
    return sent


def whole(name: str, answer: bytes, **asked: Any) -> Completion:
    """What every call's whole *answer* makes together."""
    made = plan(name, **asked)
    answers = []
    for part in made.parts:
        ask = made.ask(part, made.target)
        read = to_completion(ask.endpoint.completion(answer, ask))
        answers.append(
            read if made.direct else post_processing.whole(read, made.shape(part))
        )
    return answers[0] if made.direct else batch.join(made.request, made.parts, answers)


def streamed(name: str, events: Iterable[Event], **asked: Any) -> Sequence[Completion]:
    """What the *events* of the one call's answer become."""
    made = plan(name, stream=True, **asked)
    (part,) = made.parts
    ask = made.ask(part, made.target)
    pieces = map(to_completion, read_stream(ask.endpoint.reader(ask), events))
    if made.direct:
        return list(pieces)
    return list(post_processing.shaped(pieces, made.shape(part)))
