"""What holds for every provider."""

import copy
import json
from typing import Any

import pytest

from app.core.request import CompletionRequest
from app.core.routing import Target
from app.core.sse import Event
from app.errors import UpstreamError
from app.providers import PROVIDERS, Provider

KEY = "sk-secret-of-the-caller"
ALL = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


def asked(**params: Any) -> CompletionRequest:
    return CompletionRequest("m", "Hi", params, id="cmpl-x", created=1)


def target(provider: Provider) -> Target:
    return Target(provider.name, KEY, "http://upstream")


@ALL
def test_a_call_leaves_the_request_unchanged(provider: Provider) -> None:
    """It is made again on every retry."""
    request = asked(stop=["a"], seed=5, max_tokens=0, logit_bias={"1": 2}, top_k=1)
    before = copy.deepcopy(request)
    first = provider.call(provider, request, target(provider))

    assert request == before
    assert provider.call(provider, request, target(provider)) == first


@ALL
def test_the_required_parameters_reach_upstream(provider: Provider) -> None:
    call = provider.call(provider, asked(max_tokens=5), target(provider))

    assert call.method == "POST" and call.url.startswith("http://upstream/")
    assert call.headers["Content-Type"] == "application/json"
    assert call.body and json.loads(call.body)["prompt"] == "Hi"


@ALL
def test_the_key_appears_in_headers_only(provider: Provider) -> None:
    call = provider.call(provider, asked(), target(provider))

    assert KEY in " ".join(call.headers.values())
    assert KEY not in call.url and KEY.encode() not in (call.body or b"")
    assert KEY not in repr(call) and KEY not in repr(target(provider))


@ALL
@pytest.mark.parametrize(
    "events", [[], [b"[DONE]"], [b"null"], [b": x"], [b"{"]], ids=str
)
def test_a_truncated_stream_raises(provider: Provider, events: list[bytes]) -> None:
    with pytest.raises(UpstreamError):
        list(provider.chunks(map(Event, events), asked()))


@ALL
@pytest.mark.parametrize(
    "body", [b"", b"boom", b'{"error": {"message": "boom"}}', b"[]", b"\xff"], ids=repr
)
def test_an_error_body_yields_a_message(provider: Provider, body: bytes) -> None:
    error = provider.error(500, body)

    assert error.message and error.status == 500
    assert set(error.to_body()["error"]) == {"message", "type", "param", "code"}


@ALL
def test_headers_of_a_target_win(provider: Provider) -> None:
    chosen = Target(provider.name, KEY, "http://u", {"Authorization": "Basic x"})

    call = provider.call(provider, asked(), chosen)
    assert call.headers["Authorization"] == "Basic x"
