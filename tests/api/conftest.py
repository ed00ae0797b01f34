"""A gateway with a store, for tests of shared state."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.settings import Settings
from tests.conftest import Caller
from tests.house import House
from tests.upstream import Upstream


@pytest.fixture(params=["file", "redis"])
def house(
    call: Callable[..., Caller], upstream: Upstream, settings: Settings, request: Any
) -> Iterator[House]:
    """A gateway that keeps its state in a file, and one that keeps it in Valkey."""
    url = request.getfixturevalue("valkey").url if request.param == "redis" else ""
    sealed = replace(settings, secret_key="a secret of the tests", store_ttl=0.0001)
    with House(call, upstream, replace(sealed, redis_url=url)) as house:
        yield house
