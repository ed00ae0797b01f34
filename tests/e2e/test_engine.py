"""The embedded engine: its answers, its start, restart and stop."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from app.server.engine_process import model_path
from app.settings import Settings
from tests import fim
from tests.soak import grammars

from .server import Server, alive, children, command_line, eventually

pytestmark = pytest.mark.e2e

FRANCE = "The capital of France is"
GREEDY: dict[str, Any] = {"prompt": FRANCE, "temperature": 0, "max_tokens": 8}


def complete(server: Server, **body: Any) -> dict[str, Any]:
    response = server.complete(**GREEDY | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def texts(answer: dict[str, Any]) -> list[str]:
    assert [c["index"] for c in answer["choices"]] == list(
        range(len(answer["choices"]))
    )
    return [choice["text"] for choice in answer["choices"]]


def counts(answer: dict[str, Any]) -> tuple[int, ...]:
    """Its usage, without cached tokens, which depend on earlier requests."""
    keys = ("prompt_tokens", "completion_tokens", "total_tokens")
    return tuple(answer["usage"][key] for key in keys)


def stream(server: Server, **body: Any) -> list[dict[str, Any]]:
    response = server.complete(**GREEDY | body, stream=True)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    lines = [line for line in response.iter_lines() if line]
    assert lines.pop() == b"data: [DONE]"
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def streamed_texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    texts_by_index: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        texts_by_index[choice["index"]] = (
            texts_by_index.get(choice["index"], "") + choice["text"]
        )
    return texts_by_index


def refused(server: Server, **body: Any) -> dict[str, Any]:
    response = server.complete(**GREEDY | body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


# Answers


def test_engine_completes_the_prompt(engine: Server) -> None:
    france, water = complete(engine), complete(engine, prompt="Water boils at")

    assert texts(france)[0].startswith(" Paris")
    assert texts(france) != texts(water)
    assert counts(france) == (5, 8, 13)
    assert france["id"].startswith("cmpl-") and france["object"] == "text_completion"


def test_stream_equals_whole_and_starts_early(engine: Server) -> None:
    whole = complete(engine, max_tokens=60)
    began = time.monotonic()
    response = engine.complete(**GREEDY | {"max_tokens": 60}, stream=True)
    arrivals = [(time.monotonic() - began, line) for line in response.iter_lines(1)]

    lines = [line for _, line in arrivals if line]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]
    assert streamed_texts(chunks) == {0: texts(whole)[0]}
    assert arrivals[0][0] < arrivals[-1][0] / 2


def test_unknown_model_uses_engine_model(engine: Server) -> None:
    answer = complete(engine, model="gpt-3.5-turbo-instruct")

    assert answer["model"] == "SmolLM2-135M-Instruct.Q4_1"


def test_batch_equals_single_prompts(engine: Server) -> None:
    prompts = [FRANCE, "Water boils at", "One, two, three,"]
    alone = [complete(engine, prompt=prompt) for prompt in prompts]
    batch = complete(engine, prompt=prompts)

    assert texts(batch) == [texts(answer)[0] for answer in alone]
    assert counts(batch) == tuple(map(sum, zip(*map(counts, alone), strict=True)))


def test_streamed_batch_equals_whole_batch(engine: Server) -> None:
    prompts = [FRANCE, "Water boils at"]
    whole = complete(engine, prompt=prompts, n=2)
    options = {"stream_options": {"include_usage": True}}
    *chunks, last = stream(engine, prompt=prompts, n=2, **options)

    assert streamed_texts(chunks) == dict(enumerate(texts(whole)))
    ends = [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(c["index"] for c in ends) == [0, 1, 2, 3]
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert (last["choices"], counts(last)) == ([], counts(whole))


def test_stream_omits_usage_by_default(engine: Server) -> None:
    assert not any("usage" in chunk for chunk in stream(engine))


def test_choices_may_exceed_engine_slots(engine: Server) -> None:
    answer = complete(engine, n=9, max_tokens=4, temperature=1, seed=7)

    assert len(texts(answer)) == 9
    assert len(set(texts(answer))) > 1
    assert answer["usage"]["prompt_tokens"] == 5
    assert answer["usage"]["completion_tokens"] <= 36


@pytest.mark.parametrize("streaming", [False, True])
def test_too_many_choices_are_refused(engine: Server, streaming) -> None:
    error = refused(engine, prompt=["a"] * 33, n=128, stream=streaming)

    assert (error["param"], error["code"]) == ("prompt", "too_many_completions")
    assert "at most 4096" in error["message"]


def test_seed_reproduces_answer(engine: Server) -> None:
    params = {"n": 2, "temperature": 1, "seed": 2**63 - 1}

    assert texts(complete(engine, **params)) == texts(complete(engine, **params))


def test_best_of_keeps_likeliest_choices(engine: Server) -> None:
    drawn = complete(engine, n=6, best_of=6, seed=3, temperature=1, logprobs=0)
    best = complete(engine, n=2, best_of=6, seed=3, temperature=1)

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return sum(values) / len(values)

    ranked = sorted(drawn["choices"], key=mean, reverse=True)
    assert texts(best) == [choice["text"] for choice in ranked[:2]]
    assert best["choices"][0]["logprobs"] is None
    assert counts(best) == counts(drawn)


def test_logprobs_have_legacy_shape(engine: Server) -> None:
    answer = complete(engine, logprobs=3)

    logprobs = answer["choices"][0]["logprobs"]
    assert {len(values) for values in logprobs.values()} == {8}
    assert set(logprobs) == {
        "tokens",
        "token_logprobs",
        "top_logprobs",
        "text_offset",
    }
    assert "".join(logprobs["tokens"]) == texts(answer)[0]
    assert logprobs["text_offset"][0] == len(FRANCE)
    assert {len(top) for top in logprobs["top_logprobs"]} == {3}
    likeliest = [max(top.values()) for top in logprobs["top_logprobs"]]
    assert logprobs["token_logprobs"] == likeliest


def test_echo_is_emulated_whole_and_streamed(engine: Server) -> None:
    plain, echoed = complete(engine), complete(engine, echo=True)

    assert texts(echoed)[0] == FRANCE + texts(plain)[0]
    assert streamed_texts(stream(engine, echo=True)) == {0: texts(echoed)[0]}
    assert counts(echoed) == counts(plain)


@pytest.mark.parametrize("echo, text", [(True, FRANCE), (False, "")])
def test_max_tokens_zero_generates_nothing(
    engine: Server, echo: bool, text: str
) -> None:
    answer = complete(engine, max_tokens=0, echo=echo)

    assert texts(answer) == [text]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0


def test_echo_with_logprobs_is_refused(engine: Server) -> None:
    error = refused(engine, echo=True, logprobs=1)

    assert (error["param"], error["code"]) == ("echo", "unsupported_parameter")


def test_suffix_needs_a_fim_model(engine: Server) -> None:
    error = refused(engine, prompt="def f(x):", suffix="return y")

    assert (error["param"], error["code"]) == ("suffix", "unsupported_parameter")


def test_stop_sequence_is_cut_off(engine: Server) -> None:
    full = texts(complete(engine))[0]
    stopped = complete(engine, stop=[full[3:6]])

    assert texts(stopped) == [full[:3]]
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_logit_bias_forbids_token(engine: Server) -> None:
    assert "Paris" not in texts(complete(engine, logit_bias={"7042": -100.0}))[0]


def test_token_ids_equal_text_prompt(engine: Server) -> None:
    ids = [504, 3575, 282, 4649, 314]

    assert texts(complete(engine, prompt=ids)) == texts(complete(engine))
    assert texts(complete(engine, prompt=[ids, ids])) == 2 * texts(complete(engine))


def test_empty_prompt_is_relayed(engine: Server) -> None:
    assert engine.complete(prompt="", max_tokens=1).status_code == 200


def test_prompt_beyond_context_is_refused(engine: Server) -> None:
    """The error has OpenAI's code."""
    error = refused(engine, prompt="word " * 5000)

    assert error["code"] == "context_length_exceeded"


