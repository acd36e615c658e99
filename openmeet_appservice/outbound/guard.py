"""Which URLs and addresses this service calls (against server-side request forgery).

Whoever may set a webhook's URL could otherwise make this service call what only this machine reaches: its
own listeners, the database, a cloud's metadata. A name says little, since it may resolve to anything and
to something else a second later; so the address is judged when it is dialled. What can be judged when the
URL is written is refused there already.

The networks are those that the IANA special-purpose address registries (RFC 6890) and the multicast
registries keep from ordinary use, and of IPv6 all outside 2000::/3, from which alone IANA gives out
addresses for unicast. `ipaddress.is_global` is no substitute: Python 3.11 calls NAT64, 6to4,
site-local and multicast addresses global.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from yarl import URL

from openmeet_appservice.errors import AddressRefused, UrlRefused

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MAX_URL_CHARACTERS = 2048

_DENIED: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # former 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "::/3",  # not for unicast: loopback, mapped forms, local NAT64, discard
        "2001::/23",  # protocol assignments, Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
        "4000::/2",  # not for unicast: segment routing
        "8000::/1",  # not for unicast: private, link-local, site-local, multicast
    )
)

_METADATA: frozenset[Address] = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack and others
        "169.254.170.2",  # AWS container credentials
        "169.254.170.23",
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure's host
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
        "fe80::a9fe:a9fe",  # OpenStack
    )
)

_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_MAPPED = IPv6Network("::ffff:0:0/96")
_LOCALHOST = (ip_address("127.0.0.1"), ip_address("::1"))
_NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")


class Guard:
    """Judges addresses and URLs.

    Parameters
    ----------
    allowed_networks
        Networks that may be called although they are not public, such as where OpenMeet runs. They never
        open the addresses at which clouds serve a machine's credentials.
    """

    def __init__(self, allowed_networks: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed_networks)

    def allows_explicitly(self, address: Address) -> bool:
        """Whether *address* lies in a network that the admin allowed."""
        found = unwrapped(address)
        return found not in _METADATA and any(found in network for network in self._allowed)

    def check_address(self, address: Address, *, plain: bool = False) -> None:
        """Return if *address* may be dialled.

        Parameters
        ----------
        address
            What is dialled. IPv4 addresses inside IPv6 ones are judged as what they lead to.
        plain
            Without TLS: then only explicitly allowed networks will do.

        Raises
        ------
        AddressRefused
            It may not.
        """
        found = unwrapped(address)
        shown = str(found) if found == address else f"{address} ({found})"
        if found in _METADATA:
            raise AddressRefused(f"{shown} serves a machine's credentials.")
        if self.allows_explicitly(found):
            return
        if plain:
            raise AddressRefused(
                f"{shown} is not in webhooks.allowed_networks, so it is called with https only."
            )
        if any(found in network for network in _DENIED):
            raise AddressRefused(f"{shown} is not public, and not in webhooks.allowed_networks.")

    def check_url(self, text: str) -> str:
        """Return *text* if it is a URL that may be stored and called.

        Raises
        ------
        UrlRefused
            It is malformed, too long, holds credentials or a fragment, or is neither https nor http to a
            place that may be allowed.
        AddressRefused
            Its host is an address that may not be called.
        """
        url = _parsed(text)
        if url.scheme == "http" and not self._allowed:
            raise UrlRefused("The URL must begin with https://.")
        addresses = _literal(url.raw_host or "")
        if addresses:
            self._check_any(addresses, plain=url.scheme == "http")
        return text

    def _check_any(self, addresses: tuple[Address, ...], *, plain: bool) -> None:
        """Refuse if all are refused, for the reason of the first."""
        reasons: list[AddressRefused] = []
        for address in addresses:
            try:
                self.check_address(address, plain=plain)
            except AddressRefused as reason:
                reasons.append(reason)
        if len(reasons) == len(addresses):
            raise reasons[0]


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped, NAT64 or 6to4 *address* leads to, else itself."""
    if isinstance(address, IPv4Address):
        return address
    bare = IPv6Address(int(address))
    if bare in _MAPPED or bare in _NAT64:
        return IPv4Address(int(bare) & 0xFFFFFFFF)
    if bare in _SIX_TO_FOUR:
        return IPv4Address((int(bare) >> 80) & 0xFFFFFFFF)
    return bare


def _parsed(text: str) -> URL:
    if len(text) > MAX_URL_CHARACTERS or not text.isprintable() or " " in text or "\\" in text:
        raise UrlRefused("The URL is too long, or holds spaces or other characters no URL has.")
    try:
        url = URL(text)
        port, host = url.port, url.raw_host
    except ValueError:
        raise UrlRefused("That is not a URL.") from None
    if url.scheme not in {"https", "http"}:
        raise UrlRefused("The URL must begin with https://.")
    if not host or not port:
        raise UrlRefused("The URL names no host, or no usable port.")
    if url.raw_user is not None or url.raw_password is not None:
        raise UrlRefused("The URL must not hold a user name or password.")
    if "#" in text:
        raise UrlRefused("The URL must not have a fragment (#...).")
    return url


def _literal(host: str) -> tuple[Address, ...]:
    """The addresses that *host* is without asking anybody, none where it is a name to be resolved."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return _LOCALHOST
    try:
        return (ip_address(name),)
    except ValueError:
        # Resolvers read 127.1 and 0x7f000001 as addresses; nobody means well who writes them so.
        if _NUMERIC_HOST.fullmatch(name):
            raise UrlRefused("The URL's host is a number that is no IP address.") from None
        return ()
