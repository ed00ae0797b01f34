"""The order of the steps of an attempt."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from app import create_app
from app.core.request import CompletionRequest
from app.core.routing import BreakerPolicy, Route, Target
from app.errors import CallerLeft
from app.gateway.pipeline import Gateway
from app.gateway.retries import Trace
from app.settings import Settings


def test_cancelled_request_takes_no_probe(tmp_path: Path) -> None:
    """A probe that is not made has no result, and would keep the circuit open."""
    app = create_app(replace(Settings(), instance=str(tmp_path), ledger=False))
    gateway: Gateway = app.extensions["lastword"]
    request = CompletionRequest("m", "Hi")
    policy = BreakerPolicy(failure_threshold=1, cooldown=0.01)
    target = Target("openai", "sk-a", request=request, breaker=policy, identity="a")
    gateway.breaker.enter(target)
    gateway.breaker.leave(target, 500)
    time.sleep(0.02)
    assert [each.state for each in gateway.breaker.snapshots()] == ["ready"]

    with gateway.clients.watching(None) as connection:
        connection.cancellation.cancel(CallerLeft())
        with pytest.raises(CallerLeft):
            gateway.complete(Route(target), Trace(), connection)

    assert [each.state for each in gateway.breaker.snapshots()] == ["ready"]
    gateway.close()
    app.extensions["lastword.directory"].close()