def test_models_list_has_engine_model(engine: Server) -> None:
    models = engine.get("/v1/models").json()

    assert [m["id"] for m in models["data"]] == ["SmolLM2-135M-Instruct.Q4_1"]


def test_openai_client_needs_only_base_url(
    engine: Server,
) -> None:
    with openai.OpenAI(base_url=engine.url + "/v1", api_key="any") as client:
        answer = client.completions.create(
            model="gpt-3.5-turbo-instruct", prompt=[FRANCE, "Hi"], temperature=0, n=2
        )
        chunks = list(
            client.completions.create(
                model="m", prompt=FRANCE, stream=True, max_tokens=5, temperature=0
            )
        )
        with pytest.raises(openai.BadRequestError) as error:
            client.completions.create(model="m", prompt="x", temperature=3)

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage and answer.usage.completion_tokens <= 400
    assert chunks[-1].choices[0].finish_reason == "length"
    assert (error.value.param, error.value.code) == (
        "temperature",
        "decimal_above_max_value",
    )


# A model with fill-in-the-middle


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("model") / "fim.gguf"
    fim.make(model_path(Settings()), path)
    server = Server(
        GATEWAY_ENGINE="1", GATEWAY_ENGINE_MODEL=str(path), WEB_CONCURRENCY="1"
    )
    server.wait_until_ready()
    yield server
    server.stop()


