"""Networks that are not part of the public internet, with their specifications.

`ipaddress.is_global` is not used: what it answers differs between versions of Python.

Sources, as they stood on 2026-07-18, that of IPv6 as updated on 2025-10-09. To bring
the tables up to date, compare them with these:
https://www.iana.org/assignments/iana-ipv4-special-registry/
https://www.iana.org/assignments/iana-ipv6-special-registry/
https://www.iana.org/assignments/ipv6-address-space/
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The blocks of both registries whose "Globally Reachable" is not True: False, N/A, or
# blank since the block is deprecated. Blocks inside of one of these are listed only if
# they are not reachable either. A few are (192.0.0.9, 192.0.0.10, 2001:1::1,
# 2001:20::/28 ...); they belong to protocols of routers and name services, no model is
# served there, and they stay refused with the block around them.
IPV4_SPECIAL_PURPOSE = (
    ("0.0.0.0/8", "This network", "RFC 791"),
    ("0.0.0.0/32", "This host on this network", "RFC 1122"),
    ("10.0.0.0/8", "Private-Use", "RFC 1918"),
    ("100.64.0.0/10", "Shared Address Space", "RFC 6598"),
    ("127.0.0.0/8", "Loopback", "RFC 1122"),
    ("169.254.0.0/16", "Link Local", "RFC 3927"),
    ("172.16.0.0/12", "Private-Use", "RFC 1918"),
    ("192.0.0.0/24", "IETF Protocol Assignments", "RFC 6890"),
    ("192.0.0.0/29", "IPv4 Service Continuity Prefix", "RFC 7335"),
    ("192.0.0.8/32", "IPv4 dummy address", "RFC 7600"),
    ("192.0.0.170/32", "NAT64/DNS64 Discovery", "RFC 8880"),
    ("192.0.0.171/32", "NAT64/DNS64 Discovery", "RFC 8880"),
    ("192.0.2.0/24", "Documentation (TEST-NET-1)", "RFC 5737"),
    ("192.88.99.0/24", "Deprecated (6to4 Relay Anycast)", "RFC 7526"),
    ("192.88.99.2/32", "6a44-relay anycast address", "RFC 6751"),
    ("192.168.0.0/16", "Private-Use", "RFC 1918"),
    ("198.18.0.0/15", "Benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "Documentation (TEST-NET-2)", "RFC 5737"),
    ("203.0.113.0/24", "Documentation (TEST-NET-3)", "RFC 5737"),
    ("240.0.0.0/4", "Reserved", "RFC 1112"),
    ("255.255.255.255/32", "Limited Broadcast", "RFC 8190"),
)

IPV6_SPECIAL_PURPOSE = (
    ("::1/128", "Loopback Address", "RFC 4291"),
    ("::/128", "Unspecified Address", "RFC 4291"),
    ("64:ff9b:1::/48", "IPv4-IPv6 Translation, local use", "RFC 8215"),
    ("100::/64", "Discard-Only Address Block", "RFC 6666"),
    ("100:0:0:1::/64", "Dummy IPv6 Prefix", "RFC 9780"),
    ("2001::/23", "IETF Protocol Assignments", "RFC 2928"),
    ("2001::/32", "Teredo, which carries IPv4", "RFC 4380"),
    ("2001:2::/48", "Benchmarking", "RFC 5180"),
    ("2001:10::/28", "Deprecated (previously ORCHID)", "RFC 4843"),
    ("2001:db8::/32", "Documentation", "RFC 3849"),
    ("2002::/16", "6to4, which carries IPv4", "RFC 3056"),
    ("3fff::/20", "Documentation", "RFC 9637"),
    ("5f00::/16", "Segment Routing (SRv6) SIDs", "RFC 9602"),
    ("fc00::/7", "Unique-Local", "RFC 4193"),
    ("fe80::/10", "Link-Local Unicast", "RFC 4291"),
)

# Not in those registries, and not the address of a single server either.
OTHER = (
    ("224.0.0.0/4", "Multicast", "RFC 5771"),
    ("fec0::/10", "Site-Local, deprecated and still routed", "RFC 3879"),
    ("ff00::/8", "Multicast", "RFC 4291"),
)

# Addresses at which cloud platforms serve metadata to their machines, mostly
# credentials. All but Azure's are within a block above; listed so that each is tested.
_AWS = "https://docs.aws.amazon.com/"
_AZURE = "https://learn.microsoft.com/azure/virtual-network/"
_GOOGLE = "https://docs.cloud.google.com/compute/docs/metadata/"
_ORACLE = "https://docs.oracle.com/iaas/Content/Compute/Tasks/"
_ALIBABA = "https://www.alibabacloud.com/help/ecs/user-guide/"
PLATFORMS = (
    ("168.63.129.16/32", "Azure", f"{_AZURE}what-is-ip-address-168-63-129-16"),
    ("192.0.0.192/32", "Oracle", f"{_ORACLE}gettingmetadata.htm"),
    ("100.100.100.200/32", "Alibaba", f"{_ALIBABA}view-instance-metadata"),
    ("169.254.169.254/32", "AWS and most others", f"{_AWS}AWSEC2/latest/UserGuide/"),
    ("169.254.170.2/32", "AWS, of a container", f"{_AWS}AmazonECS/latest/"),
    ("fd00:ec2::254/128", "AWS", f"{_AWS}AWSEC2/latest/UserGuide/"),
    ("fd20:ce::254/128", "Google", f"{_GOOGLE}querying-metadata"),
)

# What IANA assigns to single hosts on the internet. The rest is reserved, or special,
# or embeds an IPv4 address.
IPV6_GLOBAL_UNICAST = IPv6Network("2000::/3")

# IPv6 addresses that stand for the IPv4 address in their last four bytes.
CARRIERS = (
    ("::/96", "IPv4-Compatible, deprecated", "RFC 4291"),
    ("::ffff:0:0/96", "IPv4-mapped Address", "RFC 4291"),
    ("::ffff:0:0:0/96", "IPv4-Translated (SIIT)", "RFC 2765"),
    ("64:ff9b::/96", "IPv4-IPv6 Translation", "RFC 6052"),
)

# They begin with zeros as IPv4-compatible addresses do, and are none.
_NOT_IPV4 = (IPv6Address("::"), IPv6Address("::1"))

# How the last eight bytes of an ISATAP address begin; an IPv4 address follows.
# Source: RFC 5214, section 6.1
_ISATAP = (bytes.fromhex("00005efe"), bytes.fromhex("02005efe"))

_TABLES = (IPV4_SPECIAL_PURPOSE, IPV6_SPECIAL_PURPOSE, OTHER, PLATFORMS)
_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(row[0]) for table in _TABLES for row in table
)
_INTERNAL: dict[int, list[Network]] = {
    version: [network for network in _NETWORKS if network.version == version]
    for version in (4, 6)
}
_CARRIERS = tuple(IPv6Network(row[0]) for row in CARRIERS)


def unwrap_ipv4(address: Address) -> Address:
    """*address* without its zone; the IPv4 address, if it embeds one."""
    if isinstance(address, IPv4Address):
        return address
    bare = IPv6Address(int(address))
    if bare not in _NOT_IPV4 and any(bare in network for network in _CARRIERS):
        return IPv4Address(bare.packed[-4:])
    return bare


def is_internal(address: Address) -> bool:
    """Whether *address* is not on the public internet."""
    effective = unwrap_ipv4(address)
    if any(effective in network for network in _INTERNAL[effective.version]):
        return True
    if isinstance(effective, IPv4Address):
        return False
    if effective not in IPV6_GLOBAL_UNICAST:
        return True
    is_isatap = effective.packed[8:12] in _ISATAP
    return is_isatap and is_internal(IPv4Address(effective.packed[-4:]))
