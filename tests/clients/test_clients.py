"""Real clients against a real gateway: each runs once, then its results are checked.

Their requests are in `cases.py`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from .cases import MAX_TOKENS, PROMPTS

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venvs"

# Seconds for one client to start and to send everything.
TIMEOUT = 120

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, slots=True)
class Client:
    """A client's script, and its exception for a status of 400."""

    script: str
    refusal: str = "BadRequestError"


# The latest openai is a requirement of the tests themselves, in their environment.
LATEST = "openai-latest"
CLIENTS = {
    "openai-0.28.1": Client("with_openai_0_28_1.py", "InvalidRequestError"),
    "openai-1": Client("with_openai_1.py"),
    LATEST: Client("with_openai_1.py"),
    "portkey-ai": Client("with_portkey_ai.py"),
    "langchain-openai": Client("with_langchain_openai.py"),
}
PINNED = [name for name in CLIENTS if name != LATEST]
# LangChain keeps of a choice neither its index nor the answer's other fields.
VERBATIM = [name for name in CLIENTS if name != "langchain-openai"]

Answers = Mapping[str, Any]


@pytest.fixture(scope="session")
def answers_of(gateway_url: str) -> Callable[[str], Answers]:
    """The results of this client. Each client runs once, also if it fails."""
    cached_answers = cache(_run_client)

    def answers(name: str) -> Answers:
        answer = cached_answers(name, gateway_url)
        if isinstance(answer, str):
            pytest.fail(answer)
        return answer

    return answers