def test_suffix_reaches_fim_model(filling: Server) -> None:
    one = complete(filling, prompt="def f(x):", suffix="return y")
    other = complete(filling, prompt="def f(x):", suffix="\nclass B: pass")

    assert texts(one) != texts(other)
    assert 0 < one["usage"]["completion_tokens"] <= 8
    streamed = stream(filling, prompt="def f(x):", suffix="return y")
    assert streamed_texts(streamed) == {0: texts(one)[0]}


# Start, restart and stop


def engines_of(pid: int) -> list[int]:
    return [
        child
        for child in children(pid)
        if "app.server.engine_process" in command_line(child)
    ]


def engine_port(pid: int) -> int:
    """The port of the engine, read from the system's list of sockets."""
    inodes = {
        os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()
    }
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        local, state, inode = (line.split()[i] for i in (1, 3, 9))
        if state == "0A" and f"socket:[{inode}]" in inodes:
            address, port = local.split(":")
            assert address == "0100007F", "it listens beyond the loopback address"
            return int(port, 16)
    raise AssertionError("it does not listen")


def test_workers_share_one_keyed_engine(engine: Server) -> None:
    (pid,) = engines_of(engine.pid)
    url = f"http://127.0.0.1:{engine_port(pid)}"
    body = {"prompt": "Hi", "max_tokens": 1}

    assert (
        requests.post(url + "/v1/completions", json=body, timeout=5).status_code == 401
    )
    stolen = {"Authorization": "Bearer any"}
    again = requests.post(url + "/completion", json=body, headers=stolen, timeout=5)
    assert again.status_code == 401


def test_calls_wait_for_loading_engine(free_server: Any) -> None:
    server = free_server(GATEWAY_ENGINE="1")
    began = server.get("/readyz")
    answer = complete(server)

    assert texts(answer)[0].startswith(" Paris")
    assert began.status_code in (200, 503)
    ready = server.get("/readyz")
    assert ready.json() == {"status": "ok", "engine": "on"}
    eventually(lambda: sum("127.0.0.1" in line for line in server.log) >= 3)
    assert any("Try it:" in line and "curl" in line for line in server.log)


@pytest.fixture
def free_server() -> Iterator[Any]:
    """Starts servers that a test may kill."""
    servers: list[Server] = []

    def make(**environ: str) -> Server:
        servers.append(Server(**environ))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def test_killed_engine_is_restarted(
    free_server: Any,
) -> None:
    """Calls wait until the new engine is ready."""
    server = free_server(GATEWAY_ENGINE="1")
    server.wait_until_ready()
    complete(server)
    (first,) = engines_of(server.pid)
    os.kill(first, signal.SIGKILL)
    # A call that the first engine had accepted would not be sent again.
    eventually(lambda: engines_of(server.pid) not in ([], [first]))

    assert texts(complete(server))[0].startswith(" Paris")
    (second,) = engines_of(server.pid)
    assert second != first
    assert any("starting it again" in line for line in server.log)


def test_engine_death_ends_stream_in_error(free_server: Any) -> None:
    server = free_server(GATEWAY_ENGINE="1")
    server.wait_until_ready()
    response = server.complete(prompt="Once", max_tokens=1000, stream=True)
    lines = response.iter_lines(1)
    next(lines)
    os.kill(engines_of(server.pid)[0], signal.SIGKILL)
    *_, last = filter(None, lines)

    assert b'"error"' in last and b"[DONE]" not in last


def test_request_ending_engine_is_not_resent(free_server: Any) -> None:
    """It is not sent again; after two crashes its caller gets no engine."""
    server = free_server(GATEWAY_ENGINE="1", WEB_CONCURRENCY="2")
    server.wait_until_ready()
    codes = []
    for _ in "123":
        server.wait_until_ready()
        (pid,) = engines_of(server.pid)
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        response = server.complete(prompt="Once", max_tokens=1500)
        killer.join()
        codes.append(response.json()["error"]["code"])

    assert codes == ["engine_ended", "engine_ended", "engine_withheld"]


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-aws",
    "GATEWAY_CONSOLE_TOKEN": "a-token-of-the-console",
    "GATEWAY_METRICS_TOKEN": "a-token-of-the-metrics",
    "GATEWAY_SECRET_KEY": "a-key-for-what-is-stored",
    "OPENAI_API_KEY": "sk-a-key-of-the-operator",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=a-secret-of-otel",
}


