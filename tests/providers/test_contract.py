"""The contract of every mode of every provider."""

import copy
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.completion import Completion, Usage
from app.core.request import LEGACY_PARAMS
from app.core.routing import CompletionMode
from app.core.sse import Event
from app.errors import (
    InvalidRequest,
    InvalidRoute,
    UnsupportedParameter,
    UnsupportedProvider,
    UpstreamError,
)
from app.planning.plan import Plan
from app.providers import PROVIDERS, Provider
from app.providers.catalog.known_names import KNOWN_NAMES

from . import harness
from .harness import KEY
from .recordings import MODE_CASES, TEXT, ModeCase

EVERY_MODE = pytest.mark.parametrize("case", MODE_CASES, ids=str)
EVERY_PROVIDER = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)

PROMPT = "Hi – there\n"

# A value of each parameter that is not its default and that most providers accept.
VALUES: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "presence_penalty": 0.5,
    "seed": 7,
    "temperature": 0.5,
    "top_p": 0.5,
    "user": "someone",
}

# Parameters that the gateway emulates.
EMULATED = ("best_of", "echo", "n", "stop", "stream_options")


def plan(case: ModeCase, **params: Any) -> Plan:
    to = {"via": case.mode} | params.pop("to", {})
    return harness.plan(
        case.provider.name, to=to, **{"prompt": PROMPT, "model": case.model} | params
    )


def sent(case: ModeCase, **params: Any) -> list[dict[str, Any]]:
    """The JSON of each call."""
    chosen_plan = plan(case, **params)
    upstream_requests = [
        chosen_plan.upstream_request(part, chosen_plan.target)
        for part in chosen_plan.parts
    ]
    return [
        json.loads(upstream.endpoint.call(upstream).body or b"")
        for upstream in upstream_requests
    ]


def stands_at(body: dict[str, Any], path: str) -> Any:
    node: Any = body
    for name in path.split("."):
        node = node[name]
    return node


def names_model(case: ModeCase, text: str) -> bool:
    """Whether *text* names the model; the address of a Triton server implies one."""
    return case.provider.name == "triton" or case.model.rpartition(".")[2] in text


def read_whole(case: ModeCase, answer: bytes, **params: Any) -> Completion:
    return harness.whole(
        case.provider.name,
        answer,
        to={"via": case.mode},
        model=case.model,
        prompt=PROMPT,
        **params,
    )


def read_stream(case: ModeCase, events: Iterable[Event]) -> Sequence[Completion]:
    return harness.streamed(
        case.provider.name,
        events,
        to={"via": case.mode},
        model=case.model,
        prompt=PROMPT,
        stream_options={"include_usage": True},
    )


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def counted_right(usage: Usage | None) -> bool:
    """Whether the counts are those of the recordings, without reasoning tokens."""
    if usage is None or usage.estimated:
        return True
    text_tokens = usage.completion_tokens - usage.reasoning_tokens
    return (usage.prompt_tokens, text_tokens) == (5, 3)


# Names


def test_portkey_names_are_complete() -> None:
    assert set(PROVIDERS) == set(KNOWN_NAMES)


@EVERY_PROVIDER
def test_provider_links_its_documentation(provider: Provider) -> None:
    assert provider.docs.startswith("https://") or provider.unsupported_because


@EVERY_PROVIDER
def test_provider_without_modes_has_reason(provider: Provider) -> None:
    assert bool(provider.modes) != bool(provider.unsupported_because)


RETIRED = [name for name, provider in PROVIDERS.items() if provider.retired_because]


@pytest.mark.parametrize("name", RETIRED)
def test_retired_provider_needs_custom_host(
    name: str,
) -> None:
    with pytest.raises(UnsupportedProvider, match=PROVIDERS[name].retired_because[:20]):
        harness.plan(name, to={"base_url": None})

    assert harness.calls(name)[0].url.startswith("http://upstream/")


# Addresses


TEMPLATES = [p for p in PROVIDERS.values() if "{" in p.base_url]


@pytest.mark.parametrize("provider", TEMPLATES, ids=lambda p: p.name)
def test_address_template_uses_settings(provider: Provider) -> None:
    places = re.findall(r"{(\w+)}", provider.base_url)
    chosen = harness.target(
        provider.name, base_url=None, options=dict.fromkeys(places, "eu-west-1")
    )

    assert set(places) <= {setting.name for setting in provider.settings}
    assert urlsplit(provider.address(chosen)).hostname
    assert provider.address(chosen).count("eu-west-1") == len(places)


