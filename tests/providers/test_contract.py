"""What holds for every way of every provider."""

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
from app.providers.declaration import LEGACY_PARAMS

from . import talk
from .talk import KEY
from .ways import TEXT, WAYS, Asked

EVERY_WAY = pytest.mark.parametrize("asked", WAYS, ids=str)
EVERY_PROVIDER = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)

PROMPT = "Hi – there\n"

# A value of each parameter that is not its default, and that most providers take.
VALUES: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "presence_penalty": 0.5,
    "seed": 7,
    "temperature": 0.5,
    "top_p": 0.5,
    "user": "someone",
}

# What the gateway sees to where a provider cannot.
SEEN_TO = ("best_of", "echo", "n", "stop", "stream_options")


def plan(asked: Asked, **params: Any) -> Plan:
    to = {"via": asked.mode} | params.pop("to", {})
    return talk.plan(
        asked.provider.name, to=to, **{"prompt": PROMPT, "model": asked.model} | params
    )


def sent(asked: Asked, **params: Any) -> list[dict[str, Any]]:
    """The JSON of each call."""
    made = plan(asked, **params)
    asks = [made.ask(part, made.target) for part in made.parts]
    return [json.loads(ask.endpoint.call(ask).body or b"") for ask in asks]


def stands_at(body: dict[str, Any], path: str) -> Any:
    place: Any = body
    for name in path.split("."):
        place = place[name]
    return place


def names_model(asked: Asked, said: str) -> bool:
    """Whether the model is named; the address of a Triton server leads to one."""
    return asked.provider.name == "triton" or asked.model.rpartition(".")[2] in said


def read_whole(asked: Asked, answer: bytes, **params: Any) -> Completion:
    return talk.whole(
        asked.provider.name,
        answer,
        to={"via": asked.mode},
        model=asked.model,
        prompt=PROMPT,
        **params,
    )


def read_stream(asked: Asked, events: Iterable[Event]) -> Sequence[Completion]:
    return talk.streamed(
        asked.provider.name,
        events,
        to={"via": asked.mode},
        model=asked.model,
        prompt=PROMPT,
        stream_options={"include_usage": True},
    )


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def counted_right(usage: Usage | None) -> bool:
    """Whether the counts are those of the recordings; thoughts are counted besides."""
    if usage is None or usage.estimated:
        return True
    said = usage.completion_tokens - usage.reasoning_tokens
    return (usage.prompt_tokens, said) == (5, 3)


# Names


def test_every_name_of_portkey_is_known_here() -> None:
    assert set(PROVIDERS) == set(KNOWN_NAMES)


@EVERY_PROVIDER
def test_a_provider_says_where_its_documentation_is(provider: Provider) -> None:
    assert provider.docs.startswith("https://") or provider.absent


@EVERY_PROVIDER
def test_a_provider_without_text_says_why(provider: Provider) -> None:
    assert bool(provider.modes) != bool(provider.absent)


RETIRED = [name for name, provider in PROVIDERS.items() if provider.retired]


@pytest.mark.parametrize("name", RETIRED)
def test_a_service_that_is_gone_says_so_and_its_name_still_reaches_a_host(
    name: str,
) -> None:
    with pytest.raises(UnsupportedProvider, match=PROVIDERS[name].retired[:20]):
        talk.plan(name, to={"base_url": None})

    assert talk.calls(name)[0].url.startswith("http://upstream/")


# Addresses


TEMPLATES = [p for p in PROVIDERS.values() if "{" in p.base_url]


@pytest.mark.parametrize("provider", TEMPLATES, ids=lambda p: p.name)
def test_an_address_is_made_of_settings(provider: Provider) -> None:
    places = re.findall(r"{(\w+)}", provider.base_url)
    chosen = talk.target(
        provider.name, base_url=None, options=dict.fromkeys(places, "eu-west-1")
    )

    assert set(places) <= {setting.name for setting in provider.settings}
    assert urlsplit(provider.address(chosen)).hostname
    assert provider.address(chosen).count("eu-west-1") == len(places)


