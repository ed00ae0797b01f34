"""No route spends more than a key's budget: random trees of targets, over HTTP."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from app import create_app
from app.core.counters import LimitReached, UsageRequest
from app.core.limits import Limits
from app.core.prices import prices
from app.gateway.retries import Clock
from app.settings import Settings
from tests.conftest import Caller
from tests.e2e.server import eventually
from tests.stored_gateway import StoredGateway
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    close,
    completion,
    cut_stream,
    data,
    delta,
    frame,
    head,
    reply,
    stream,
    whole,
)

# Thousandths of a dollar per token; the first model has no row of its own.
PRICES = {"free": None, "cheap": 1, "dear": 60}
ROWS = [
    {"provider": "*", "model": model, "input": 1000 * price, "output": 1000 * price}
    for model, price in PRICES.items()
    if price
]
OUTCOMES = ("answer", "overrun", "busy", "unreadable", "cut", "chat model")
CHATS = {"error": {"message": "This is a chat model: use /chat/completions"}}


@dataclass
class Account:
    """The requests and bills of a provider for one key.

    It counts tokens and thousandths of a dollar, independently of the gateway.
    *beyond* is what was billed beyond the estimates.
    """

    tokens: int
    money: int
    outcomes: Iterator[str]
    used: list[int] = field(default_factory=lambda: [0, 0])
    beyond: list[int] = field(default_factory=lambda: [0, 0])
    problems: list[str] = field(default_factory=list)

    def answer(self, request: ReceivedRequest) -> Answer:
        """The answer to a call, which is entered into the account first."""
        body, outcome = request.json, next(self.outcomes)
        length, count = body["max_tokens"], body.get("n", 1)
        is_chat, streams = "chat" in request.path, bool(body.get("stream"))
        price = PRICES[body["model"]]
        estimate = 1 + length * count
        if self.used[0] + estimate > self.tokens:
            self.problems.append(f"{estimate} tokens did not fit: {self}")
        if price and self.used[1] + price * estimate > self.money:
            self.problems.append(f"{price * estimate} did not fit: {self}")
        completion_tokens = {
            "overrun": estimate + 7,
            # Zero would say that nobody has counted.
            "answer": max(length * count // 2, 1),
        }.get(outcome, 0)
        billed = 1 + completion_tokens
        if outcome in ("busy", "chat model"):
            billed = 0
        elif outcome == "unreadable":
            billed = 1 if streams else estimate
        elif outcome == "cut":
            billed = 1 + 2 if streams else estimate
        more = [billed, billed * (price or 0)]
        most = [estimate, estimate * (price or 0)]
        self.used = [a + b for a, b in zip(self.used, more, strict=True)]
        self.beyond = [
            a + max(b - c, 0) for a, b, c in zip(self.beyond, more, most, strict=True)
        ]
        return _answer(outcome, completion_tokens, count, is_chat, streams)


def _answer(
    outcome: str, completion_tokens: int, count: int, is_chat: bool, streams: bool
) -> Answer:
    """An answer of *count* choices with *completion_tokens* tokens in all."""
    if outcome == "busy":
        return whole({"error": {"message": "busy"}}, 503)
    if outcome == "chat model":
        return whole(CHATS, 404)
    piece: Callable[..., Any] = delta if is_chat else frame
    if outcome == "unreadable":
        return stream(data(b"<html>")) if streams else whole(b"<html>")
    if outcome == "cut":
        if streams:
            return cut_stream(*(data(piece(text)) for text in "ab"), by=close)
        return [head(200, "Content-Length: 500"), b"{", close]
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": completion_tokens,
        "total_tokens": 1 + completion_tokens,
    }
    if streams:
        ends = [data(piece("", "stop", index=i)) for i in range(count)]
        last = data(piece() | {"choices": [], "usage": usage})
        return stream(*ends, last, DONE)
    document = (reply if is_chat else completion)(usage=usage)
    choice = document["choices"][0]
    choices = [choice | {"index": i} for i in range(count)]
    return whole(document | {"choices": choices})


LEAVES = some.fixed_dictionaries(
    {
        "virtual_key": some.just("openai-1"),
        "override_params": some.fixed_dictionaries(
            {"model": some.sampled_from([*PRICES])}
        ),
        "retry": some.fixed_dictionaries({"attempts": some.integers(0, 2)}),
    },
    optional={"via": some.just("chat")},
)
MODES = some.sampled_from(["fallback", "fallback", "loadbalance"])
TREES = some.recursive(
    LEAVES,
    lambda below: some.fixed_dictionaries(
        {
            "strategy": some.fixed_dictionaries({"mode": MODES}),
            "targets": some.lists(below, min_size=1, max_size=4),
        }
    ),
    max_leaves=8,
)
BODIES = some.fixed_dictionaries(
    {"max_tokens": some.integers(1, 30), "stream": some.booleans()},
    optional={"n": some.integers(1, 3)},
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, prices=prices(ROWS))


@pytest.fixture
def asking(gateway: StoredGateway) -> Iterator[Caller]:
    """A caller without a key; its gateway does not wait between attempts."""
    gateway.virtual_key()
    clock = Clock(sleep=lambda seconds: None, chance=random.Random(1).random)
    caller = Caller(create_app(gateway.settings, clock))
    yield caller
    caller.leave()


def counted(caller: Caller, holder: str) -> list[int]:
    """Tokens and thousandths of a dollar that the gateway has counted."""
    extension, numbers = caller.app.extensions["lastword"], []
    for rule, unit in (("tokens_per_day", 1), ("money_per_day", 10**6)):
        claim = UsageRequest(holder, Limits.of({rule: 0}), 10**9, Decimal(10**6))
        with pytest.raises(LimitReached) as refused:
            extension.metering.meter.reserve([claim], time.time())
        numbers.append(refused.value.used // unit)
    return numbers


NUMBERS = itertools.count()


@hypothesis_settings(
    max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tree=TREES,
    bodies=some.lists(BODIES, min_size=1, max_size=4),
    outcomes=some.lists(some.sampled_from(OUTCOMES), min_size=1, max_size=8),
    tokens=some.sampled_from([20, 60, 150, 10**6]),
    money=some.sampled_from([0, 20, 300, 2000, 10**6]),
)
def test_budget_holds_on_every_route(
    gateway: StoredGateway,
    asking: Caller,
    tree: dict[str, Any],
    bodies: list[dict[str, Any]],
    outcomes: list[str],
    tokens: int,
    money: int,
) -> None:
    """No attempt's estimate exceeds the budget, and all that is billed is charged."""
    name = f"job-{next(NUMBERS)}"
    budgets = {"tokens_per_day": tokens, "money_per_day": f"{Decimal(money) / 1000:f}"}
    gateway.store.put_config(name, tree)
    key = gateway.key(name, config=name, limits=Limits.of(budgets))
    account = Account(tokens, money, itertools.cycle(outcomes))
    gateway.upstream.answers[:] = [account.answer]
    for body in bodies:
        sent = {"Authorization": f"Bearer {key}"}
        response = asking.complete(headers=sent, **body)
        response.get_data()
        response.close()
        assert response.status_code < 500 or account.used[0] or "busy" in outcomes
        # Redis counters are settled in the background.
        eventually(
            lambda: counted(asking, f"key:{name}") == account.used,
            2,
            actual=lambda: (counted(asking, f"key:{name}"), account),
        )

    assert not account.problems
    assert account.used[0] <= tokens + account.beyond[0]
    assert account.used[1] <= money + account.beyond[1]
