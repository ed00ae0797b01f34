"""The ledger's row of each request, and the commands that read it."""

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.store import factory
from tests.cli_runner import Operator
from tests.conftest import Caller, read_until
from tests.store.test_ledger import row
from tests.upstream import (
    DONE,
    completion,
    cut_stream,
    data,
    frame,
    reply,
    stream,
    whole,
)

PROMPT = "a prompt that is nobody's business"
TEXT = "an answer that is nobody's business"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ledger=True)


def entered(caller: Caller) -> list[dict[str, Any]]:
    """The rows, after all answers are sent."""
    caller.leave()
    file = Path(caller.app.extensions["lastword.settings"].instance) / "gateway.db"
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute("SELECT * FROM requests")]
    connection.close()
    return rows


def only(caller: Caller, **expected: Any) -> dict[str, Any]:
    """The only row, which has the *expected* values."""
    (row,) = entered(caller)
    assert {name: row[name] for name in expected} == expected
    return row


def test_whole_answer_is_recorded_with_usage(call, script) -> None:
    caller = call(script(whole(completion(TEXT, usage=USAGE))))
    sent = {"x-portkey-trace-id": "t-1"}
    caller.complete(prompt=PROMPT, model="gpt-3.5-turbo-instruct", headers=sent)

    row = only(
        caller,
        ended="whole",
        status=200,
        provider="openai",
        model="gpt-3.5-turbo-instruct",
        stream=0,
        attempts=1,
        prompt_tokens=7,
        completion_tokens=3,
        estimated=0,
        trace_id="t-1",
        cost_micros=17,
    )
    assert 0 <= row["first"] <= row["took"] < 60
    assert "nobody" not in str(row)


def test_cached_answer_is_recorded_without_usage(call, script) -> None:
    caller = call(script(whole(completion(TEXT, usage=USAGE))))
    caller.headers["x-portkey-config"] = json.dumps({"cache": {"mode": "simple"}})
    for _ in range(2):
        caller.complete(prompt=PROMPT, model="gpt-3.5-turbo-instruct")
    first, second = entered(caller)

    names = ("cache", "prompt_tokens", "completion_tokens", "cost_micros", "status")
    assert [first[name] for name in names] == ["MISS", 7, 3, 17, 200]
    assert [second[name] for name in names] == ["HIT", 0, 0, None, 200]


def test_failed_attempts_cost_is_recorded(call, script) -> None:
    """A provider that timed out may bill its answer, and so does the next one."""
    caller = call(script([0.3], whole(completion(TEXT, usage=USAGE))))
    target = {"provider": "openai"}
    slow = {**target, "request_timeout": 100}
    config = {"strategy": {"mode": "fallback"}, "targets": [slow, target]}
    caller.headers["x-portkey-config"] = json.dumps(config)
    caller.complete(prompt="x" * 40, model="gpt-3.5-turbo-instruct", max_tokens=5)

    only(caller, status=200, attempts=2, prompt_tokens=10 + 7, completion_tokens=5 + 3)


def test_estimated_usage_is_recorded(call, script) -> None:
    answer = completion(TEXT)
    answer.pop("usage")
    caller = call(script(whole(answer)))
    caller.complete(prompt=PROMPT)

    row = only(caller, estimated=1)
    assert row["prompt_tokens"] > 3 and row["completion_tokens"] > 3


def test_stream_is_recorded_at_its_end(call, script) -> None:
    usage_chunk = data(frame("", choices=[], usage=USAGE))
    caller = call(
        script(stream(data(frame("Hel")), data(frame("lo", "stop")), usage_chunk, DONE))
    )
    caller.complete(stream=True).get_data()

    only(caller, ended="whole", stream=1, prompt_tokens=7, completion_tokens=3)


def test_truncated_stream_is_recorded_as_such(call, script) -> None:
    caller = call(script(cut_stream(data(frame("Hel")), data(frame("lo")))))
    caller.complete(stream=True).get_data()

    only(caller, ended="cut", status=200, completion_tokens=2, estimated=1)


def test_hang_up_is_recorded_with_usage(call, script) -> None:
    caller = call(script(stream(*[data(frame("x"))] * 3, DONE)))
    response = caller.complete(stream=True)
    next(response.iter_encoded())
    response.close()

    # The upstream may have sent more than the caller read.
    assert 1 <= only(caller, ended="left", estimated=1)["completion_tokens"] <= 3


def test_late_hang_up_is_recorded_as_complete(call, script) -> None:
    """Some clients do not wait for `[DONE]`."""
    frames = [data(frame("Hel")), data(frame("lo", "stop"))]
    caller = call(script(stream(*frames, DONE)))
    response = caller.complete(stream=True)
    assert read_until(response, marker=b'"stop"').startswith(b"".join(frames))
    response.close()

    only(caller, ended="whole")


