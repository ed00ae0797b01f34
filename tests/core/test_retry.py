"""When a target is retried, and after what delay."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.retry import LONGEST_WAIT, RETRY_STATUS_CODES, RetryPolicy
from app.errors import (
    GatewayError,
    UnsupportedParameter,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamUnreachable,
)

NOW = 1_800_000_000.0


def status(number: int, code: str | None = None, **headers: str) -> GatewayError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return UpstreamStatus("x", status=number, code=code, headers=named)


def delay(policy: RetryPolicy, error: GatewayError, retry: int = 0, left: float = 60):
    return policy.delay(retry, error, now=NOW, jitter=1.0, left=left)


def test_no_attempts_means_no_retry() -> None:
    assert delay(RetryPolicy(), status(503)) is None
    assert delay(RetryPolicy(attempts=-1), status(503)) is None


@pytest.mark.parametrize("number", [*RETRY_STATUS_CODES, 400, 401, 404, 408, 422, 501])
def test_default_retry_status_codes(number: int) -> None:
    tried = delay(RetryPolicy(attempts=1), status(number)) is not None

    assert tried == (number in (429, 500, 502, 503, 504, 529))


def test_status_list_replaces_default() -> None:
    assert delay(RetryPolicy(1, (401,)), status(401)) is not None
    assert delay(RetryPolicy(1, (401,)), status(503)) is None
    assert delay(RetryPolicy(1, ()), status(503)) is None


@pytest.mark.parametrize("error", [UpstreamRefused("x"), UpstreamUnreachable("x")])
def test_lost_connection_is_always_retried(error) -> None:
    assert delay(RetryPolicy(1, ()), error) is not None


def test_gateway_errors_are_not_retried() -> None:
    assert delay(RetryPolicy(1, (400,)), UnsupportedParameter("x", "echo")) is None


def test_insufficient_quota_is_not_retried() -> None:
    assert delay(RetryPolicy(1), status(429, "insufficient_quota")) is None


def test_backoff_doubles_up_to_limits() -> None:
    policy = RetryPolicy(attempts=100)

    waits = [delay(policy, status(503), retry) for retry in range(6)]
    assert waits == [1, 2, 4, 8, 10, None]


@given(st.integers(0, 4), st.floats(0, 1))
def test_backoff_has_full_jitter(retry: int, jitter: float) -> None:
    error = status(503)
    policy = RetryPolicy(attempts=5)
    wait = policy.delay(retry, error, now=NOW, jitter=jitter, left=60)

    assert wait == jitter * min(2**retry, LONGEST_WAIT)


@pytest.mark.parametrize(
    "headers, wait",
    [
        ({"retry_after": "2"}, 2),
        ({"retry_after_ms": "300"}, 0.3),
        ({"x_ms_retry_after_ms": "300"}, 0.3),
        ({"retry_after_ms": "300", "retry_after": "9"}, 0.3),
        ({"retry_after": formatdate(NOW + 7, usegmt=True)}, 7),
        ({"Retry_After": "2.5"}, 2.5),
        ({"retry_after": "0"}, 1),
        ({"retry_after": "-1"}, 1),
        ({"retry_after": formatdate(NOW - 7, usegmt=True)}, 1),
        ({"retry_after": "soon"}, 1),
        ({"retry_after": "nan"}, 1),
        ({"retry_after": "inf"}, 1),
        ({}, 1),
        ({"retry_after": "70"}, None),
        ({"retry_after_ms": "60001"}, None),
    ],
    ids=str,
)
def test_retry_after_is_used_on_429(
    headers: dict[str, str], wait: float | None
) -> None:
    obedient = RetryPolicy(attempts=1, use_retry_after=True)

    assert delay(obedient, status(429, **headers)) == wait
    assert delay(RetryPolicy(attempts=1), status(429, **headers)) == 1
    assert delay(obedient, status(503, **headers)) == 1


def test_wait_fits_remaining_budget() -> None:
    policy = RetryPolicy(attempts=5, use_retry_after=True)

    assert delay(policy, status(503), retry=3, left=7.9) is None
    assert delay(policy, status(429, retry_after="5"), left=4) is None
    assert delay(policy, status(429, retry_after="4"), left=4) == 4