@pytest.mark.parametrize("provider", TEMPLATES, ids=lambda p: p.name)
@pytest.mark.parametrize(
    "value", ["", "a/b", "a@b", "a:1", "..", "a.", "é", "a b", "x" * 300, 5.5, None]
)
def test_invalid_setting_cannot_change_host(provider: Provider, value: Any) -> None:
    places = re.findall(r"{(\w+)}", provider.base_url)
    options = dict.fromkeys(places, value)
    chosen = harness.target(provider.name, base_url=None, options=options)
    if value == 5.5:
        assert "5.5" in provider.address(chosen)
        return
    with pytest.raises(InvalidRoute) as refused:
        provider.address(chosen)
    assert places[0] in refused.value.message


@EVERY_PROVIDER
def test_settings_have_portkey_headers(provider: Provider) -> None:
    for setting in provider.settings:
        assert setting.headers[0].startswith("x-portkey-")


# Requests


@EVERY_MODE
def test_required_params_reach_upstream(case: ModeCase) -> None:
    chosen_plan = plan(case, max_tokens=5)
    upstream = chosen_plan.upstream_request(chosen_plan.parts[0], chosen_plan.target)
    call = upstream.endpoint.call(upstream)
    body = json.loads(call.body or b"")

    assert call.method == "POST" and call.url.startswith("http://upstream/")
    assert call.headers["Content-Type"] == "application/json"
    assert json.dumps(PROMPT)[1:-1] in json.dumps(body)
    assert stands_at(body, chosen_plan.params["max_tokens"].name) == 5
    assert names_model(case, unquote(call.url) + json.dumps(body))


@EVERY_MODE
@pytest.mark.parametrize("name", VALUES)
def test_param_is_mapped_or_dropped(case: ModeCase, name: str) -> None:
    value, params = VALUES[name], plan(case).params
    (body,) = sent(case, **{name: value})
    dropped = plan(case, **{name: value}).dropped

    if name in params:
        assert stands_at(body, params[name].name) == params[name].convert(value)
        assert dropped == []
    else:
        assert dropped == [name]
        assert name not in body


@EVERY_MODE
def test_value_out_of_range_is_dropped(case: ModeCase) -> None:
    chosen_plan = plan(case, temperature=2, seed=-1)
    for name, value in (("temperature", 2), ("seed", -1)):
        param = case.endpoint.params.get(name)
        fits = param is not None and param.fits(value)
        assert (name in chosen_plan.dropped) != fits
        if fits and param:
            (body,) = sent(case, **{name: value})
            assert stands_at(body, param.name) == param.convert(value)


@EVERY_MODE
def test_strict_params_refuse_unsupported(case: ModeCase) -> None:
    for name, value in VALUES.items():
        if name in case.endpoint.params:
            continue
        with pytest.raises(UnsupportedParameter) as refused:
            plan(case, to={"strict_params": True}, **{name: value})
        assert refused.value.param == name


@EVERY_MODE
@pytest.mark.parametrize("name, value", [("logprobs", 0), ("suffix", "THE END")])
def test_essential_param_is_refused_by_name(
    case: ModeCase, name: str, value: Any
) -> None:
    if name in case.endpoint.params:
        assert sent(case, **{name: value}) != sent(case)
        return
    with pytest.raises(UnsupportedParameter) as refused:
        plan(case, **{name: value})
    assert refused.value.param == name
    assert case.provider.name in refused.value.message


@EVERY_MODE
def test_gateway_emulates_missing_params(case: ModeCase) -> None:
    chosen_plan = plan(case, echo=True, n=3, stop=["\n", "END"], stream_options={})
    shape = chosen_plan.shape(chosen_plan.parts[0])
    body = sent(case, echo=True, n=3, stop=["\n", "END"])[0]
    params = case.endpoint.params

    assert chosen_plan.dropped == []
    assert shape.echo == ("echo" not in params)
    takes_stops = "stop" in params and params["stop"].fits(["\n", "END"])
    assert bool(shape.stops) != takes_stops
    assert sum(part.request.n for part in chosen_plan.parts) == 3
    assert "best_of" not in body and ("n" in params or "n" not in body)


@EVERY_MODE
def test_best_of_is_ranked_or_refused(case: ModeCase) -> None:
    able = {"best_of", "logprobs"} & set(case.endpoint.params)
    if able:
        assert plan(case, best_of=3).dropped == []
        return
    with pytest.raises(UnsupportedParameter) as refused:
        plan(case, best_of=3)
    assert refused.value.param == "best_of"


