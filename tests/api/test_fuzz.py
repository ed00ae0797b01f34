"""Every input gets a well-formed answer, and never a 500."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.soak import fuzz
from tests.soak.fuzz import BODIES, Input, Subject

few = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FIELDS = sorted({key for body in BODIES for key in body} | {"max_tokens", "stop"})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["", "m", "$or", "a.b", "\r\nX: y", "{prompt}", "@k/m", "é"])
)
JSON: Any = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
CONFIG_KEYS = """strategy targets provider virtual_key api_key custom_host weight retry
cache request_timeout deadline_ms forward_headers override_params default_params
drop_params model_aliases strict_params via bridge model_info mode attempts max_age
on_status_codes conditions default query then name model system template sticky
cb_config vertex_service_account_json azure_ad_token openai_beta""".split()
# What a server accepts: Latin-1 without control characters.
VALUES = st.text(
    st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60
).map(str.strip)


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    """An application whose upstream on this machine sends malformed answers."""
    new_subject = Subject()
    with fuzz.fence(new_subject.upstream.port):
        yield new_subject
    new_subject.close()


def routing_headers(subject: Subject, **more: str) -> dict[str, str]:
    host = f"http://127.0.0.1:{subject.upstream.port}/v1"
    named = {"x-portkey-provider": "openai", "x-portkey-custom-host": host}
    return named | {"Authorization": "Bearer k"} | more


def status_of(
    subject: Subject, body: Any, headers: dict[str, str], path: str = ""
) -> int:
    """The status of an answer; the subject itself checks its format."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return subject.status(
        Input("POST", path or "/v1/completions", headers, data), id(data)
    )


@few
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), JSON, max_size=6))
def test_random_bodies_are_handled(subject: Subject, body: dict[str, Any]) -> None:
    whole = {"model": "m", "prompt": "Hi"} | body

    assert status_of(subject, whole, routing_headers(subject)) != 500


@few
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_random_bytes_are_handled(subject: Subject, data: bytes) -> None:
    assert status_of(subject, data, routing_headers(subject)) != 500


def configs(values: Any) -> Any:
    return st.dictionaries(st.sampled_from(CONFIG_KEYS), values, max_size=6)


CONFIGS: Any = st.recursive(
    JSON, lambda inner: configs(inner) | st.lists(configs(inner), max_size=3)
)


@few
@given(configs(CONFIGS), st.sampled_from(["openai", "vertex-ai", "bedrock", ""]))
def test_random_configs_are_handled(
    subject: Subject, config: Any, provider: str
) -> None:
    sent = json.dumps({"provider": "openai"} | config if not provider else config)
    headers = routing_headers(
        subject, **{"x-portkey-config": sent, "x-portkey-provider": provider}
    )

    assert status_of(subject, {"model": "m", "prompt": "Hi"}, headers) != 500


@few
@given(st.dictionaries(st.sampled_from(sorted(fuzz.OTHER_HEADERS)), VALUES, max_size=5))
def test_random_headers_are_handled(subject: Subject, headers: dict[str, str]) -> None:
    body = {"model": "m", "prompt": "Hi"}

    assert status_of(subject, body, routing_headers(subject) | headers) != 500


@few
@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_random_paths_are_handled(subject: Subject, path: str) -> None:
    for shape in ("/{}", "/v1/engines/{}/completions", "{}"):
        status = status_of(
            subject, {"prompt": "Hi"}, routing_headers(subject), shape.format(path)
        )

        assert status != 500


def test_soak_sample_succeeds() -> None:
    result = fuzz.run(seed=1, numbers=range(2000))

    assert result.failures == []
    assert result.statuses[200] > 100


def test_soak_is_deterministic_by_seed() -> None:
    one, other = (fuzz.build_input(7, number, "host:1") for number in (3, 3))

    assert one == other != fuzz.build_input(8, 3, "host:1")


def test_soak_shrinks_failures() -> None:
    case = Input("POST", "/", {"a": "1", "b": "2", "c": "3"}, b'{"model": "long"}')
    least = fuzz.smallest(case, lambda candidate: "b" in candidate.headers)

    assert least.headers == {"b": "2"}
    assert least.body == b""


def test_soak_calls_no_other_host() -> None:
    with fuzz.fence(1), pytest.raises(socket.gaierror):
        socket.getaddrinfo("api.openai.com", 443)
