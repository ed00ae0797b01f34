"""The client address of a request, behind trusted and other proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.proxies import address_range, client_address, trusted_proxies

PROXIES = ("10.0.0.0/8", "192.0.2.7", "fd00::/8", "unix")
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
trusted = st.sampled_from(["10.0.0.1", "10.9.9.9", "192.0.2.7", "fd00::1"])
clients = st.sampled_from(["203.0.113.5", "198.51.100.7", "2001:db8::5", "127.0.0.1"])
garbage = st.one_of(st.text(max_size=30), addresses, trusted)


def chain(*hops: str) -> str:
    return ", ".join(hops)


@given(peer=clients, forged=st.lists(garbage, max_size=5).map(",".join))
def test_untrusted_peer_is_not_believed(peer: str, forged: str) -> None:
    assert client_address(peer, forged, PROXIES) == peer


@given(
    peer=trusted,
    client=clients,
    hops=st.lists(trusted, max_size=5),
    forged=st.lists(garbage, max_size=40),
)
def test_forged_prefix_changes_nothing(
    peer: str, client: str, hops: list[str], forged: list[str]
) -> None:
    assert client_address(peer, chain(*forged, client, *hops), PROXIES) == client


@given(peer=st.one_of(trusted, addresses, st.just("")), header=st.text(max_size=200))
def test_any_header_yields_address_or_peer(peer: str, header: str) -> None:
    address = client_address(peer, header, PROXIES)

    assert address == client_address(address, "", ()) or address == peer
    assert address_range(address) or address == ""


@given(client=clients, peers=st.lists(trusted, min_size=1, max_size=3))
def test_without_proxies_the_peer_counts(client: str, peers: list[str]) -> None:
    assert client_address(peers[0], client, ()) == peers[0]


@pytest.mark.parametrize(
    "peer, header, client",
    [
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::5]:4711", "2001:db8::5"),
        ("10.0.0.1", '"[2001:db8::5]"', "2001:db8::5"),
        ("10.0.0.1", "2001:DB8:0::5", "2001:db8::5"),
        ("10.0.0.1", "::ffff:203.0.113.5", "203.0.113.5"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.5, 10.2.3.4", "203.0.113.5"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.5, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5, _hidden, 10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", "203.0.113.5,", "10.0.0.1"),
        ("192.0.2.8", "203.0.113.5", "192.0.2.8"),
        ("", "203.0.113.5", "203.0.113.5"),
    ],
)
def test_header_is_read_from_the_right(peer: str, header: str, client: str) -> None:
    assert client_address(peer, header, PROXIES) == client


def test_unix_socket_can_be_trusted() -> None:
    assert client_address("", "203.0.113.5", ("10.0.0.0/8",)) == ""


def test_long_header_is_truncated() -> None:
    header = ",".join(["10.0.0.1"] * 20_000)

    assert client_address("10.0.0.2", header, PROXIES) == "10.0.0.1"


def test_ipv6_counts_by_its_network() -> None:
    assert address_range("2001:db8:1:2:3::4") == address_range("2001:db8:1:2::")
    assert address_range("2001:db8:1:2::1") != address_range("2001:db8:1:3::1")
    assert address_range("203.0.113.5") == "203.0.113.5"
    assert address_range("") == ""


def test_proxy_list_is_parsed() -> None:
    assert trusted_proxies(" 10.0.0.0/8, ::1 ,unix,") == ("10.0.0.0/8", "::1", "unix")
    assert trusted_proxies("") == ()


@pytest.mark.parametrize("text", ["nginx", "10.0.0.1/8", "*", "10.0.0.0/33", "unix:/x"])
def test_proxy_list_error_names_fault(text: str) -> None:
    with pytest.raises(ValueError, match="must be addresses") as wrong:
        trusted_proxies(f"127.0.0.1,{text}")
    assert text in str(wrong.value)
