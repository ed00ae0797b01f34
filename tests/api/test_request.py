"""The request body: what is accepted, and the errors for what is not.

Numbers are those of the cases in docs/contract.md.
"""

import json
import socket
from typing import Any

import pytest
from flask import Request

from app.api.request.body import json_object
from app.errors import InvalidRequest
from tests.conftest import Absent, Caller
from tests.upstream import Upstream, completion, repeated, scored_completion, whole

# Cases 1-9: a plain completion


def test_1_completion_has_contract_shape(caller: Caller) -> None:
    response = caller.complete(max_tokens=5)

    assert response.status_code == 200
    assert response.json["object"] == "text_completion"
    choice = {"text": " there", "index": 0, "logprobs": None, "finish_reason": "stop"}
    assert response.json["choices"] == [choice]


def test_3_model_and_id_are_upstreams(caller: Caller) -> None:
    answer = caller.complete(model="gpt-3.5-turbo-instruct").json

    assert answer["model"] == "gpt-3.5-turbo-instruct:20230824-v2"
    assert answer["id"] == "cmpl-upstream"


def test_valid_answer_passes_byte_for_byte(call, script) -> None:
    body = json.dumps(completion("é\u2028🎉", extra={"a": 1.50}), indent=2).encode()
    caller = call(script(whole(body)))

    assert caller.complete().get_data() == body


def test_4_content_type_and_request_id_are_set(call, script) -> None:
    named = call(script(whole(completion(), 200, "x-request-id: req_1"))).complete()
    unnamed = call(script(whole(completion()))).complete()

    assert named.content_type == "application/json"
    assert named.headers["x-request-id"] == "req_1"
    assert unnamed.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("prompt", ["", None], ids=["5 empty", "6 null"])
def test_5_6_null_and_empty_prompts_pass_unchanged(
    caller: Caller, upstream: Upstream, prompt: str | None
) -> None:
    assert caller.complete(prompt=prompt).status_code == 200
    assert upstream.last.json["prompt"] == prompt


def test_7_missing_prompt_is_named(caller: Caller) -> None:
    error = caller.complete(prompt=Absent).json["error"]

    assert (error["param"], error["type"]) == ("prompt", "invalid_request_error")


def test_8_missing_model_is_named(caller: Caller) -> None:
    response = caller.complete(model=Absent)

    assert response.status_code == 400
    assert response.json["error"]["message"] == "you must provide a model parameter"


def test_9_unicode_and_whitespace_pass_unchanged(
    caller: Caller, upstream: Upstream
) -> None:
    prompt = "  🎉 \u2028 é\u0301 \x00 tab\t \r\n\n  "
    caller.complete(prompt=prompt)

    assert upstream.last.json["prompt"] == prompt


# Cases 10-26: parameters


def test_10_null_means_absent(caller: Caller, upstream: Upstream) -> None:
    names = """best_of echo frequency_penalty logit_bias logprobs max_tokens n
    presence_penalty seed stop stream stream_options suffix temperature top_p
    user max_completion_tokens top_k""".split()

    assert caller.complete(**dict.fromkeys(names)).status_code == 200
    assert upstream.last.json == {"model": "m", "prompt": "Hi"}


def test_null_is_refused_where_not_nullable(caller: Caller) -> None:
    error = caller.complete(model=None).json["error"]

    assert (error["param"], error["code"]) == ("model", "invalid_type")


@pytest.mark.parametrize("value", [{}, {"max_tokens": None}], ids=["absent", "null"])
def test_11_absent_max_tokens_gets_default(
    call, upstream: Upstream, value: dict[str, None]
) -> None:
    response = call(upstream, default_max_tokens=100).complete(**value)

    assert upstream.last.json["max_tokens"] == 100
    assert response.headers["x-lastword-applied-defaults"] == "max_tokens=100"


def test_11_max_tokens_without_default_stays_absent(
    caller: Caller, upstream: Upstream
) -> None:
    response = caller.complete()

    assert "max_tokens" not in upstream.last.json
    assert "x-lastword-applied-defaults" not in response.headers