@pytest.mark.parametrize("provider", TEMPLATES, ids=lambda p: p.name)
@pytest.mark.parametrize(
    "value", ["", "a/b", "a@b", "a:1", "..", "a.", "é", "a b", "x" * 300, 5.5, None]
)
def test_a_setting_cannot_lead_an_address_astray(
    provider: Provider, value: Any
) -> None:
    places = re.findall(r"{(\w+)}", provider.base_url)
    options = dict.fromkeys(places, value)
    chosen = talk.target(provider.name, base_url=None, options=options)
    if value == 5.5:
        assert "5.5" in provider.address(chosen)
        return
    with pytest.raises(InvalidRoute) as refused:
        provider.address(chosen)
    assert places[0] in refused.value.message


@EVERY_PROVIDER
def test_its_settings_have_headers_of_portkeys(provider: Provider) -> None:
    for setting in provider.settings:
        assert setting.headers[0].startswith("x-portkey-")


# What is asked


@EVERY_WAY
def test_the_required_parameters_reach_upstream(asked: Asked) -> None:
    made = plan(asked, max_tokens=5)
    ask = made.ask(made.parts[0], made.target)
    call = ask.endpoint.call(ask)
    body = json.loads(call.body or b"")

    assert call.method == "POST" and call.url.startswith("http://upstream/")
    assert call.headers["Content-Type"] == "application/json"
    assert json.dumps(PROMPT)[1:-1] in json.dumps(body)
    assert stands_at(body, made.params["max_tokens"].name) == 5
    assert names_model(asked, unquote(call.url) + json.dumps(body))


@EVERY_WAY
@pytest.mark.parametrize("name", VALUES)
def test_a_parameter_is_said_in_its_own_words_or_dropped_and_named(
    asked: Asked, name: str
) -> None:
    value, params = VALUES[name], plan(asked).params
    (body,) = sent(asked, **{name: value})
    dropped = plan(asked, **{name: value}).dropped

    if name in params:
        assert stands_at(body, params[name].name) == params[name].write(value)
        assert dropped == []
    else:
        assert dropped == [name]
        assert name not in body


@EVERY_WAY
def test_a_value_that_it_does_not_take_is_dropped_and_never_bent(asked: Asked) -> None:
    taken = plan(asked, temperature=2, seed=-1)
    for name, value in (("temperature", 2), ("seed", -1)):
        param = asked.endpoint.params.get(name)
        fits = param is not None and param.fits(value)
        assert (name in taken.dropped) != fits
        if fits and param:
            (body,) = sent(asked, **{name: value})
            assert stands_at(body, param.name) == param.write(value)


@EVERY_WAY
def test_what_would_be_dropped_is_refused_by_who_is_strict(asked: Asked) -> None:
    for name, value in VALUES.items():
        if name in asked.endpoint.params:
            continue
        with pytest.raises(UnsupportedParameter) as refused:
            plan(asked, to={"strict_params": True}, **{name: value})
        assert refused.value.param == name


@EVERY_WAY
@pytest.mark.parametrize("name, value", [("logprobs", 0), ("suffix", "THE END")])
def test_what_the_answer_would_be_wrong_without_is_refused_by_name(
    asked: Asked, name: str, value: Any
) -> None:
    if name in asked.endpoint.params:
        assert sent(asked, **{name: value}) != sent(asked)
        return
    with pytest.raises(UnsupportedParameter) as refused:
        plan(asked, **{name: value})
    assert refused.value.param == name
    assert asked.provider.name in refused.value.message


@EVERY_WAY
def test_what_it_lacks_the_gateway_does(asked: Asked) -> None:
    made = plan(asked, echo=True, n=3, stop=["\n", "END"], stream_options={})
    shape = made.shape(made.parts[0])
    body = sent(asked, echo=True, n=3, stop=["\n", "END"])[0]
    params = asked.endpoint.params

    assert made.dropped == []
    assert shape.echo == ("echo" not in params)
    takes_stops = "stop" in params and params["stop"].fits(["\n", "END"])
    assert bool(shape.stops) != takes_stops
    assert sum(part.request.n for part in made.parts) == 3
    assert "best_of" not in body and ("n" in params or "n" not in body)