@EVERY_MODE
def test_default_values_are_never_refused(case: ModeCase) -> None:
    defaults = {
        "best_of": 1,
        "echo": False,
        "frequency_penalty": 0,
        "logit_bias": {},
        "n": 1,
        "presence_penalty": 0,
        "stop": [],
        "suffix": "",
        "temperature": 1,
        "top_p": 1,
    }
    chosen_plan = plan(case, to={"strict_params": True}, **defaults)

    assert chosen_plan.dropped == []


@EVERY_MODE
def test_unknown_param_is_passed_or_dropped(case: ModeCase) -> None:
    (body,) = sent(case, grammar_of_nobody=1)

    passed = body.get("grammar_of_nobody") == 1
    assert passed == case.endpoint.passes_unknown
    assert plan(case, grammar_of_nobody=1).dropped == (
        [] if passed else ["grammar_of_nobody"]
    )


@EVERY_MODE
def test_prompt_batch_is_sent_or_split(case: ModeCase) -> None:
    bodies = [json.dumps(body) for body in sent(case, prompt=["one", "two"])]

    if case.endpoint.takes_batches:
        assert len(bodies) == 1 and "one" in bodies[0] and "two" in bodies[0]
    else:
        assert ["one" in body for body in bodies] == [True, False]
        assert ["two" in body for body in bodies] == [False, True]


@EVERY_MODE
def test_token_ids_are_sent_or_refused(case: ModeCase) -> None:
    if case.endpoint.takes_token_ids:
        assert sent(case, prompt=[5, 6])[0]["prompt"] == [5, 6]
        return
    with pytest.raises(UnsupportedParameter) as refused:
        plan(case, prompt=[5, 6])
    assert refused.value.param == "prompt"


@EVERY_MODE
def test_null_prompt_is_sent_or_refused(case: ModeCase) -> None:
    if case.endpoint.takes_null_prompt:
        assert sent(case, prompt=None)[0]["prompt"] is None
        return
    with pytest.raises(InvalidRequest) as refused:
        plan(case, prompt=None)
    assert refused.value.param == "prompt"


@EVERY_MODE
def test_call_leaves_request_unchanged(case: ModeCase) -> None:
    """The call is built again on every retry."""
    chosen_plan = plan(
        case, stop=["a"], seed=5, max_tokens=0, logit_bias={"1": 2}, top_k=1
    )
    upstream = chosen_plan.upstream_request(chosen_plan.parts[0], chosen_plan.target)
    before = copy.deepcopy(upstream.request)
    first = upstream.endpoint.call(upstream)

    assert upstream.request == before
    assert upstream.endpoint.call(upstream) == first


@EVERY_MODE
def test_key_appears_in_header_only(case: ModeCase) -> None:
    chosen_plan = plan(case)
    upstream = chosen_plan.upstream_request(chosen_plan.parts[0], chosen_plan.target)
    call = upstream.endpoint.call(upstream)
    holding = [name for name, value in call.headers.items() if KEY in value]

    # Some endpoints of Azure's Foundry read one of them, some the other.
    assert len(holding) == (2 if case.provider.name == "azure-ai" else 1)
    assert KEY not in call.url and KEY.encode() not in (call.body or b"")
    assert KEY not in repr(call) + repr(chosen_plan) + repr(upstream)


@EVERY_MODE
def test_target_headers_override_others(case: ModeCase) -> None:
    chosen_plan = plan(
        case, to={"headers": {"AUTHORIZATION": "Basic x", "x-more": "y"}}
    )
    upstream = chosen_plan.upstream_request(chosen_plan.parts[0], chosen_plan.target)
    headers = upstream.endpoint.call(upstream).headers

    named = {name.lower(): value for name, value in headers.items()}
    assert len(named) == len(headers)
    assert (named["authorization"], named["x-more"]) == ("Basic x", "y")


# Answers


@EVERY_MODE
def test_whole_answer_is_read(case: ModeCase) -> None:
    answered = read_whole(case, case.whole)

    (choice,) = answered.choices
    assert (choice.text, choice.index, choice.finish_reason) == (TEXT, 0, "stop")
    assert choice.logprobs is None
    assert answered.id and answered.created and answered.model
    assert counted_right(answered.usage)