def test_12_zero_max_tokens_is_a_value(call, upstream: Upstream) -> None:
    call(upstream, default_max_tokens=100).complete(max_tokens=0, echo=True)

    assert upstream.last.json["max_tokens"] == 0


def test_13_first_invalid_field_is_reported(caller: Caller, upstream: Upstream) -> None:
    response = caller.complete(max_tokens=-1, temperature=3, prompt="")

    assert response.status_code == 400
    assert response.json["error"] == {
        "message": "Invalid 'max_tokens': integer below minimum value. "
        "Expected a value >= 0, but got -1 instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "integer_below_min_value",
    }
    assert upstream.requests == []


INTEGERS = ("best_of", "logprobs", "max_tokens", "n", "seed")
DECIMALS = ("frequency_penalty", "presence_penalty", "temperature", "top_p")


@pytest.mark.parametrize("value", ["5", 5.5, 1.0, True, [], {}], ids=repr)
@pytest.mark.parametrize("param", INTEGERS)
def test_14_integer_type_is_strict(caller: Caller, param: str, value) -> None:
    response = caller.complete(**{param: value})

    assert response.status_code == 400
    error = response.json["error"]
    assert (error["param"], error["code"]) == (param, "invalid_type")
    assert error["message"].startswith(f"Invalid type for '{param}': expected an int")


@pytest.mark.parametrize("value", ["1", True, [], {}], ids=repr)
@pytest.mark.parametrize("param", DECIMALS)
def test_number_type_is_strict(caller: Caller, param: str, value: Any) -> None:
    error = caller.complete(**{param: value}).json["error"]

    assert (error["param"], error["code"]) == (param, "invalid_type")


@pytest.mark.parametrize("value", ["yes", "true", 1, 0, []], ids=repr)
@pytest.mark.parametrize("param", ["echo", "stream"])
def test_boolean_type_is_strict(caller: Caller, param: str, value: Any) -> None:
    error = caller.complete(**{param: value}).json["error"]

    assert (error["param"], error["code"]) == (param, "invalid_type")


@pytest.mark.parametrize(
    "param, value, code",
    [
        ("temperature", 3, "decimal_above_max_value"),
        ("temperature", -0.1, "decimal_below_min_value"),
        ("top_p", 1.01, "decimal_above_max_value"),
        ("frequency_penalty", -2.5, "decimal_below_min_value"),
        ("presence_penalty", 2.5, "decimal_above_max_value"),
        ("n", 0, "integer_below_min_value"),
        ("n", 129, "integer_above_max_value"),
        ("logprobs", 21, "integer_above_max_value"),
        ("logprobs", -1, "integer_below_min_value"),
        ("best_of", 21, "integer_above_max_value"),
        ("seed", 2**63, "integer_above_max_value"),
        ("seed", -(2**63) - 1, "integer_below_min_value"),
    ],
)
def test_15_17_20_21_24_45_value_out_of_range_is_refused(
    caller: Caller, upstream: Upstream, param: str, value: float, code: str
) -> None:
    response = caller.complete(**{param: value})

    assert response.status_code == 400
    assert response.json["error"]["param"] == param
    assert response.json["error"]["code"] == code
    assert upstream.requests == []