def test_failure_is_recorded_with_attempts(call, script) -> None:
    caller = call(script(whole({"error": {"message": "no"}}, 500)))
    target = {"provider": "openai"}
    config = {"strategy": {"mode": "fallback"}, "targets": [target, target]}
    caller.headers["x-portkey-config"] = json.dumps(config)
    caller.complete()

    only(
        caller,
        ended="failed",
        status=500,
        model="m",
        attempts=2,
        target="config.targets[1]",
        completion_tokens=0,
    )


@pytest.mark.parametrize("many", [2**70, 2**63, 10**30])
def test_absurd_usage_spoils_no_record(call, script, many) -> None:
    usage = {**USAGE, "completion_tokens": many}
    caller = call(script(whole(completion(usage=usage))))
    caller.complete()
    caller.complete(model="m\0\0m" + "x" * 300)

    first, second = entered(caller)
    assert first["completion_tokens"] <= 2**62
    assert second["model"] == ("mm" + "x" * 300)[:200]


def test_refused_request_is_not_recorded(call, script):
    caller = call(script(whole(completion())))
    caller.complete(max_tokens=-2)
    caller.complete()

    assert len(entered(caller)) == 1


# flask usage


def test_usage_has_three_output_formats(
    call: Callable[..., Caller], script: Any, settings: Settings
) -> None:
    caller = call(script(whole(completion(usage=USAGE))))
    for model in ("a", "a", "b"):
        caller.complete(model=model)
    caller.leave()
    operator = Operator(settings)

    shown = operator("usage", "--by", "model").splitlines()
    assert shown[0].split()[:3] == ["group", "requests", "failed"]
    assert [line.split()[:2] for line in shown[1:]] == [["a", "2"], ["b", "1"]]
    assert operator.json("usage", "--by", "model")[0] == {
        "group": "a",
        "requests": 2,
        "failed": 0,
        "cached": 0,
        "prompt_tokens": 14,
        "completion_tokens": 6,
        "cost": 0.0,
    }
    table = csv.DictReader(io.StringIO(operator("usage", "--by", "provider", "--csv")))
    assert [(row["group"], row["requests"]) for row in table] == [("openai", "3")]
    assert operator.json("usage", "--since", "2100-01-01") == []
    assert "2026-11-01" not in operator("usage", "--since", "2100-01-01")


@pytest.mark.parametrize(
    "micros, shown",
    [(450, "0.00045"), (1, "0.000001"), (12_500_000, "12.5"), (None, "0")],
)
def test_costs_have_six_decimals(
    settings: Settings, micros: int | None, shown: str
) -> None:
    ledger = factory.ledger(settings)
    ledger.add(row(cost_micros=micros))
    ledger.close()
    operator = Operator(settings)

    heading, line = operator("usage").splitlines()
    assert (heading.split()[-1], line.split()[-1]) == ("cost", shown)
    assert operator("usage", "--csv").strip().endswith(f",{shown}")


def test_invalid_usage_options_are_explained(settings: Settings) -> None:
    operator = Operator(settings)

    assert "'planet' is not one of" in operator.refused("usage", "--by", "planet")
    assert "2027-01-31" in operator.refused("usage", "--since", "yesterday")


# Attempts of a request


def test_direct_request_has_no_details(call, script) -> None:
    caller = call(script(whole(completion(TEXT, usage=USAGE))))
    caller.complete()

    only(caller, story=None, via="native", error=None)


def test_request_details_list_attempts_and_drops(call, script) -> None:
    secret = {"error": {"message": f"we do not like: {PROMPT}"}}
    bad, good = script(whole(secret, 503)), script(whole(reply(TEXT)))
    openai = {"provider": "openai", "api_key": "k"}
    seedless = {"model_info": {"lacks": ["seed"]}, "via": "chat"}
    targets = [
        openai | {"custom_host": bad.url},
        openai | {"custom_host": good.url} | seedless,
    ]
    caller = call(bad)
    del caller.headers["x-portkey-provider"], caller.headers["x-portkey-custom-host"]
    caller.headers["x-portkey-config"] = json.dumps(
        {
            "strategy": {"mode": "fallback"},
            "targets": targets,
            "model_aliases": {"old": {"model": "new"}},
        }
    )
    caller.complete(model="old", prompt=PROMPT, seed=4)
    entered = only(caller, via="chat", error=None, model="new")
    story = json.loads(entered["story"])

    assert [each[:3] for each in story["tries"]] == [
        ["config.targets[0]", "openai", 503],
        ["config.targets[1]", "openai", 200],
    ]
    (_, _, _, first, took), (_, _, _, second, _) = story["tries"]
    assert 0 <= first <= first + took <= second + 1
    assert story["alias"] == "old -> new" and story["dropped"] == ["seed"]
    assert PROMPT not in entered["story"]


def test_failure_is_recorded_by_code(call, script) -> None:
    error = {"message": f"no: {PROMPT}", "code": "model_not_found"}
    caller = call(script(whole({"error": error}, 404)))
    caller.complete()

    only(caller, error="model_not_found", status=404, story=None)
