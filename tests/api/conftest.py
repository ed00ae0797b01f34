"""A gateway with a store, for tests of shared state."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.settings import Settings
from tests.conftest import Caller
from tests.stored_gateway import StoredGateway
from tests.upstream import Upstream


@pytest.fixture(params=["file", "redis"])
def gateway(
    call: Callable[..., Caller], upstream: Upstream, settings: Settings, request: Any
) -> Iterator[StoredGateway]:
    """A gateway that keeps its state in a file, and one that keeps it in Valkey."""
    url = request.getfixturevalue("valkey").url if request.param == "redis" else ""
    sealed = replace(settings, secret_key="a secret of the tests", store_ttl=0.0001)
    with StoredGateway(call, upstream, replace(sealed, redis_url=url)) as gateway:
        yield gateway
