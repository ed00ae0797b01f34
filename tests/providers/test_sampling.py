"""The sampling parameters of the embedded engine, besides the endpoint's own."""

from typing import Any

import pytest

from app.errors import InvalidRequest, UnsupportedParameter
from app.providers import sampling
from app.providers.sampling import CHAT_PARAMS
from tests.providers import harness

VALUES: dict[str, Any] = {
    "adaptive_decay": 0.9,
    "adaptive_target": 0.5,
    "cache_prompt": False,
    "dry_allowed_length": 2,
    "dry_base": 1.75,
    "dry_multiplier": 0.8,
    "dry_penalty_last_n": 64,
    "dynatemp_exponent": 1.0,
    "dynatemp_range": 0.5,
    "ignore_eos": True,
    "json_schema": {"type": "object", "properties": {"a": {"minItems": 2}}},
    "min_keep": 1,
    "min_p": 0.05,
    "mirostat": 2,
    "mirostat_eta": 0.1,
    "mirostat_tau": 5,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "samplers": ["top_k", "temperature"],
    "top_k": 40,
    "top_n_sigma": 1.5,
    "typical_p": 0.9,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.1,
}


@pytest.mark.parametrize("mode", ["native", "fim", "chat"])
def test_safe_parameters_reach_the_engine(mode: str) -> None:
    suffix = {"suffix": "x"} if mode == "fim" else {}
    sent = harness.body("local", to={"via": mode}, **VALUES, **suffix)

    assert {name: sent[name] for name in VALUES} == VALUES
    assert set(CHAT_PARAMS) - set(VALUES) == {"grammar", "response_format"}


def test_grammars_reach_the_engine_rewritten() -> None:
    sent = harness.body("local", grammar='root ::= "x"')

    assert sent["grammar"].startswith("%llguidance {}\nstart: r0\n")


UNSAFE = {
    "dry_sequence_breakers": ["x"] * 3000,
    "chat_template": "{% for i in range(10**9) %}{% endfor %}",
    "grammar_triggers": [{"type": 2, "value": "(a*)*b"}],
    "id_slot": 0,
    "lora": [],
    "messages": [{"role": "user", "content": "x" * 100}],
    "n_probs": 49152,
    "response_fields": ["a"],
}


@pytest.mark.parametrize("mode", ["native", "fim", "chat"])
@pytest.mark.parametrize("name", UNSAFE)
def test_unlisted_parameters_are_dropped(name: str, mode: str) -> None:
    params: dict[str, Any] = {name: UNSAFE[name]}
    params |= {"suffix": "x"} if mode == "fim" else {}
    plan = harness.plan("local", to={"via": mode}, **params)

    assert plan.dropped == [name]
    sent = harness.body("local", to={"via": mode}, **params)
    assert sent == harness.body("local", to={"via": mode}, **params | {name: None})
    with pytest.raises(UnsupportedParameter) as refused:
        harness.plan("local", to={"via": mode, "strict_params": True}, **params)
    assert refused.value.param == name


def test_custom_servers_get_unknown_parameters() -> None:
    sent = harness.body("llama-cpp", n_probs=5, grammar="root ::= x")

    assert (sent["n_probs"], sent["grammar"]) == (5, "root ::= x")


def nested(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


OUT_OF_BOUNDS: list[tuple[str, Any, str]] = [
    ("grammar", "root ::= " + "(" * 200_000, "200009 characters"),
    ("grammar", 5, "GBNF as text"),
    ("json_schema", "x", "expected a JSON schema"),
    ("json_schema", {"enum": ["x" * 17_000]}, "at most 16384"),
    ("json_schema", nested(40), "more than 32 levels"),
    ("json_schema", {"enum": [1] * 2001}, "at most 2000"),
    ("json_schema", {"anyOf": [{"$ref": "#"}] * 65}, "65 references"),
    ("json_schema", {"$ref": "https://127.0.0.1:1/x"}, "is not within it"),
    ("json_schema", {"items": {"minItems": 10**6}}, "minItems is 1000000"),
    ("json_schema", {"maxLength": 1e30}, "maxLength is 1e+30"),
    ("json_schema", {"minItems": -1}, "minItems is -1"),
    ("json_schema", {"pattern": "a" * 513}, "513 characters"),
    ("json_schema", {"patternProperties": {"a" * 513: {}}}, "513 characters"),
    ("logit_bias", {str(i): 1 for i in range(1025)}, "1025 entries"),
    ("dry_penalty_last_n", 2**31 - 1, "from 0 to 8192, not 2147483647"),
    ("repeat_last_n", -1, "from 0 to 8192, not -1"),
    ("repeat_penalty", 0, "from 0.01"),
    ("top_k", 1.5, "expected an integer"),
    ("top_k", True, "expected an integer"),
    ("min_p", "0.5", "expected a number from 0 to 1, not '0.5'"),
    ("ignore_eos", 1, "expected a boolean"),
    ("samplers", ["x"], "expected names of"),
    ("samplers", ["infill"], "expected names of"),
    ("samplers", [["top_k"]], "expected names of"),
    ("samplers", ["top_k"] * 17, "an array of 17"),
    ("samplers", ["top_k"] * 2, "every name once"),
]


@pytest.mark.parametrize("name, value, message", OUT_OF_BOUNDS)
def test_values_out_of_bounds_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        harness.plan("local", **{name: value})

    assert refused.value.param == name
    assert message in refused.value.message


@pytest.mark.parametrize(
    "value, message",
    [
        ("json", "expected an object"),
        ({"type": "xml"}, "text, json_object or json_schema"),
        ({"type": "json_schema"}, "needs json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": nested(40)}}, "32 levels"),
        ({"type": "json_object", "schema": nested(40)}, "32 levels"),
    ],
)
def test_response_formats_are_bounded(value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        harness.plan("local", to={"via": "chat"}, response_format=value)

    assert message in refused.value.message


def test_two_formats_exclude_each_other() -> None:
    with pytest.raises(InvalidRequest, match="cannot be combined"):
        sampling.check({"grammar": "root ::= .", "json_schema": {}})
