"""Custom hosts by name: the checked address is the one that is called."""

import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Caller
from tests.upstream import Upstream, close, completion, whole

NAME = "models.example.com"


class Names:
    """A resolver of one name; each look-up returns the next of *answers*."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.lookups: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host != NAME:
            return self._real(host, port, *args, **kwargs)
        self.lookups.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Names]:
    def resolve(*answers: list[str]) -> Names:
        resolver = Names(*answers)
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        return resolver

    return resolve


def complete_at_name(caller: Caller, upstream: Upstream, **more: Any) -> Any:
    host = {"x-portkey-custom-host": f"http://{NAME}:{upstream.port}/v1"}
    return caller.complete(headers=host, **more)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["93.184.216.34", "127.0.0.1"],
        ["::1"],
        ["fe80::1%eth0"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["168.63.129.16"],
        ["192.0.0.192"],
        ["100.100.100.200"],
        ["fec0::1"],
        ["::127.0.0.1"],
        ["::ffff:0:127.0.0.1"],
        ["64:ff9b:1::808:808"],
        ["5f00::1"],
        ["3fff::1"],
        ["100:0:0:1::1"],
        ["fd00:ec2::254"],
        ["224.0.0.1"],
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_internal_address_is_refused(
    call, upstream: Upstream, names, addresses: list[str], stream: bool
) -> None:
    names(addresses)
    response = complete_at_name(call(upstream), upstream, stream=stream)

    assert response.status_code == 400
    assert response.json["error"]["code"] == "invalid_custom_host"
    assert not any(address in response.get_data(as_text=True) for address in addresses)
    assert upstream.opened == 0


@pytest.mark.parametrize(
    "rule", [NAME, "*.example.com", "127.0.0.0/8", "127.0.0.1/32"], ids=str
)
def test_trusted_host_or_network_is_called(
    call, upstream: Upstream, names, rule: str
) -> None:
    names(["127.0.0.1"])
    caller = call(upstream, trusted_custom_hosts=(rule,))

    assert complete_at_name(caller, upstream).status_code == 200
    assert upstream.last.headers["host"] == f"{NAME}:{upstream.port}"


def test_name_is_resolved_once(call, upstream: Upstream, names) -> None:
    """A name that resolves differently later (DNS rebinding) is resolved once."""
    resolver = names(["127.0.0.1"], ["127.0.0.2"])
    caller = call(upstream, trusted_custom_hosts=("127.0.0.1/32",))

    assert complete_at_name(caller, upstream).status_code == 200
    assert resolver.lookups == [NAME]


def test_dns_rebinding_is_refused(call, script, names) -> None:
    upstream = script(whole(completion(), 200, "Connection: close"))
    names(["127.0.0.1"], ["10.0.0.1"])
    caller = call(upstream, trusted_custom_hosts=("127.0.0.1/32",))

    assert complete_at_name(caller, upstream).status_code == 200
    assert complete_at_name(caller, upstream).status_code == 400


def test_next_address_is_tried(call, upstream: Upstream, names) -> None:
    names(["127.0.0.2", "127.0.0.1"])
    caller = call(upstream, trusted_custom_hosts=("127.0.0.0/8",))

    assert complete_at_name(caller, upstream).status_code == 200


def test_unreachable_addresses_are_bad_gateway(call, upstream, names) -> None:
    names(["127.0.0.2", "127.0.0.3"])
    caller = call(upstream, trusted_custom_hosts=("127.0.0.0/8",))

    assert complete_at_name(caller, upstream).status_code == 502


def test_internal_redirect_is_not_followed(call, script, upstream, names) -> None:
    inside = f"http://127.0.0.1:{upstream.port}/v1/completions"
    redirecting = script(whole(b"", 307, f"Location: {inside}"))
    names(["127.0.0.1"])
    caller = call(redirecting, trusted_custom_hosts=(NAME,))

    assert complete_at_name(caller, redirecting).status_code == 502
    assert upstream.requests == []


def test_refused_host_falls_back(call, upstream: Upstream, names) -> None:
    names(["10.0.0.1"])
    inside = {"provider": "openai", "custom_host": f"http://{NAME}:{upstream.port}"}
    good = {"provider": "openai", "custom_host": upstream.url}
    config = {
        "strategy": {"mode": "fallback", "on_status_codes": []},
        "targets": [inside, good],
    }
    caller = call(upstream)
    del caller.headers["x-portkey-custom-host"]
    response = caller.complete(headers={"x-portkey-config": json.dumps(config)})

    assert response.status_code == 200
    assert upstream.opened == 1


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def encrypted(script: Any, authority: trustme.CA, name: str) -> Upstream:
    """An upstream with TLS and a certificate for *name*."""
    upstream: Upstream = script(whole(completion()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    upstream.encrypt(context)
    return upstream


@pytest.mark.parametrize("name, status", [(NAME, 200), ("other.example.com", 502)])
def test_certificate_must_match_host_name(
    call, script, names, authority: trustme.CA, tmp_path: Path, name: str, status: int
) -> None:
    upstream = encrypted(script, authority, name)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    names(["127.0.0.1"])
    caller = call(upstream, trusted_custom_hosts=(NAME,), ca_bundle=str(bundle))
    host = {"x-portkey-custom-host": f"https://{NAME}:{upstream.port}/v1"}

    assert caller.complete(headers=host).status_code == status


def test_unknown_certificate_authority_is_refused(
    call, script, names, authority
) -> None:
    upstream = encrypted(script, authority, NAME)
    names(["127.0.0.1"])
    caller = call(upstream, trusted_custom_hosts=(NAME,))
    host = {"x-portkey-custom-host": f"https://{NAME}:{upstream.port}/v1"}
    response = caller.complete(headers=host)

    assert response.status_code == 502
    assert "TLS" in response.json["error"]["message"]


@pytest.mark.parametrize("more", [(), ("Connection: close",)], ids=["kept", "closed"])
def test_tls_session_is_resumed(
    call, script, authority: trustme.CA, tmp_path: Path, more: tuple[str, ...]
) -> None:
    resumed: list[bool | None] = []

    def note(connection: Any) -> None:
        resumed.append(connection.session_reused)

    last = [close] if more else []
    upstream = encrypted(script, authority, "127.0.0.1")
    upstream.answers[:] = [[note, *whole(completion(), 200, *more), *last]]
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    caller = call(upstream, ca_bundle=str(tmp_path / "ca.pem"))
    host = {"x-portkey-custom-host": f"https://127.0.0.1:{upstream.port}/v1"}
    for _ in range(3):
        assert caller.complete(headers=host).status_code == 200

    assert resumed == ([False, True, True] if more else [False, False, False])
    assert upstream.opened == (3 if more else 1)


def test_ca_bundle_is_read_once(call, script, authority, tmp_path: Path) -> None:
    upstream = encrypted(script, authority, "127.0.0.1")
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    caller = call(upstream, ca_bundle=str(bundle))
    host = {"x-portkey-custom-host": f"https://127.0.0.1:{upstream.port}/v1"}
    assert caller.complete(headers=host).status_code == 200
    bundle.unlink()
    upstream.answers[:] = [[*whole(completion(), 200, "Connection: close"), close]]

    assert [caller.complete(headers=host).status_code for _ in range(3)] == [200] * 3


def test_missing_ca_bundle_trusts_nobody(call, script, authority):
    upstream = encrypted(script, authority, "127.0.0.1")
    caller = call(upstream, ca_bundle="/nowhere/ca.pem")
    host = {"x-portkey-custom-host": f"https://127.0.0.1:{upstream.port}/v1"}
    response = caller.complete(headers=host)

    assert response.status_code == 502
    assert "TLS" in response.json["error"]["message"]