def _run_client(name: str, address: str) -> Answers | str:
    """The results of this client, or a sentence that says why there are none."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if name == LATEST:
        python = Path(sys.executable)
    if not python.exists():
        return f"The client {name} is not installed: `make test` does that."
    return _run_script([python, HERE / CLIENTS[name].script, address])


def _run_script(command: list[Path | str]) -> Answers | str:
    try:
        # Without the developer's variables: no key, no proxy, no tracing.
        ran = subprocess.run(
            command, env={}, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as e:
        return f"{e}; it wrote:\n{e.stderr}"
    if ran.returncode:
        return f"{command} failed (installed in full? `make test`):\n{ran.stderr}"
    answers: Answers = json.loads(ran.stdout)
    return answers


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> str:
    """The name of each client in turn."""
    return request.param


@pytest.fixture
def answers(client: str, answers_of: Callable[[str], Answers]) -> Answers:
    """The results of each client in turn."""
    return answers_of(client)


def texts(completion: Answers) -> list[str]:
    return [choice["text"] for choice in completion["choices"]]


def usage(completion: Answers) -> tuple[int, int, int]:
    """Prompt, completion and total tokens."""
    keys = ("prompt_tokens", "completion_tokens", "total_tokens")
    prompts, completions, total = (completion["usage"][key] for key in keys)
    return prompts, completions, total


@pytest.mark.parametrize("name", PINNED, ids=PINNED)
def test_client_version_matches_requirements(name, answers_of):
    required = (HERE / "requirements" / f"{name}.txt").read_text()

    assert required.strip().endswith(f"=={answers_of(name)['version']}")


def test_latest_openai_is_release_3(answers_of):
    assert int(answers_of(LATEST)["version"].split(".")[0]) >= 3


def test_whole_completion_is_read(answers):
    (choice,) = answers["whole"]["choices"]
    prompt_tokens, completion_tokens, total = usage(answers["whole"])

    assert choice["text"].strip()
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    assert prompt_tokens > 0
    assert completion_tokens == MAX_TOKENS
    assert total == prompt_tokens + completion_tokens


@pytest.mark.parametrize("name", VERBATIM, ids=VERBATIM)
def test_completion_id_created_and_model(name, answers_of):
    whole, other = answers_of(name)["whole"], answers_of(name)["other"]

    assert whole["object"] == "text_completion"
    assert whole["id"].startswith("cmpl-")
    assert whole["id"] != other["id"]
    assert whole["created"] <= other["created"]
    assert whole["model"]


def test_clients_read_the_same_text(answers_of):
    read = {name: texts(answers_of(name)["whole"]) for name in CLIENTS}

    assert read == dict.fromkeys(CLIENTS, read[LATEST])


def test_streamed_text_equals_whole_text(answers):
    stream = answers["stream"]

    assert [stream["text"]] == texts(answers["whole"])
    assert stream["chunks"] >= MAX_TOKENS
    assert stream["finish_reason"] == "length"


def test_batch_choices_keep_prompt_order(answers):
    one_by_one = texts(answers["whole"]) + texts(answers["other"])

    assert texts(answers["batch"]) == one_by_one
    assert one_by_one[0] != one_by_one[1]


@pytest.mark.parametrize("name", VERBATIM, ids=VERBATIM)
@pytest.mark.parametrize("case", ["batch", "two"])
def test_choices_are_indexed(case, name, answers_of):
    choices = answers_of(name)[case]["choices"]

    assert [choice["index"] for choice in choices] == [0, 1]


def test_batch_usage_sums_its_prompts(answers):
    one_by_one = zip(usage(answers["whole"]), usage(answers["other"]), strict=True)

    assert usage(answers["batch"]) == tuple(map(sum, one_by_one))


def test_two_choices_are_both_whole(answers):
    assert texts(answers["two"]) == 2 * texts(answers["whole"])


def test_two_choices_count_prompt_once(answers):
    prompt_tokens, completion_tokens, _ = usage(answers["whole"])
    total = prompt_tokens + 2 * completion_tokens

    assert usage(answers["two"]) == (prompt_tokens, 2 * completion_tokens, total)


def test_logprobs_are_four_parallel_lists(answers):
    (choice,) = answers["logprobs"]["choices"]
    lists = choice["logprobs"]

    assert {name: len(entries) for name, entries in lists.items()} == {
        "tokens": MAX_TOKENS,
        "token_logprobs": MAX_TOKENS,
        "top_logprobs": MAX_TOKENS,
        "text_offset": MAX_TOKENS,
    }


def test_logprobs_describe_the_text(answers):
    (choice,) = answers["logprobs"]["choices"]
    tokens, offsets = (choice["logprobs"][key] for key in ("tokens", "text_offset"))
    document = PROMPTS[0] + choice["text"]

    assert texts(answers["logprobs"]) == texts(answers["whole"])
    assert "".join(tokens) == choice["text"]
    assert offsets[0] == len(PROMPTS[0])
    for token, offset in zip(tokens, offsets, strict=True):
        assert document.startswith(token, offset)


def test_logprobs_include_three_alternatives(answers):
    """The chosen token is the likeliest of the three."""
    (choice,) = answers["logprobs"]["choices"]
    lists = choice["logprobs"]

    for token, logprob, alternatives in zip(
        lists["tokens"], lists["token_logprobs"], lists["top_logprobs"], strict=True
    ):
        assert len(alternatives) == 3
        assert alternatives[token] == logprob == max(alternatives.values())
        assert logprob <= 0


def test_echo_is_prompt_and_continuation(answers):
    assert texts(answers["echo"]) == [PROMPTS[0] + texts(answers["whole"])[0]]


def test_invalid_parameter_raises_clients_error(client, answers):
    error = answers["too_hot"]

    assert error["class"] == CLIENTS[client].refusal
    assert error["status"] == 400
    assert error["param"] == "temperature"
    assert error["code"] == "decimal_above_max_value"
    assert "'temperature'" in error["message"]


def test_missing_key_error_names_header(client, answers):
    error = answers["no_key"]

    assert error["class"] == "AuthenticationError"
    assert error["status"] == 401
    assert "x-portkey-api-key" in error["message"]
    # openai 0.28 has codes on InvalidRequestError only.
    assert error["code"] == (None if client == "openai-0.28.1" else "missing_api_key")


def test_engine_in_path_is_model(answers_of):
    answers = answers_of("openai-0.28.1")

    assert texts(answers["engine"]) == texts(answers["whole"])


def test_portkey_client_exposes_routing_headers(answers_of):
    headers = answers_of("portkey-ai")["headers"]

    assert headers["provider"] == "local"
    assert headers["trace-id"] == "trace-of-a-caller"
    assert headers["last-used-option-index"] == "config"
    assert headers["retry-attempt-count"] == "0"
    assert headers["cache-status"] == "DISABLED"


def test_langchain_invoke_returns_text(answers_of):
    answers = answers_of("langchain-openai")

    assert [answers["invoke"]] == texts(answers["whole"])


def test_langchain_merges_batches_in_order(answers_of):
    answers = answers_of("langchain-openai")
    singles = answers["singles"]

    assert texts(answers["five"]) == [text for one in singles for text in texts(one)]
    assert len(set(texts(answers["five"]))) == len(PROMPTS)


def test_langchain_sums_batch_usage(answers_of):
    answers = answers_of("langchain-openai")
    singles = zip(*map(usage, answers["singles"]), strict=True)

    assert usage(answers["five"]) == tuple(map(sum, singles))


def test_langchain_keeps_choices_per_prompt(answers_of):
    answers = answers_of("langchain-openai")
    first, second, *_ = map(texts, answers["singles"])

    assert texts(answers["best"]) == 2 * first + 2 * second


def test_langchain_sends_decimal_logit_bias(answers_of):
    answers = answers_of("langchain-openai")

    assert texts(answers["biased"]) == [MAX_TOKENS * "The"]
