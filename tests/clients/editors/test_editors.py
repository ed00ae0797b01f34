"""Every body of the editors, by every way to a completion, whole and streamed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from app.core.parameter_aliases import BUDGET_SPELLINGS
from app.core.request import DEFAULTS
from tests.conftest import Caller, Script, events
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Upstream,
    completion,
    data,
    delta,
    frame,
    reply,
    stream,
    whole,
)

from .bodies import CONTINUE, REFUSED_BY_OPENAI, SILLYTAVERN

BODIES = CONTINUE | SILLYTAVERN

# The stop sequences that each target takes; None is any number.
TARGETS: dict[str, dict[str, Any]] = {
    "openai": {"provider": "openai", "via": "native", "stops": 4},
    "vllm": {"provider": "vllm", "via": "native", "stops": None},
    "llama.cpp": {"provider": "llama-cpp", "via": "native", "stops": None},
    "together": {"provider": "together-ai", "via": "native", "stops": 4},
    "bridged": {"provider": "groq", "via": "chat", "stops": 4},
}


@pytest.fixture
def target(request: Any, call: Any, script: Script) -> "Target":
    return Target(call, script, TARGETS[request.param])


class Target:
    """An upstream that knows no stop sequence, behind one target of the gateway.

    It writes a text with the last of the request's sequences in it, in small pieces.
    """

    def __init__(
        self, call: Callable[..., Caller], script: Script, about: Mapping[str, Any]
    ) -> None:
        self.stops: int | None = about["stops"]
        self.last_stop = ""
        self.upstream: Upstream = script(self._answer)
        fields = {"custom_host": self.upstream.url, "api_key": "key"}
        config = {k: about[k] for k in ("provider", "via")} | fields
        self.headers = {"x-portkey-config": json.dumps(config)}
        self._caller = call(self.upstream)

    def complete(self, body: Mapping[str, Any], **more: Any) -> Any:
        self.last_stop = (body.get("stop") or [""])[-1]
        sent = {**body, **more}
        return self._caller.post(json.dumps(sent).encode(), headers=self.headers)

    def _answer(self, request: ReceivedRequest) -> Answer:
        text = f"Well met,{self.last_stop} and more" if self.last_stop else "Well met,"
        is_chat = "/chat/" in request.path
        if not request.json.get("stream"):
            return whole(reply(text) if is_chat else completion(text))
        piece: Callable[..., Any] = delta if is_chat else frame
        parts = [text[i : i + 3] for i in range(0, len(text), 3)]
        return stream(
            *(data(piece(part)) for part in parts), data(piece("", "stop")), DONE
        )


WAYS = [
    (target, name)
    for target in TARGETS
    for name in BODIES
    if target != "openai" or name not in REFUSED_BY_OPENAI
]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("target, name", WAYS, indirect=["target"])
def test_editors_body_gets_a_completion(
    target: Target, name: str, streams: bool
) -> None:
    body = BODIES[name]
    response = target.complete(body, stream=streams)

    assert response.status_code == 200, response.json
    chunks = events(response) if streams else [response.json, "[DONE]"]
    assert chunks.pop() == "[DONE]"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    stops = body.get("stop", [])
    is_enforced = target.stops is not None and len(stops) > target.stops
    text = "".join(choice["text"] for choice in choices)
    assert text.startswith("Well met,")
    assert (text == "Well met,") == (is_enforced or not stops)
    assert choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "target", ["vllm", "llama.cpp", "together", "bridged"], indirect=True
)
@pytest.mark.parametrize("name", BODIES)
def test_editors_body_arrives_as_target_takes_it(target: Target, name: str) -> None:
    body = BODIES[name]
    response = target.complete(body)
    sent = target.upstream.last.json

    assert response.status_code == 200, response.json
    stops = body.get("stop", [])
    assert (sent.get("stop") or []) == stops[: target.stops]
    # One limit of tokens, under one name; -1 is said as the target knows it, or not.
    budgets = {k: v for k, v in sent.items() if k in {"max_tokens", *BUDGET_SPELLINGS}}
    wanted = body.get("max_tokens", body.get("max_completion_tokens"))
    assert list(budgets) in (["max_tokens"], [])
    assert budgets.get("max_tokens") == wanted or wanted == -1
    assert not {"suffix", "user"} & sent.keys()
    assert sent.get("logit_bias") != []
    # What the target did without is named, and is nothing else than what is missing.
    header = response.headers.get("x-lastword-dropped-params", "")
    dropped = set(filter(None, header.split(", ")))
    values = {k: v for k, v in body.items() if v not in (None, "", [])}
    # The loss of a default changes nothing, and is not named; nor is the other name of
    # the budget. A chat without a limit goes on to its end, too.
    defaults = {**DEFAULTS, "n": 1, "max_completion_tokens": wanted, "n_predict": -1}
    if "messages" in sent:
        defaults |= {"max_tokens": -1, "prompt": body["prompt"]}
    lost = {k for k, v in values.items() if v != defaults.get(k)} - sent.keys()
    assert lost - dropped == set()


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("target", ["openai"], indirect=True)
@pytest.mark.parametrize("name", REFUSED_BY_OPENAI)
def test_openai_refuses_what_it_would_refuse_itself(
    target: Target, name: str, streams: bool
) -> None:
    response = target.complete(BODIES[name], stream=streams)

    assert response.status_code == 400
    assert response.json["error"]["param"] == REFUSED_BY_OPENAI[name]
    assert target.upstream.requests == []


@pytest.mark.parametrize("name", REFUSED_BY_OPENAI)
def test_route_goes_on_to_engine_after_openai(
    call: Any, script: Script, name: str
) -> None:
    upstream = script(whole(completion("Well met,")))
    targets = [
        {"provider": provider, "custom_host": upstream.url, "api_key": "key"}
        for provider in ("openai", "vllm")
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    headers = {"x-portkey-config": json.dumps(config)}
    body = json.dumps(BODIES[name]).encode()
    response = call(upstream).post(body, headers=headers)

    assert response.status_code == 200, response.json
    assert response.headers["x-portkey-provider"] == "vllm"
    assert len(upstream.requests) == 1
