"""The special-purpose address registries of IANA (RFC 6890), and what else is no public web service.

Each row: the block, its name, and the registry's column "globally reachable" (None: not applicable). Sources:
https://www.iana.org/assignments/iana-ipv4-special-registry/ and
https://www.iana.org/assignments/iana-ipv6-special-registry/ (as of October 2025).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

IANA_IPV4: tuple[tuple[str, str, bool | None], ...] = (
    ("0.0.0.0/8", "this network", False),
    ("0.0.0.0/32", "this host on this network", False),
    ("10.0.0.0/8", "private use", False),
    ("100.64.0.0/10", "shared address space", False),
    ("127.0.0.0/8", "loopback", False),
    ("169.254.0.0/16", "link-local", False),
    ("172.16.0.0/12", "private use", False),
    ("192.0.0.0/24", "IETF protocol assignments", False),
    ("192.0.0.0/29", "IPv4 service continuity prefix", False),
    ("192.0.0.8/32", "IPv4 dummy address", False),
    ("192.0.0.9/32", "Port Control Protocol anycast", True),
    ("192.0.0.10/32", "TURN anycast", True),
    ("192.0.0.170/32", "NAT64/DNS64 discovery", False),
    ("192.0.0.171/32", "NAT64/DNS64 discovery", False),
    ("192.0.2.0/24", "documentation (TEST-NET-1)", False),
    ("192.31.196.0/24", "AS112-v4", True),
    ("192.52.193.0/24", "AMT", True),
    ("192.88.99.0/24", "deprecated (6to4 relay anycast)", None),
    ("192.88.99.2/32", "6a44 relay anycast", False),
    ("192.168.0.0/16", "private use", False),
    ("192.175.48.0/24", "direct delegation AS112 service", True),
    ("198.18.0.0/15", "benchmarking", False),
    ("198.51.100.0/24", "documentation (TEST-NET-2)", False),
    ("203.0.113.0/24", "documentation (TEST-NET-3)", False),
    ("240.0.0.0/4", "reserved", False),
    ("255.255.255.255/32", "limited broadcast", False),
)

IANA_IPV6: tuple[tuple[str, str, bool | None], ...] = (
    ("::1/128", "loopback", False),
    ("::/128", "unspecified", False),
    ("64:ff9b::/96", "IPv4-IPv6 translation", True),
    ("64:ff9b:1::/48", "IPv4-IPv6 translation for local use", False),
    ("100::/64", "discard only", False),
    ("100:0:0:1::/64", "dummy prefix", False),
    ("2001::/23", "IETF protocol assignments", False),
    ("2001::/32", "Teredo", None),
    ("2001:1::1/128", "Port Control Protocol anycast", True),
    ("2001:1::2/128", "TURN anycast", True),
    ("2001:1::3/128", "DNS-SD registration anycast", True),
    ("2001:2::/48", "benchmarking", False),
    ("2001:3::/32", "AMT", True),
    ("2001:4:112::/48", "AS112-v6", True),
    ("2001:10::/28", "deprecated (ORCHID)", None),
    ("2001:20::/28", "ORCHIDv2", True),
    ("2001:30::/28", "drone remote identification", True),
    ("2001:db8::/32", "documentation", False),
    ("2002::/16", "6to4", None),
    ("2620:4f:8000::/48", "direct delegation AS112 service", True),
    ("3fff::/20", "documentation", False),
    ("5f00::/16", "segment routing identifiers", False),
    ("fc00::/7", "unique local", False),
    ("fe80::/10", "link-local", False),
)
"""All but ``::ffff:0:0/96`` (IPv4-mapped), whose addresses are judged as the IPv4 ones that they are."""

OTHERS: tuple[tuple[str, str], ...] = (
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("fec0::/10", "site-local, deprecated"),
    ("::/96", "IPv4-compatible, deprecated"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("200::/7", "NSAP, deprecated"),
    ("4000::/3", "not given out"),
)

METADATA: tuple[tuple[str, str], ...] = (
    ("169.254.169.254", "AWS, Azure, Google, OpenStack, DigitalOcean, Hetzner, Oracle and others"),
    ("169.254.169.253", "AWS's resolver"),
    ("169.254.170.2", "AWS containers"),
    ("169.254.170.23", "AWS pods"),
    ("169.254.0.23", "Tencent"),
    ("169.254.10.10", "Tencent"),
    ("169.254.42.42", "Scaleway"),
    ("100.100.100.200", "Alibaba"),
    ("168.63.129.16", "Azure's host"),
    ("192.0.0.192", "Oracle"),
    ("fd00:ec2::254", "AWS"),
    ("fd00:ec2::23", "AWS pods"),
    ("fd20:ce::254", "Google"),
    ("fd00:42::42", "Scaleway"),
    ("fd00:c1::a9fe:a9fe", "Oracle"),
    ("fd00:a9fe:a9fe::1", "Linode"),
    ("fd00:100::100:200", "Alibaba"),
    ("fe80::a9fe:a9fe", "OpenStack"),
)

NETWORKS: tuple[Network, ...] = tuple(
    dict.fromkeys(ip_network(str(row[0])) for row in (*IANA_IPV4, *IANA_IPV6, *OTHERS))
)


def samples(network: Network) -> Iterator[Address]:
    """Return the first, the second, one in the middle and the last address of *network*."""
    size = network.num_addresses
    yield from dict.fromkeys(network[at] for at in (0, min(1, size - 1), size // 2, size - 1))


def wrappings(address: IPv4Address) -> Iterator[IPv6Address]:
    """Return the IPv6 addresses that lead to *address*, by every way of writing it into one."""
    number = int(address)
    yield IPv6Address(int(IPv6Address("::ffff:0:0")) | number)  # mapped
    yield IPv6Address(number)  # compatible
    yield IPv6Address(int(IPv6Address("::ffff:0:0:0")) | number)  # translated
    yield IPv6Address(int(IPv6Address("64:ff9b::")) | number)  # NAT64
    yield IPv6Address(int(IPv6Address("2002::")) | number << 80 | 1)  # 6to4
    yield IPv6Address(int(IPv6Address("2001::")) | number << 64 | 1)  # Teredo server
    yield IPv6Address(int(IPv6Address("2001:0:808:808::")) | number ^ 0xFFFFFFFF)  # Teredo client
    local = int(IPv6Address("64:ff9b:1::"))
    high, low = number >> 16, number & 0xFFFF
    yield IPv6Address(local | number)  # NAT64 of a /96
    yield IPv6Address(local | high << 64 | low << 40)  # NAT64 of the /48 (RFC 6052, 2.2)
    yield IPv6Address(local | number >> 24 << 64 | (number & 0xFFFFFF) << 32)  # of a /56
    yield IPv6Address(local | number << 24)  # of a /64
