"""Custom hosts: which are allowed, in every spelling."""

import pytest

from app.core.hosts import LOCALHOST, InternalHost, custom_host, may_be_called


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
def test_public_or_trusted_host_is_allowed(url: str) -> None:
    assert custom_host(url, LOCALHOST) == url


def test_final_slash_is_removed() -> None:
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
def test_trust_covers_names_suffixes_networks(rule: str, host: str) -> None:
    assert custom_host(f"http://{host}", (rule,))
    with pytest.raises(ValueError):
        custom_host(f"http://{host}", ("192.168.0.0/16", "*.example.com", "other"))


@pytest.mark.parametrize(
    "spelling",
    ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1", "[::1]"],
)
def test_loopback_spellings_are_refused(spelling: str) -> None:
    with pytest.raises(ValueError):
        custom_host(f"http://{spelling}", ())


@pytest.mark.parametrize(
    "rest",
    [
        "/x?",
        "?",
        "/x?a=b",
        "/x#",
        "#",
        "/x;",
        "/x;y=1/z",
        "/x%2f..%2fy",
        "/x%2Fy",
        "/x%5cy",
        "/x%5Cy",
        "/x\\y",
        "\\@evil.example",
        "/x/../y",
        "/..",
        "/x/.",
        "/./x",
        "/%2e%2e/x",
        "/%2E./x",
        "/%252e%252e/x",
        "/x%3fy",
        "/x%3F",
        "/x%23y",
        "/x%3by",
        "/x%00y",
        "/x%0d%0ay",
        "/x%20y",
        "/%c0%ae%c0%ae/x",
        "/%c0%afx",
        "/%u002e",
        "/x%",
        "/x%zz",
        "/x y",
        "/x\ty",
        "/x\u2025y",
        "/\uff0e\uff0e/y",
    ],
)
@pytest.mark.parametrize("host", ["https://api.example.com", "http://127.0.0.1:8753"])
def test_hidden_url_parts_are_refused(host: str, rest: str) -> None:
    with pytest.raises(ValueError):
        custom_host(host + rest, LOCALHOST)


@pytest.mark.parametrize(
    "url",
    [
        "http://u@h.example",
        "http://u:p@h.example",
        "http://@h.example",
        "http://h.example@evil.example/",
        "http://[::1]evil.example/",
        "http://[::1",
        "http://[v1.x]/",
        "http://h.example:80:80/",
        "http://h.example:0",
        "http://h.example:99999",
        "http://h.example:x",
        "http://",
        "http:///x",
        "//h.example",
        "h.example",
        "ftp://h.example",
        "file:///etc/passwd",
        "http://h%2eexample/",
        "http://127.0.0.1%2f/",
        "http://.h.example/",
        "http://h.example./",
        "http://h..example/",
        "http://h\u3002example/",
        "http://" + "a" * 254,
    ],
)
def test_base_url_has_one_plain_host(url: str) -> None:
    with pytest.raises(ValueError):
        custom_host(url, LOCALHOST)


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/accounts/a-b_c~d/v1.1",
        "https://h.example/a%C3%A9/b",
        "https://h.example/@cf/x,y:z=1",
        "https://h.example/.well-known/x",
        "https://h.example:/v1",
        "http://a_b:8000//v1",
    ],
)
def test_plain_path_is_kept(url: str) -> None:
    assert custom_host(url, ()) == url


@pytest.mark.parametrize(
    "name",
    [
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "METADATA.GOOG",
        "metadata.google.com",
        "metadata.googleapis.com",
        "metadata.azure.com",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "metadata.packet.net",
        "instance-data",
        "instance-data.ec2.internal",
        "printer.local",
        "router.home.arpa",
        "app.localhost",
        "localhost",
    ],
)
def test_internal_name_is_refused(name: str) -> None:
    with pytest.raises(InternalHost) as refused:
        custom_host(f"http://{name}/", ("other.example",))
    assert "GATEWAY_TRUSTED_CUSTOM_HOSTS" in str(refused.value)
    assert name.lower() in str(refused.value)


@pytest.mark.parametrize("name", ["metadata.google.internal.", "localhost.", "goog."])
def test_final_dot_does_not_bypass_rules(name: str) -> None:
    with pytest.raises(ValueError):
        custom_host(f"http://{name}/", LOCALHOST)


@pytest.mark.parametrize("rule", ["localhost", "*.localhost", "app.localhost"])
def test_localhost_names_are_loopback_only(rule: str) -> None:
    """Whatever a resolver answers, and whichever hosts are trusted besides."""
    rules = (rule, "10.0.0.0/8")

    assert may_be_called("app.localhost", ["127.0.0.1"], rules)
    assert may_be_called("app.localhost", ["::1", "127.0.0.9"], rules)
    assert not may_be_called("app.localhost", ["10.0.0.1"], rules)
    assert not may_be_called("app.localhost", ["127.0.0.1", "10.0.0.1"], rules)
    assert not may_be_called("app.localhost", ["93.184.216.34"], rules)


def test_localhost_itself_is_loopback_only() -> None:
    assert may_be_called("localhost", ["127.0.0.1", "::1"], LOCALHOST)
    assert not may_be_called("localhost", ["10.0.0.1"], LOCALHOST)
    assert not may_be_called("localhost", ["127.0.0.1"], ())


def test_token_urls_require_tls() -> None:
    assert custom_host("https://h.example/token", (), ("https",))
    with pytest.raises(ValueError, match="must start with https://"):
        custom_host("http://h.example/token", (), ("https",))
