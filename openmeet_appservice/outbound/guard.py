"""Which URLs and addresses this service calls (against server-side request forgery).

Whoever may set a webhook's URL could otherwise make this service call what only this machine reaches: its
own listeners, the database, a cloud's metadata. A name says little, since it may resolve to anything and
to something else a second later; so the addresses are judged when they are dialled, all that the name has:
one that is refused refuses the name. What can be judged when the URL is written is refused there already.

The networks are those that the IANA special-purpose address registries (RFC 6890) and the multicast
registries keep from ordinary use, and of IPv6 all outside 2000::/3, from which alone IANA gives out
addresses for unicast. Addresses that the registries call globally reachable but that nobody offers a web
service at are among them. `ipaddress.is_global` is no substitute: Python 3.11 calls NAT64, 6to4, site-local
and multicast addresses global.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
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
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
        "4000::/2",  # not for unicast: segment routing
        "8000::/1",  # not for unicast: private, link-local, site-local, multicast
    )
)

_METADATA: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "169.254.169.0/24",  # .254: nearly every cloud; .253: AWS's resolver; .123: its clock
        "169.254.170.0/24",  # AWS's credentials of containers (.2) and pods (.23)
        "169.254.0.23/32",  # Tencent
        "169.254.10.10/32",  # Tencent
        "169.254.42.42/32",  # Scaleway
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host
        "192.0.0.192/32",  # Oracle
        "fd00:ec2::/32",  # AWS, ::254 and ::23
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:a9fe:a9fe::1/128",  # Linode
        "fd00:100::100:200/128",  # Alibaba
        "fe80::a9fe:a9fe/128",  # OpenStack
    )
)
"""Where clouds serve a machine's credentials. Nothing opens these."""

_MAPPED = IPv6Network("::ffff:0:0/96")
_LOCALHOST = (ip_address("127.0.0.1"), ip_address("::1"))
_NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")


class Guard:
    """Judges addresses and URLs.

    Parameters
    ----------
    allowed_networks
        Networks that may be called although they are not public, such as where OpenMeet runs.
    allowed_hosts
        Names whose addresses may be anywhere, for a place that has no network of its own. Neither opens the
        addresses at which clouds serve a machine's credentials.
    """

    def __init__(self, allowed_networks: Iterable[Network] = (), allowed_hosts: Iterable[str] = ()) -> None:
        self._networks = tuple(allowed_networks)
        self._hosts = frozenset(_name(host) for host in allowed_hosts)

    def check_address(self, address: Address, *, host: str = "", plain: bool = False) -> None:
        """Return if *address* may be dialled.

        Parameters
        ----------
        address
            What is dialled. It must be fit itself, and so must the IPv4 address that it leads to.
        host
            The name that was asked for, where there was one.
        plain
            Without TLS: then only what is explicitly allowed will do.

        Raises
        ------
        AddressRefused
            It may not.
        """
        bare = unmapped(address)
        inner = leads_to(bare)
        for each in (bare, *inner):
            if _within(each, _METADATA):
                raise AddressRefused(f"{_shown(address, each)} serves a machine's credentials.")
        if _name(host) in self._hosts:
            return
        # Where it may lead to several, nobody knows which; whoever allowed such a network answers for it.
        for each in (bare, *inner) if len(inner) == 1 else (bare,):
            self._check_one(each, _shown(address, each), plain=plain)

    def _check_one(self, address: Address, shown: str, *, plain: bool) -> None:
        if _within(address, self._networks):
            return
        if _within(address, _DENIED):
            raise AddressRefused(
                f"{shown} is not public, and neither in webhooks.allowed_networks nor an address of one of "
                "webhooks.allowed_hosts."
            )
        if plain:
            raise AddressRefused(
                f"{shown} is neither in webhooks.allowed_networks nor an address of one of "
                "webhooks.allowed_hosts, so it is called with https only."
            )

    def check_answers(self, host: str, addresses: Sequence[Address], *, plain: bool = False) -> None:
        """Return if all *addresses* that the name *host* was resolved to may be dialled.

        ``localhost`` is this machine's own name: there one fit address is enough, and only that is dialled.

        Raises
        ------
        AddressRefused
            One may not.
        """
        refused: list[AddressRefused] = []
        for address in addresses:
            try:
                self.check_address(address, host=host, plain=plain)
            except AddressRefused as reason:
                refused.append(reason)
        if refused and (not _is_localhost(host) or len(refused) == len(addresses)):
            raise refused[0]

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
        host, plain = url.raw_host or "", url.scheme == "http"
        if plain and not self._networks and _name(host) not in self._hosts:
            raise UrlRefused("The URL must begin with https://.")
        self.check_answers(host, _literal(host), plain=plain)
        return text


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped *address* stands for, else itself without a zone."""
    if isinstance(address, IPv4Address):
        return address
    bare = IPv6Address(int(address))
    return IPv4Address(int(bare) & _LOW) if bare in _MAPPED else bare


def leads_to(address: Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that translators and tunnels may take an IPv6 *address* to.

    The well-known prefix of NAT64 holds one (RFC 6052); one for local use may hold it in several places (RFC
    8215), 6to4 in one (RFC 3056), Teredo holds two (RFC 4380), stateless translation (RFC 7915) and the
    IPv4-compatible addresses of old (RFC 4291) one.
    """
    if isinstance(address, IPv4Address) or address in (_ANY, _LOOPBACK):
        return ()
    bits = int(address)
    found = (read(bits) & _LOW for network, reads in _EMBEDDED if address in network for read in reads)
    return tuple(IPv4Address(number) for number in dict.fromkeys(found))


def _last(bits: int) -> int:
    return bits


def _behind(start: int, bits: int) -> int:
    """Read what begins at bit *start*, leaving out bits 64 to 71, as RFC 6052 §2.2 has it."""
    without = (bits >> 64 << 56) | (bits & (1 << 56) - 1)
    return without >> (120 - start - 32)


_LOW = 0xFFFFFFFF
_ANY, _LOOPBACK = IPv6Address("::"), IPv6Address("::1")
_EMBEDDED: tuple[tuple[IPv6Network, tuple[Callable[[int], int], ...]], ...] = (
    (IPv6Network("64:ff9b::/96"), (_last,)),
    (IPv6Network("64:ff9b:1::/48"), (_last, *(partial(_behind, start) for start in (48, 56, 64)))),
    (IPv6Network("2002::/16"), (lambda bits: bits >> 80,)),
    (IPv6Network("2001::/32"), (lambda bits: bits >> 64, lambda bits: ~bits)),
    (IPv6Network("::ffff:0:0:0/96"), (_last,)),
    (IPv6Network("::/96"), (_last,)),
)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _shown(address: Address, meant: Address) -> str:
    return str(address) if address == meant else f"{address} ({meant})"


def _name(host: str) -> str:
    return host.rstrip(".").lower()


def _is_localhost(host: str) -> bool:
    return _name(host) == "localhost" or _name(host).endswith(".localhost")


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
    name = _name(host)
    if _is_localhost(name):
        return _LOCALHOST
    try:
        return (ip_address(name),)
    except ValueError:
        # Resolvers read 127.1 and 0x7f000001 as addresses; nobody means well who writes them so.
        if _NUMERIC_HOST.fullmatch(name) or ":" in name:
            raise UrlRefused("The URL's host is neither a name nor an IP address as it is written.") from None
        return ()
