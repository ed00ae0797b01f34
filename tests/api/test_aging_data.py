"""What dated facts do over HTTP: models that reason, and services that have closed."""

from collections.abc import Callable

import pytest

from tests.conftest import Caller, events
from tests.upstream import DONE, Upstream, data, stream, whole

Call = Callable[..., Caller]


def chat(text: str) -> bytes:
    return (
        b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{'
        b'"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":'
        b'"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
        % text.encode()
    )


def chunk(text: str) -> dict[str, object]:
    delta = {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice]}


@pytest.mark.parametrize(
    "provider, model",
    [
        ("groq", "deepseek-r1-distill-llama-70b"),
        ("huggingface", "deepseek-ai/DeepSeek-R1:novita"),
        ("fireworks-ai", "accounts/fireworks/models/kimi-k2p6"),
        ("moonshot", "kimi-k2-thinking"),
        ("perplexity-ai", "sonar-reasoning-pro"),
        ("nebius", "MiniMaxAI/MiniMax-M3"),
        ("dashscope", "qwen3-235b-a22b-thinking-2507"),
        ("deepseek", "deepseek-flash"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_reasoning_model_gets_budget(
    call: Call, script, provider: str, model: str, streamed: bool
) -> None:
    answer = stream(data(chunk("A")), DONE) if streamed else whole(chat("A"))
    upstream: Upstream = script(answer)
    caller = call(upstream)
    caller.headers["x-portkey-config"] = (
        f'{{"provider":"{provider}","via":"chat","custom_host":"{upstream.url}",'
        '"api_key":"k"}'
    )
    del caller.headers["x-portkey-provider"]
    response = caller.complete(model=model, max_tokens=16, stream=streamed)

    sent = upstream.last.json
    assert sent.get("max_tokens", sent.get("max_completion_tokens")) == 1024
    assert "raised from 16 to 1024" in response.headers["x-lastword-warning"]
    if streamed:
        assert events(response)[-1] == "[DONE]"
    else:
        assert response.json["choices"][0]["text"] == "A"


@pytest.mark.parametrize(
    "provider, reason",
    [
        ("github", "GitHub Models was retired on 30 July 2026"),
        ("ai21", "on 9 August 2026"),
        ("kluster-ai", "gone since October 2026"),
        ("monsterapi", "gone since June 2026"),
        ("perplexity-ai", "ended its chat completions"),
    ],
)
def test_closed_service_is_refused(
    call: Call, script, provider: str, reason: str
) -> None:
    """Nothing is sent to its host, whose name may belong to somebody else by now."""
    upstream: Upstream = script(whole(chat("A")))
    caller = call(upstream)
    caller.headers["x-portkey-provider"] = provider
    served = caller.complete()
    del caller.headers["x-portkey-custom-host"]
    refused = caller.complete()

    assert served.status_code == 200 and len(upstream.requests) == 1
    assert refused.status_code == 400
    assert reason in refused.json["error"]["message"]
