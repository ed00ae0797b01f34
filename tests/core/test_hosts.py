"""Custom hosts: which may be named, in whatever spelling."""

import pytest

from app.core.hosts import custom_host

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://vllm:8000/v1",
        "http://8.8.8.8",
        "https://[2606:4700::1111]/v1",
        "HTTPS://Example.COM",
        "http://localhost:8000/v1",
        "http://app.localhost",
        "http://127.0.0.1:1234",
        "http://[::1]:1234",
    ],
)
def test_a_public_or_trusted_host_may_be_called(url: str) -> None:
    assert custom_host(url, LOOPBACK) == url


def test_a_final_slash_is_dropped() -> None:
    assert custom_host(" https://example.com/v1/ ", ()) == "https://example.com/v1"


@pytest.mark.parametrize(
    "rule, host",
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("*.svc.cluster.local", "vllm.default.svc.cluster.local"),
        ("vllm.internal", "vllm.internal"),
        ("fd00::/8", "[fd00::5]"),
        ("10.0.0.0/8", "[::ffff:10.1.2.3]"),
        ("127.0.0.1", "2130706433"),
    ],
)
def test_trust_covers_names_suffixes_and_networks(rule: str, host: str) -> None:
    assert custom_host(f"http://{host}", (rule,))
    with pytest.raises(ValueError):
        custom_host(f"http://{host}", ("192.168.0.0/16", "*.example.com", "other"))


@pytest.mark.parametrize(
    "spelling",
    ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1", "[::1]"],
)
def test_loopback_is_recognised_however_it_is_spelled(spelling: str) -> None:
    with pytest.raises(ValueError):
        custom_host(f"http://{spelling}", ())