@EVERY_MODE
@settings(max_examples=15)
@given(data=st.data())
def test_stream_reads_same_however_cut(case: ModeCase, data: Any) -> None:
    whole, (decode, recorded) = read_whole(case, case.whole), case.stream
    places = data.draw(st.lists(st.integers(0, len(recorded)), max_size=8))
    pieces = read_stream(case, decode(cut(recorded, places), 2**20))
    choices = [choice for piece in pieces for choice in piece.choices]

    assert "".join(choice.text for choice in choices) == TEXT
    assert [c.finish_reason for c in choices if c.finish_reason] == ["stop"]
    assert choices[-1].finish_reason and {c.index for c in choices} == {0}
    assert len({(p.id, p.created, p.model) for p in pieces}) == 1
    counted = [piece.usage for piece in pieces if piece.usage]
    assert len(counted) <= 1 and not (counted and pieces[-1].choices)
    if counted and whole.usage and not whole.usage.estimated:
        assert counted[0].estimated or counted[0] == whole.usage


@EVERY_MODE
def test_stream_reads_same_bytewise(case: ModeCase) -> None:
    decode, recorded = case.stream
    bytewise = read_stream(case, decode((bytes([b]) for b in recorded), 2**20))

    assert bytewise == read_stream(case, decode([recorded], 2**20))


@EVERY_MODE
def test_truncated_stream_ends_in_error(case: ModeCase) -> None:
    """Truncated means: before the event with the finish reason."""
    decode, recorded = case.stream
    events = list(decode([recorded], 2**20))
    last = _deciding(case, events)

    for count in range(last):
        with pytest.raises(UpstreamError):
            read_stream(case, events[:count])
    assert read_stream(case, events[: last + 1])


def _deciding(case: ModeCase, events: list[Event]) -> int:
    """The number of the first event after which a stream counts as whole."""
    for count in range(len(events)):
        try:
            read_stream(case, events[: count + 1])
        except UpstreamError:
            continue
        return count
    raise AssertionError("no part of the recording is a whole stream")


# Triton's servers send neither a finish reason nor an end event.
SAY_THEIR_END = [case for case in MODE_CASES if case.provider.name != "triton"]


@pytest.mark.parametrize("case", SAY_THEIR_END, ids=str)
def test_stream_without_ending_is_cut(case: ModeCase) -> None:
    decode, recorded = case.stream
    events = list(decode([recorded], 2**20))
    count = 0
    for count in range(1, len(events) + 1):  # noqa: B007 - the count is looked at
        if b"course" in events[count - 1].data:
            break

    assert _deciding(case, events) >= count - 1


@EVERY_MODE
@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{", b"null", b'{"choices": []}', b"\xff\xfe", b"<html>"],
    ids=repr,
)
def test_malformed_answer_is_upstream_error(case: ModeCase, answer: bytes) -> None:
    with pytest.raises(UpstreamError):
        read_whole(case, answer)
    with pytest.raises(UpstreamError):
        read_stream(case, [Event(answer)])


@EVERY_PROVIDER
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"boom",
        b'{"error": {"message": "boom"}}',
        b'{"error": "boom", "error_type": "t"}',
        b'{"object": "error", "message": "boom", "code": 400}',
        b'{"detail": [{"loc": ["body", "n"], "msg": "boom"}]}',
        b'{"message": "boom"}',
        b'{"errors": [{"code": 1, "message": "boom"}]}',
        b'[{"error": {"message": "boom", "status": "INVALID_ARGUMENT"}}]',
        b"[]",
        b"\xff",
    ],
    ids=repr,
)
def test_error_body_yields_message(provider: Provider, body: bytes) -> None:
    error = provider.error(500, body)

    assert error.status == 500 and error.message
    assert "boom" in error.message or b"boom" not in body
    assert set(error.to_body()["error"]) == {"message", "type", "param", "code"}


# Declarations


@EVERY_MODE
def test_first_mode_is_the_default(
    case: ModeCase,
) -> None:
    first = next(iter(case.provider.modes))

    assert harness.plan(case.provider.name, model=case.model).mode == first
    with pytest.raises(UnsupportedProvider):
        missing = next(
            (mode for mode in CompletionMode if mode not in case.provider.modes), None
        )
        if missing is None:
            raise UnsupportedProvider("it has them all")
        harness.plan(case.provider.name, to={"via": missing})


@EVERY_MODE
def test_declaration_is_consistent(case: ModeCase) -> None:
    params = case.endpoint.params

    assert "max_tokens" in params
    assert {"model", "prompt", "stream"}.isdisjoint(params)
    assert case.endpoint.choices_per_call == 1 or "n" in params
    assert set(EMULATED) <= set(LEGACY_PARAMS)