def test_engine_environment_holds_no_secrets(free_server: Any) -> None:
    server = free_server(GATEWAY_ENGINE="1", GATEWAY_ENGINE_SLOTS="2", **SECRETS)
    server.wait_until_ready()
    (pid,) = engines_of(server.pid)
    text = Path(f"/proc/{pid}/environ").read_text()
    environ = dict(line.split("=", 1) for line in text.split("\0") if line)

    assert not any(secret in text for secret in SECRETS.values())
    ours = {name for name in environ if name.startswith("GATEWAY_")}
    assert ours == {
        "GATEWAY_ENGINE",
        "GATEWAY_ENGINE_KEY",
        "GATEWAY_ENGINE_MODEL",
        "GATEWAY_ENGINE_SLOTS",
        "GATEWAY_ENGINE_URL",
    }


# Hostile requests


GRAMMARS = {
    "yes or no": ('root ::= "yes" | "no"', r"yes|no"),
    "common beginnings": ('root ::= ("ab" | "abc") "c"', r"abc|abcc"),
    "a number": ('root ::= [0-9]{1,3} "." [0-9]{1,4} "$"', r"\d{1,3}\.\d+\$"),
    "another rule": ('root ::= a{2}\na ::= [x-z]? "/" | "\\\\"', r"([x-z]?/|\\){2}"),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_output_matches_grammar(engine: Server, name: str) -> None:
    grammar, pattern = GRAMMARS[name]
    answers = texts(complete(engine, grammar=grammar, max_tokens=60, temperature=1))

    assert re.fullmatch(pattern, answers[0]), answers


def test_output_matches_json_schema(engine: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    formatted = {"type": "json_schema", "json_schema": {"schema": schema}}
    chat = {"x-portkey-config": json.dumps({"provider": "local", "via": "chat"})}
    plain = complete(engine, json_schema=schema, max_tokens=60)
    bridged = engine.complete(
        chat, prompt=FRANCE, response_format=formatted, max_tokens=60
    )

    for text in (texts(plain)[0], bridged.json()["choices"][0]["text"]):
        assert json.loads(text)["city"] in ("Paris", "Rome")


def test_engine_survives_hostile_requests(engine: Server) -> None:
    """The short form of `python -m tests.soak.grammars`."""
    rows, pids = grammars.attack(engine, seconds=3, patience=0.5)

    assert len(set(pids)) == 1, "the engine has ended"
    assert {row.status for row in rows} <= {200, 400}
    assert all(row.status == 400 for row in rows if row.is_refused), rows


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "loading"])
def test_engine_stops_with_master(free_server: Any, number: int, loaded: bool) -> None:
    server = free_server(GATEWAY_ENGINE="1")
    if loaded:
        server.wait_until_ready()
    eventually(lambda: engines_of(server.pid))
    everyone = children(server.pid)
    server.signal(number)
    server.wait()

    eventually(lambda: not any(map(alive, everyone)))


def test_flask_run_starts_engine() -> None:
    server = Server(("flask", "run", "--port", "0"), GATEWAY_ENGINE="1")
    (pid,) = engines_of(server.pid)
    try:
        assert texts(complete(server))[0].startswith(" Paris")
    finally:
        server.stop()

    eventually(lambda: not alive(pid))


def test_invalid_model_file_is_reported(tmp_path: Path) -> None:
    text = tmp_path / "model.gguf"
    text.write_text("hello")
    for path in (text, tmp_path / "absent.gguf"):
        server = Server(GATEWAY_ENGINE="1", GATEWAY_ENGINE_MODEL=str(path))
        server.wait()

        assert any(f"GATEWAY_ENGINE_MODEL={path}" in line for line in server.log)


def test_concurrent_callers_get_own_answers(engine: Server) -> None:
    prompts = ["One, two,", "Red, green,", "Monday, Tuesday,", FRANCE] * 3
    alone = {prompt: texts(complete(engine, prompt=prompt)) for prompt in set(prompts)}
    got: list[tuple[str, list[str]]] = []

    def caller(prompt: str) -> None:
        got.append((prompt, texts(complete(engine, prompt=prompt))))

    callers = [threading.Thread(target=caller, args=(p,)) for p in prompts]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)

    assert len(got) == 12
    assert all(alone[prompt] == answer for prompt, answer in got)
