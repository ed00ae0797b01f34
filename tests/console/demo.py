"""A gateway with demo data: a filled ledger and a filled store."""

import math
import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from typing import Any

import orjson
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from app.core.routing import BreakerPolicy, Target
from app.settings import Settings
from app.store import factory
from tests.store.test_ledger import row
from tests.upstream import DONE, data, frame, stream

TOKEN = "a token of the tests, long enough"

_MODELS = {
    "openai": "gpt-3.5-turbo-instruct",
    "anthropic": "claude-haiku-4-5",
    "groq": "llama-3.3-70b-versatile",
    "mistral-ai": "codestral-latest",
}
_WEIGHTS = (50, 25, 18, 7)
_KEYS = ("batch-jobs", "editor", "research", None)

CONFIGS = {
    "main": {
        "strategy": {"mode": "fallback", "on_status_codes": [429, 500, 503]},
        "retry": {"attempts": 2},
        "targets": [
            {
                "provider": "openai",
                "api_key": "sk-nobody-may-see-this",
                "override_params": {"model": "gpt-3.5-turbo-instruct"},
            },
            {
                "name": "cheap",
                "strategy": {"mode": "loadbalance"},
                "targets": [
                    {"provider": "groq", "api_key": "gsk-no", "weight": 3},
                    {"provider": "anthropic", "api_key": "sk-ant-no", "weight": 1},
                ],
            },
        ],
    },
    "by-plan": {
        "strategy": {
            "mode": "conditional",
            "conditions": [
                {"query": {"metadata.plan": {"$eq": "pro"}}, "then": "fast"},
                {"query": {"params.max_tokens": {"$gt": 1000}}, "then": "long"},
            ],
            "default": "cheap",
        },
        "targets": [
            {"name": "fast", "provider": "groq", "api_key": "no"},
            {"name": "long", "provider": "anthropic", "api_key": "no"},
            {"name": "cheap", "provider": "openai", "api_key": "no"},
        ],
    },
}


def fill(settings: Settings, many: int = 8000) -> None:
    """A month of requests, most of them in the last day; and two configs."""
    chance, now = random.Random(8), time.time()
    spans = ((900, many // 40), (86400, many), (30 * 86400, 2 * many))
    times = [at for span, count in spans for at in _times(now, span, count)]
    with closing(factory.ledger(settings)) as ledger:
        for i, began in enumerate(sorted(times)):
            ledger.add(_request(chance, began))
            if i % 5000 == 0:
                ledger.flush()
        ledger.add(_eventful(now))
    store = factory.repository(settings)
    for id, config in CONFIGS.items():
        store.put_config(id, config)
    store.engine.dispose()


def _times(now: float, seconds: float, many: int) -> Iterator[float]:
    """The times of so many requests within *seconds*, in waves."""
    for i in range(many):
        share = (i + 0.5) / many
        yield now - seconds * (share + 0.04 * math.sin(4 * math.pi * share))


def _request(chance: random.Random, began: float) -> Any:
    (provider,) = chance.choices(list(_MODELS), _WEIGHTS)
    fails = chance.random() < (0.09 if provider == "groq" else 0.012)
    first = chance.lognormvariate(-1.1, 0.5) * (2 if provider == "anthropic" else 1)
    completion_tokens = int(chance.lognormvariate(4.2, 0.8))
    sent = int(chance.lognormvariate(5.2, 1))
    status = chance.choice((429, 500, 503)) if fails else 200
    return row(
        began=began,
        first=None if fails else first,
        took=first + completion_tokens * 0.008,
        status=status,
        ended="failed" if fails else "whole",
        error="upstream_error" if fails else None,
        key=chance.choices(_KEYS, (5, 3, 2, 1))[0],
        provider=provider,
        model=_MODELS[provider],
        stream=chance.random() < 0.7,
        cache="MISS" if fails or chance.random() > 0.08 else "HIT",
        prompt_tokens=sent,
        completion_tokens=0 if fails else completion_tokens,
        cost_micros=0 if fails else int(sent * 1.5 + completion_tokens * 2),
        via="chat" if provider == "anthropic" else "native",
        trace_id=f"{chance.getrandbits(64):016x}",
    )


def _eventful(now: float) -> Any:
    """A request with several attempts."""
    tries = [
        ("config.targets[0]", "openai", 503, 2, 310),
        ("config.targets[0]", "openai", 503, 530, 290),
        ("config.targets[1].targets[0]", "groq", 429, 824, 95),
        ("config.targets[1].targets[1]", "anthropic", 200, 920, 460),
    ]
    document = {
        "tries": tries,
        "dropped": ["best_of", "logit_bias"],
        "alias": "text-davinci-003 -> claude-haiku-4-5",
    }
    return row(
        began=now,
        first=1.38,
        took=3.1,
        stream=True,
        attempts=4,
        config="main",
        target="config.targets[1].targets[1]",
        provider="anthropic",
        model="claude-haiku-4-5",
        via="chat",
        prompt_tokens=412,
        completion_tokens=180,
        cost_micros=1312,
        story=orjson.dumps(document).decode(),
        trace_id="6f0e5c1a9b3d4e57",
    )


def trip(app: Flask) -> None:
    """One open circuit, and one closed."""
    breaker = app.extensions["lastword"].breaker
    policy = BreakerPolicy(failure_threshold=1, cooldown=300)
    groq = Target("groq", identity="1", breaker=policy, name="fast")
    breaker.leave(groq, 500)
    openai = Target("openai", identity="2", breaker=policy, virtual_key="openai-prod")
    for _ in range(3):
        breaker.leave(openai, 200)


# A stream with alternatives for every token.
_WORDS = (" there", " was", " a", " small", " gateway", ",", " and", " it", " spoke")


def scored() -> Any:
    """An upstream's answer with logprobs."""
    frames = [_scored(i, word) for i, word in enumerate(_WORDS)]
    return stream(*map(data, frames), data(frame(finish="stop")), DONE)


def _scored(i: int, word: str) -> Any:
    own = -0.04 * (i % 5) ** 3 - 0.02
    document = {
        "tokens": [word],
        "token_logprobs": [own],
        "top_logprobs": [{word: own, " lived": own - 1.2, " once": own - 2.5}],
        "text_offset": [0],
    }
    choice = {"text": word, "index": 0, "logprobs": document, "finish_reason": None}
    return frame() | {"choices": [choice]}


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """Serve *app*, and yield its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