@pytest.mark.parametrize(
    "param, value",
    [
        ("temperature", 0),
        ("temperature", 2),
        ("top_p", 0),
        ("top_p", 1),
        ("frequency_penalty", -2),
        ("presence_penalty", 2.0),
        ("n", 1),
        ("n", 128),
        ("logprobs", 0),
        ("logprobs", 20),
        ("seed", 2**63 - 1),
        ("seed", -1),
        ("seed", 0),
        ("best_of", 0),
        ("max_tokens", 0),
        ("echo", False),
        ("stop", "\n"),
        ("stop", ["a", "b", "c", "d"]),
        ("logit_bias", {"50256": -100}),
        ("logit_bias", {"50256": -100.0, "504": 0.5}),
        ("logit_bias", {}),
        ("user", "someone"),
        ("suffix", " end"),
        ("foo", 1),
        ("guided_json", {"type": "object", "nullable": None}),
    ],
    ids=str,
)
def test_16_18_22_25_26_value_in_range_passes_unchanged(
    caller: Caller, upstream: Upstream, param: str, value: Any
) -> None:
    answer = scored_completion() if param == "logprobs" else completion()
    count = value if param == "n" else 1
    upstream.answers[:] = [whole(repeated(answer, count))]

    assert caller.complete(**{param: value}).status_code == 200
    assert upstream.last.json[param] == value
    assert type(upstream.last.json[param]) is type(value)


@pytest.mark.parametrize(
    "bias", [{"x": 1}, {"1": 101}, {"1": "5"}, {"1": None}, {"1.5": 1}, {"-1": 1}, []]
)
def test_22_logit_bias_maps_ids_to_numbers(caller: Caller, bias: Any) -> None:
    response = caller.complete(logit_bias=bias)

    assert response.status_code == 400
    assert response.json["error"]["param"].startswith("logit_bias")


def test_23_five_stops_are_refused(caller: Caller) -> None:
    error = caller.complete(stop=list("abcde")).json["error"]

    assert (error["param"], error["code"]) == ("stop", "array_above_max_length")
    assert "maximum length 4, but got an array with length 5" in error["message"]


@pytest.mark.parametrize("stop", [[], "", [""]], ids=repr)
def test_23_empty_stop_is_dropped(caller: Caller, upstream: Upstream, stop) -> None:
    assert caller.complete(stop=stop).status_code == 200
    assert "stop" not in upstream.last.json


def test_empty_suffix_is_absent(caller: Caller, upstream: Upstream) -> None:
    assert caller.complete(suffix="", echo=True).status_code == 200
    assert "suffix" not in upstream.last.json


@pytest.mark.parametrize("value", [5, ["a"], {"a": 1}], ids=repr)
def test_25_user_must_be_a_string(caller: Caller, value: Any) -> None:
    assert caller.complete(user=value).json["error"]["param"] == "user"


# Cases 27-30: the body as such


@pytest.mark.parametrize("body", [b"[]", b"1", b'""', b"null", b"true"])
def test_27_body_must_be_an_object(caller: Caller, body: bytes) -> None:
    response = caller.post(body)

    assert response.status_code == 400
    assert "must be a JSON object" in response.json["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": NaN}',
        b'{"a": Infinity}',
        b"\xff\xfe",
        b'"\\ud800"',
        b'{"model":' * 100_000,
        b'{"model": "m", "prompt": "x", "foo": ' + b"[" * 300 + b"]" * 300 + b"}",
        b"[" * 1_000_000,
    ],
    ids=[
        "empty",
        "cut",
        "NaN",
        "Infinity",
        "bytes",
        "surrogate",
        "deep",
        "300 levels",
        "deeper",
    ],
)
def test_27_body_must_be_json(caller: Caller, body: bytes) -> None:
    response = caller.post(body)

    assert response.status_code == 400
    assert "could not parse the JSON body" in response.json["error"]["message"]
    assert response.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("levels, fits", [(249, True), (250, False), (253, False)])
@pytest.mark.parametrize("provider", ["openai", "bedrock", "google"])
def test_27_deepest_allowed_json_is_serialisable(
    caller: Caller, upstream: Upstream, provider: str, levels: int, fits: bool
) -> None:
    deep = b"[" * levels + b"]" * levels
    body = b'{"model": "m", "prompt": "x", "top_k": ' + deep + b"}"
    response = caller.post(body, headers={"x-portkey-provider": provider})

    assert (response.status_code == 400) is not fits
    assert bool(upstream.requests) is fits


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, identity", "x" * 999])
def test_28_compressed_body_is_refused(
    caller: Caller, upstream: Upstream, encoding: str
) -> None:
    response = caller.complete(headers={"Content-Encoding": encoding})

    assert response.status_code == 415
    assert response.json["error"]["code"] == "unsupported_content_encoding"
    assert upstream.requests == []


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_28_identity_encoding_is_accepted(caller: Caller, encoding: str) -> None:
    assert caller.complete(headers={"Content-Encoding": encoding}).status_code == 200


