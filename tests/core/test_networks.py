"""The networks that are not public, each at its edges."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from app.core import networks
from app.core.hosts import InternalHost, custom_host, may_be_called
from app.core.networks import is_internal, unwrap_ipv4

TABLES = (
    networks.IPV4_SPECIAL_PURPOSE,
    networks.IPV6_SPECIAL_PURPOSE,
    networks.OTHER,
    networks.PLATFORMS,
)
LISTED = [row[0] for table in TABLES for row in table]

# The addresses right before and after each network, where those are public. None:
# the neighbour is another listed network, or not assigned by IANA.
NEIGHBOURS: dict[str, tuple[str | None, str | None]] = {
    "0.0.0.0/8": (None, "1.0.0.0"),
    "10.0.0.0/8": ("9.255.255.255", "11.0.0.0"),
    "100.64.0.0/10": ("100.63.255.255", "100.128.0.0"),
    "127.0.0.0/8": ("126.255.255.255", "128.0.0.0"),
    "169.254.0.0/16": ("169.253.255.255", "169.255.0.0"),
    "172.16.0.0/12": ("172.15.255.255", "172.32.0.0"),
    "192.0.0.0/24": ("191.255.255.255", "192.0.1.0"),
    "192.0.0.0/29": ("191.255.255.255", None),
    "192.0.2.0/24": ("192.0.1.255", "192.0.3.0"),
    "192.88.99.0/24": ("192.88.98.255", "192.88.100.0"),
    "192.168.0.0/16": ("192.167.255.255", "192.169.0.0"),
    "198.18.0.0/15": ("198.17.255.255", "198.20.0.0"),
    "198.51.100.0/24": ("198.51.99.255", "198.51.101.0"),
    "203.0.113.0/24": ("203.0.112.255", "203.0.114.0"),
    "224.0.0.0/4": ("223.255.255.255", None),
    "168.63.129.16/32": ("168.63.129.15", "168.63.129.17"),
    "2001::/23": (
        "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:200::",
    ),
    "2001::/32": ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "2001:db8::/32": (
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
    ),
    "2002::/16": ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    "3fff::/20": ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
}


@pytest.mark.parametrize("network", LISTED)
def test_network_is_internal_from_edge_to_edge(network: str) -> None:
    first, last = ip_network(network)[0], ip_network(network)[-1]

    for address in (first, last, ip_network(network)[len_half(network)]):
        assert is_internal(address)
        host = f"[{address}]" if address.version == 6 else str(address)
        with pytest.raises(InternalHost):
            custom_host(f"http://{host}", ())
        assert not may_be_called("models.example.com", [str(address)], ())


def len_half(network: str) -> int:
    """The index of an address in the middle of *network*."""
    return ip_network(network).num_addresses // 2


@pytest.mark.parametrize(
    "network, side",
    [(n, side) for n, pair in NEIGHBOURS.items() for side in (0, 1) if pair[side]],
)
def test_address_beside_a_network_is_public(network: str, side: int) -> None:
    address = NEIGHBOURS[network][side]
    edge = ip_network(network)[-1 if side else 0]

    assert address and ip_address(address) == edge + (1 if side else -1)
    assert not is_internal(ip_address(address))


@pytest.mark.parametrize("network", LISTED)
def test_neighbour_is_public_or_listed(network: str) -> None:
    """Each neighbour of a network is checked: as public above, or as listed here."""
    low, high = NEIGHBOURS.get(network, (None, None))
    first, last = ip_network(network)[0], ip_network(network)[-1]
    outside = [first - 1] if low is None and int(first) else []
    outside += [last + 1] if high is None and last != last_address(last) else []

    assert all(is_internal(address) for address in outside)


def last_address(like: object) -> IPv4Address | IPv6Address:
    longest = 2**128 - 1
    return IPv6Address(longest) if isinstance(like, IPv6Address) else LAST_IPV4


LAST_IPV4 = IPv4Address(2**32 - 1)


@pytest.mark.parametrize(
    "address",
    ["4000::", "4000::1", "5eff::1", "e000::1", "200::1", "fe00::1", "1fff::1"],
)
def test_ipv6_outside_of_global_unicast_is_internal(address: str) -> None:
    assert is_internal(ip_address(address))


@pytest.mark.parametrize("address", ["2000::", "2600::1", "2a00::1", "2620:4f:8000::1"])
def test_ipv6_inside_of_global_unicast_is_public(address: str) -> None:
    assert not is_internal(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "192.31.196.1",
        "192.52.193.1",
        "192.175.48.1",
        "8.8.8.8",
        "93.184.216.34",
    ],
)
def test_reachable_blocks_of_the_registry_stay_public(address: str) -> None:
    assert not is_internal(ip_address(address))


@pytest.mark.parametrize("carrier", [row[0] for row in networks.CARRIERS])
@pytest.mark.parametrize(
    "carried, internal",
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("168.63.129.16", True),
        ("8.8.8.8", False),
    ],
)
def test_embedded_ipv4_address_decides(
    carrier: str, carried: str, internal: bool
) -> None:
    network = ip_network(carrier)
    address = IPv6Address(int(network[0]) + int(IPv4Address(carried)))

    assert unwrap_ipv4(address) == IPv4Address(carried)
    assert is_internal(address) is internal


@pytest.mark.parametrize(
    "address",
    [
        # ISATAP, 6to4, Teredo: the IPv4 address is at another position.
        "2600::5efe:10.0.0.1",
        "2600::200:5efe:192.168.1.1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b:1::808:808",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
    ],
)
def test_tunnelled_address_is_internal(address: str) -> None:
    assert is_internal(ip_address(address))


def test_isatap_address_of_a_public_host_is_public() -> None:
    assert not is_internal(ip_address("2600::5efe:8.8.8.8"))


def test_every_row_names_its_reference() -> None:
    rows = [row for table in (*TABLES, networks.CARRIERS) for row in table]

    assert all(len(row) == 3 and all(row) for row in rows)
    assert all(row[2].startswith(("RFC ", "https://")) for row in rows)
    assert len({row[0] for row in rows}) == len(rows)