@EVERY_WAY
def test_the_best_of_several_is_ranked_or_refused(asked: Asked) -> None:
    able = {"best_of", "logprobs"} & set(asked.endpoint.params)
    if able:
        assert plan(asked, best_of=3).dropped == []
        return
    with pytest.raises(UnsupportedParameter) as refused:
        plan(asked, best_of=3)
    assert refused.value.param == "best_of"


@EVERY_WAY
def test_a_value_that_is_the_default_anyway_troubles_nobody(asked: Asked) -> None:
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
    made = plan(asked, to={"strict_params": True}, **defaults)

    assert made.dropped == []


@EVERY_WAY
def test_an_unknown_parameter_travels_on_or_is_named(asked: Asked) -> None:
    (body,) = sent(asked, grammar_of_nobody=1)

    passed = body.get("grammar_of_nobody") == 1
    assert passed == asked.endpoint.passes
    assert plan(asked, grammar_of_nobody=1).dropped == (
        [] if passed else ["grammar_of_nobody"]
    )


@EVERY_WAY
def test_prompts_of_a_batch_go_together_or_one_by_one(asked: Asked) -> None:
    bodies = [json.dumps(body) for body in sent(asked, prompt=["one", "two"])]

    if asked.endpoint.batches:
        assert len(bodies) == 1 and "one" in bodies[0] and "two" in bodies[0]
    else:
        assert ["one" in body for body in bodies] == [True, False]
        assert ["two" in body for body in bodies] == [False, True]


@EVERY_WAY
def test_token_ids_are_sent_as_they_are_or_refused(asked: Asked) -> None:
    if asked.endpoint.tokens:
        assert sent(asked, prompt=[5, 6])[0]["prompt"] == [5, 6]
        return
    with pytest.raises(UnsupportedParameter) as refused:
        plan(asked, prompt=[5, 6])
    assert refused.value.param == "prompt"


@EVERY_WAY
def test_no_prompt_at_all_is_sent_on_or_refused(asked: Asked) -> None:
    if asked.endpoint.null:
        assert sent(asked, prompt=None)[0]["prompt"] is None
        return
    with pytest.raises(InvalidRequest) as refused:
        plan(asked, prompt=None)
    assert refused.value.param == "prompt"


@EVERY_WAY
def test_a_call_leaves_the_request_unchanged(asked: Asked) -> None:
    """It is made again on every retry."""
    made = plan(asked, stop=["a"], seed=5, max_tokens=0, logit_bias={"1": 2}, top_k=1)
    ask = made.ask(made.parts[0], made.target)
    before = copy.deepcopy(ask.request)
    first = ask.endpoint.call(ask)

    assert ask.request == before
    assert ask.endpoint.call(ask) == first


@EVERY_WAY
def test_the_key_appears_in_its_header_only(asked: Asked) -> None:
    made = plan(asked)
    ask = made.ask(made.parts[0], made.target)
    call = ask.endpoint.call(ask)
    holding = [name for name, value in call.headers.items() if KEY in value]

    # Some endpoints of Azure's Foundry read one, some the other.
    assert len(holding) == (2 if asked.provider.name == "azure-ai" else 1)
    assert KEY not in call.url and KEY.encode() not in (call.body or b"")
    assert KEY not in repr(call) + repr(made) + repr(ask)


@EVERY_WAY
def test_headers_of_a_target_win(asked: Asked) -> None:
    made = plan(asked, to={"headers": {"AUTHORIZATION": "Basic x", "x-more": "y"}})
    ask = made.ask(made.parts[0], made.target)
    headers = ask.endpoint.call(ask).headers

    named = {name.lower(): value for name, value in headers.items()}
    assert len(named) == len(headers)
    assert (named["authorization"], named["x-more"]) == ("Basic x", "y")


# What is answered


@EVERY_WAY
def test_a_whole_answer_is_read(asked: Asked) -> None:
    answered = read_whole(asked, asked.whole)

    (choice,) = answered.choices
    assert (choice.text, choice.index, choice.finish_reason) == (TEXT, 0, "stop")
    assert choice.logprobs is None
    assert answered.id and answered.created and answered.model
    assert counted_right(answered.usage)