def test_stalled_body_times_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as arriving:
        environ = {"wsgi.input": arriving, "wsgi.input_terminated": True}
        theirs.sendall(b'{"model":')
        with pytest.raises(InvalidRequest) as refused:
            json_object(Request(environ | {"gunicorn.socket": ours}), {}, 1000, 0.05)

        assert (refused.value.status, refused.value.type) == (408, "timeout_error")
        assert ours.gettimeout() is None


@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data; boundary=x", "audio/wav", "x"]
)
def test_28_other_content_type_is_refused(
    caller: Caller, upstream: Upstream, content_type: str
) -> None:
    body = b'{"model": "m", "prompt": "Hi"}'
    response = caller.post(body, content_type=content_type)

    assert response.status_code == 400
    assert response.json["message"] == "Invalid content type passed"
    assert content_type.split(";")[0] in response.json["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", None]
)
def test_28_json_content_types_are_accepted(caller: Caller, content_type) -> None:
    body = b'{"model": "m", "prompt": "Hi"}'

    assert caller.post(body, content_type=content_type).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
def test_29_other_methods_get_allow_header(caller: Caller, method) -> None:
    response = caller.app.test_client().open("/v1/completions", method=method)

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    assert method == "HEAD" or response.json["error"]["code"] == "method_not_supported"


def test_29_unknown_path_is_json_error(caller: Caller) -> None:
    response = caller.get("/tokenizer_info")

    assert response.status_code == 404
    assert response.json["error"]["type"] == "invalid_request_error"


def test_30_prompt_of_10_mb_is_accepted(caller: Caller, upstream: Upstream) -> None:
    prompt = "x" * 10_000_000

    assert caller.complete(prompt=prompt).status_code == 200
    assert upstream.last.json["prompt"] == prompt


def test_30_body_above_limit_is_refused(caller: Caller, upstream) -> None:
    response = caller.complete(prompt="x" * (10 * 2**20))

    assert response.status_code == 413
    assert response.json["error"]["code"] == "request_too_large"
    assert upstream.requests == []


# Cases 31-34 and 42-50: batches, token ids, n, best_of, echo


@pytest.mark.parametrize(
    ("prompt", "count"),
    [(["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), (["one"], 1)],
    ids=str,
)
def test_31_32_33_batches_and_token_ids_are_one_call(
    caller: Caller, upstream: Upstream, prompt: list[Any], count: int
) -> None:
    upstream.answers[:] = [whole(repeated(completion(), 2 * count))]

    assert caller.complete(prompt=prompt, n=2).status_code == 200
    assert upstream.last.json["prompt"] == prompt
    assert upstream.last.json["n"] == 2
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "prompt",
    [[], [[]], [[1], []], [1, "a"], ["a", 1], [-1], [[-1]], [True], [[True]]]
    + [[None], [1.0], [2**63], 5, {"a": 1}, True, [[["a"]]], [["a"]]],
    ids=str,
)
def test_34_other_prompts_are_refused(caller: Caller, upstream, prompt: Any) -> None:
    response = caller.complete(prompt=prompt)

    assert response.status_code == 400
    assert response.json["error"]["param"] == "prompt"
    assert upstream.requests == []


def test_42_n_above_best_of_gets_openais_hint(caller: Caller) -> None:
    error = caller.complete(n=2, best_of=1).json["error"]

    assert "HINT: you must set 'n' (currently 2) to be at most 'best_of'" in (
        error["message"]
    )
    assert (error["param"], error["code"]) == (None, None)


def test_43_best_of_cannot_be_streamed(caller: Caller) -> None:
    error = caller.complete(best_of=3, n=1, stream=True).json["error"]

    assert error["param"] == "best_of"


def test_best_of_follows_n_when_it_is_absent(caller: Caller, upstream) -> None:
    upstream.answers[:] = [whole(repeated(completion(), 3))]

    assert caller.complete(n=3).status_code == 200
    assert "best_of" not in upstream.last.json


@pytest.mark.parametrize("logprobs", [None, 1], ids=["46", "47"])
def test_46_47_echo_is_passed_upstream(call, script, logprobs: int | None) -> None:
    scores = {"tokens": ["H", "i"], "token_logprobs": [None, -0.12345678901234567]}
    scores |= {"top_logprobs": [None, {"i": -1e-05}], "text_offset": [0, 1]}
    answer = json.dumps(completion("Hi there"))
    answer = answer.replace('"logprobs": null', f'"logprobs": {json.dumps(scores)}')
    upstream = script(whole(answer.encode()))
    response = call(upstream).complete(echo=True, logprobs=logprobs)

    assert upstream.last.json["echo"] is True
    assert response.get_data() == answer.encode()


def test_50_echo_with_suffix_is_refused(caller: Caller) -> None:
    response = caller.complete(echo=True, suffix="x")

    assert response.status_code == 400
    assert response.json["error"]["param"] == "suffix"


def test_66_stream_options_need_a_stream(caller: Caller) -> None:
    response = caller.complete(stream_options={"include_usage": True}, stream=False)

    assert response.status_code == 400
    assert response.json["error"]["param"] == "stream_options"


@pytest.mark.parametrize("options", [{"include_usage": 1}, [], "x", True], ids=repr)
def test_stream_options_types_are_checked(caller: Caller, options) -> None:
    response = caller.complete(stream=True, stream_options=options)

    assert response.json["error"]["code"] == "invalid_type"


# Case 117: older spellings


@pytest.mark.parametrize(
    "path",
    [
        "/v1//completions",
        "//v1/completions//",
        "/v1/completions/",
        "/completions",
        "/completions/",
        "/v1/engines/org/model-1/completions",
        "/engines/org/model-1/completions",
        "/openai/deployments/org/model-1/completions?api-version=2024-10-21",
    ],
)
def test_117_older_paths_are_equivalent(
    caller: Caller, upstream: Upstream, path: str
) -> None:
    model = Absent if "model-1" in path else "org/model-1"

    assert caller.complete(path, model=model).status_code == 200
    assert upstream.last.path == "/v1/completions"
    assert upstream.last.json["model"] == "org/model-1"


def test_117_model_in_body_overrides_path(caller: Caller, upstream) -> None:
    caller.complete("/v1/engines/in-path/completions", model="in-body")

    assert upstream.last.json["model"] == "in-body"


# Case 120 and the rest of what the issue asks


def test_120_preflight_is_answered_for_allowed_origin(call, upstream) -> None:
    caller = call(upstream, cors_origins=("https://app.example",))
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
    }
    preflight["Access-Control-Request-Headers"] = "authorization, x-portkey-provider"
    response = caller.app.test_client().options("/v1/completions", headers=preflight)

    assert response.status_code == 204
    granted = response.headers
    assert granted["Access-Control-Allow-Origin"] == "https://app.example"
    assert granted["Access-Control-Allow-Headers"] == (
        "authorization, x-portkey-provider"
    )
    assert "POST" in granted["Access-Control-Allow-Methods"]
    assert "x-request-id" in granted["Access-Control-Expose-Headers"]


def test_120_answer_exposes_headers_to_page(call, upstream) -> None:
    caller = call(upstream, cors_origins=("*",))
    response = caller.complete(headers={"Origin": "https://any.example"})

    assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"
    assert "x-request-id" in response.headers["Access-Control-Expose-Headers"]


def test_120_other_origins_get_nothing(call, upstream: Upstream) -> None:
    caller = call(upstream, cors_origins=("https://app.example",))
    response = caller.complete(headers={"Origin": "https://evil.example"})

    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"]