@EVERY_WAY
@settings(max_examples=15)
@given(data=st.data())
def test_a_stream_says_the_same_however_it_is_cut(asked: Asked, data: Any) -> None:
    whole, (decode, recorded) = read_whole(asked, asked.whole), asked.stream
    places = data.draw(st.lists(st.integers(0, len(recorded)), max_size=8))
    pieces = read_stream(asked, decode(cut(recorded, places), 2**20))
    choices = [choice for piece in pieces for choice in piece.choices]

    assert "".join(choice.text for choice in choices) == TEXT
    assert [c.finish_reason for c in choices if c.finish_reason] == ["stop"]
    assert choices[-1].finish_reason and {c.index for c in choices} == {0}
    assert len({(p.id, p.created, p.model) for p in pieces}) == 1
    counted = [piece.usage for piece in pieces if piece.usage]
    assert len(counted) <= 1 and not (counted and pieces[-1].choices)
    if counted and whole.usage and not whole.usage.estimated:
        assert counted[0].estimated or counted[0] == whole.usage


@EVERY_WAY
def test_a_stream_cut_byte_by_byte_says_the_same(asked: Asked) -> None:
    decode, recorded = asked.stream
    bytewise = read_stream(asked, decode((bytes([b]) for b in recorded), 2**20))

    assert bytewise == read_stream(asked, decode([recorded], 2**20))


@EVERY_WAY
def test_a_stream_that_ends_early_is_an_error(asked: Asked) -> None:
    """Early is: before the event that says why the text ended."""
    decode, recorded = asked.stream
    events = list(decode([recorded], 2**20))
    last = _deciding(asked, events)

    for count in range(last):
        with pytest.raises(UpstreamError):
            read_stream(asked, events[:count])
    assert read_stream(asked, events[: last + 1])


def _deciding(asked: Asked, events: list[Event]) -> int:
    """The number of the first event after which a stream counts as whole."""
    for count in range(len(events)):
        try:
            read_stream(asked, events[: count + 1])
        except UpstreamError:
            continue
        return count
    raise AssertionError("no part of the recording is a whole stream")


# Servers of Triton do not say why a text ended, or that it has.
SAY_THEIR_END = [asked for asked in WAYS if asked.provider.name != "triton"]


@pytest.mark.parametrize("asked", SAY_THEIR_END, ids=str)
def test_a_text_alone_is_no_whole_stream(asked: Asked) -> None:
    decode, recorded = asked.stream
    events = list(decode([recorded], 2**20))
    said = 0
    for said in range(1, len(events) + 1):  # noqa: B007 - the count is looked at
        if b"course" in events[said - 1].data:
            break

    assert _deciding(asked, events) >= said - 1


@EVERY_WAY
@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{", b"null", b'{"choices": []}', b"\xff\xfe", b"<html>"],
    ids=repr,
)
def test_an_answer_that_is_none_is_upstreams_fault(asked: Asked, answer: bytes) -> None:
    with pytest.raises(UpstreamError):
        read_whole(asked, answer)
    with pytest.raises(UpstreamError):
        read_stream(asked, [Event(answer)])


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
def test_an_error_body_yields_its_message(provider: Provider, body: bytes) -> None:
    error = provider.error(500, body)

    assert error.status == 500 and error.message
    assert "boom" in error.message or b"boom" not in body
    assert set(error.to_body()["error"]) == {"message", "type", "param", "code"}


# The declarations themselves


@EVERY_WAY
def test_the_first_way_is_taken_unless_something_speaks_for_another(
    asked: Asked,
) -> None:
    first = next(iter(asked.provider.modes))

    assert talk.plan(asked.provider.name, model=asked.model).mode == first
    with pytest.raises(UnsupportedProvider):
        missing = next(
            (way for way in CompletionMode if way not in asked.provider.modes), None
        )
        if missing is None:
            raise UnsupportedProvider("it has them all")
        talk.plan(asked.provider.name, to={"via": missing})


@EVERY_WAY
def test_what_the_gateway_decides_by_itself_is_declared(asked: Asked) -> None:
    params = asked.endpoint.params

    assert "max_tokens" in params
    assert {"model", "prompt", "stream"}.isdisjoint(params)
    assert asked.endpoint.choices == 1 or "n" in params
    assert set(SEEN_TO) <= set(LEGACY_PARAMS)
