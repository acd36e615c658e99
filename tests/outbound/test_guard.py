from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.errors import AddressRefused, UrlRefused
from openmeet_appservice.outbound.guard import Guard, leads_to, unmapped

from .special_purpose import METADATA, NETWORKS, Address, Network, samples, wrappings

STRICT = Guard()
LAN = Guard([ip_network("10.1.0.0/16"), ip_network("fd12::/16"), ip_network("127.0.0.0/8")])
OPEN = Guard([ip_network("0.0.0.0/0"), ip_network("::/0")])
BY_NAME = Guard((), ["openmeet.internal"])


def url_of(address: Address) -> str:
    return f"https://{f'[{address}]' if address.version == 6 else address}/hook"


FORBIDDEN = [address for network in NETWORKS for address in samples(network)]
IN_OTHER_FORMS = [
    form
    for address in (*FORBIDDEN, *(ip_address(row[0]) for row in METADATA))
    if isinstance(address, IPv4Address)
    for form in wrappings(address)
]
METADATA_FORMS = [
    form
    for address in (ip_address(row[0]) for row in METADATA)
    for form in (address, *(wrappings(address) if isinstance(address, IPv4Address) else ()))
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_no_special_purpose_address_is_called(network: Network) -> None:
    for address in samples(network):
        with pytest.raises(AddressRefused):
            STRICT.check_address(address)
        with pytest.raises(AddressRefused):
            STRICT.check_answers("example.org", [ip_address("8.8.8.8"), address])
        with pytest.raises((AddressRefused, UrlRefused)):
            STRICT.check_url(url_of(address))


def test_nor_is_one_in_another_form() -> None:
    assert len(IN_OTHER_FORMS) > 1000
    for form in IN_OTHER_FORMS:
        with pytest.raises(AddressRefused):
            STRICT.check_address(form)
        with pytest.raises(AddressRefused):
            STRICT.check_url(url_of(form))


def test_a_zone_changes_nothing() -> None:
    with pytest.raises(AddressRefused):
        STRICT.check_address(ip_address("fe80::1%eth0"))
    with pytest.raises((AddressRefused, UrlRefused)):
        STRICT.check_url("https://[fe80::1%25eth0]/")
    with pytest.raises(AddressRefused):
        STRICT.check_address(ip_address("::ffff:10.0.0.1%1"))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_called(text: str) -> None:
    STRICT.check_address(ip_address(text))


@given(st.ip_addresses())
def test_whatever_the_standard_library_knows_as_inner_is_refused(address: object) -> None:
    found = ip_address(str(address))
    inner = found.is_private or found.is_multicast or found.is_reserved or found.is_loopback
    if inner and unmapped(found) == found:
        with pytest.raises(AddressRefused):
            STRICT.check_address(found)


@given(st.ip_addresses(v=4))
def test_every_way_of_writing_an_address_into_another_is_read(address: IPv4Address) -> None:
    for form in wrappings(address):
        assert int(form) <= 1 or address in (unmapped(form), *leads_to(form))


@pytest.mark.parametrize("text", ["10.1.2.3", "fd12::1", "127.0.0.1", "::ffff:10.1.2.3"])
def test_allowed_networks_are_called_in_whatever_form(text: str) -> None:
    LAN.check_address(ip_address(text))
    LAN.check_address(ip_address(text), plain=True)


@pytest.mark.parametrize("text", ["10.2.0.1", "fd13::1", "192.168.1.1", "::1"])
def test_allowing_one_network_allows_no_other(text: str) -> None:
    with pytest.raises(AddressRefused):
        LAN.check_address(ip_address(text))


@pytest.mark.parametrize("address", METADATA_FORMS, ids=str)
def test_nothing_opens_the_metadata_addresses(address: Address) -> None:
    for guard, host in ((OPEN, ""), (BY_NAME, "openmeet.internal")):
        with pytest.raises(AddressRefused, match="credentials"):
            guard.check_address(address, host=host)
        with pytest.raises(AddressRefused, match="credentials"):
            guard.check_answers("openmeet.internal", [ip_address("10.1.2.3"), address])
    with pytest.raises(AddressRefused, match="credentials"):
        OPEN.check_url(url_of(address))


def test_a_network_behind_nat64_is_opened_by_allowing_its_prefix() -> None:
    guard = Guard([ip_network("64:ff9b::/96")])
    guard.check_address(ip_address("64:ff9b::808:808"))
    for text in ("64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe"):
        with pytest.raises(AddressRefused):
            guard.check_address(ip_address(text))
    with pytest.raises(AddressRefused, match="https"):
        guard.check_address(ip_address("64:ff9b::808:808"), plain=True)


@pytest.mark.parametrize("name", ["openmeet.internal", "OpenMeet.Internal", "openmeet.internal."])
def test_an_allowed_host_may_be_anywhere(name: str) -> None:
    for address in map(ip_address, ("10.1.2.3", "127.0.0.1", "fd12::1", "8.8.8.8")):
        BY_NAME.check_address(address, host=name)
        BY_NAME.check_address(address, host=name, plain=True)
    for url in (f"http://{name}:3000/hook", f"https://{name}/hook"):
        assert BY_NAME.check_url(url) == url


@pytest.mark.parametrize(
    "name", ["internal", "x.openmeet.internal", "openmeet.internal.example.org", "example.org", ""]
)
def test_an_allowed_host_opens_no_other(name: str) -> None:
    with pytest.raises(AddressRefused):
        BY_NAME.check_address(ip_address("10.1.2.3"), host=name)
    with pytest.raises(UrlRefused):
        BY_NAME.check_url(f"http://{name or '10.1.2.3'}/hook")


def test_this_machine_may_be_allowed_by_name() -> None:
    guard = Guard((), ["localhost"])
    assert guard.check_url("http://localhost:8080/")
    with pytest.raises(AddressRefused):
        guard.check_url("https://127.0.0.1/")


def test_one_refused_address_refuses_the_name() -> None:
    good, bad = ip_address("8.8.8.8"), ip_address("10.1.2.3")
    STRICT.check_answers("example.org", [good])
    for answers in ([good, bad], [bad, good], [bad]):
        with pytest.raises(AddressRefused, match=r"10\.1\.2\.3"):
            STRICT.check_answers("example.org", answers)


def test_of_this_machine_s_own_name_one_fit_address_is_enough() -> None:
    only_ipv4 = Guard([ip_network("127.0.0.0/8")])
    only_ipv4.check_answers("localhost", [ip_address("::1"), ip_address("127.0.0.1")])
    with pytest.raises(AddressRefused):
        only_ipv4.check_answers("localhost", [ip_address("::1")])


def test_without_tls_only_allowed_networks_are_called() -> None:
    with pytest.raises(AddressRefused, match="https"):
        LAN.check_address(ip_address("8.8.8.8"), plain=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "https://example.org:8443/a/b?c=d",
        "https://8.8.8.8/hook",
        "https://[2606:4700::1111]/hook",
        "https://hooks.exämple.org/x",
        "https://example.org./x",
        "https://1e100.example/x",
    ],
)
def test_urls_that_may_be_called(url: str) -> None:
    assert STRICT.check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://127.0.0.1/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "example.org/hook",
        "//example.org/hook",
        "https://",
        "https:///hook",
        "https://user@example.org/",
        "https://user:pass@example.org/",
        "https://:pass@example.org/",
        "https://example.org/#x",
        "https://example.org/#",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:x/",
        "https://exa mple.org/",
        "https://example.org/\n",
        "https://example.org\\@evil.org/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.1.1/",
        "https://127.0.1/",
        "https://0x7f.1/",
        "https://0X7F.0.0.0X1/",
        "https://017700000001/",
        "https://0/",
        "https://00000000177.1/",
        "https://4294967297/",
        "https://2130706433./",
        "https://x.0x7f000001/",
        "https://[::ffff:127.0.0.1/",
        "https://[127.0.0.1]/",
        "https://[v1.fe80::a]/",
        "https://user%40@example.org/",
        "https://example.org:-1/",
        "https://example.org:80:80/",
        "https://[::1/",
        "https://example.org/" + "a" * 2048,
        "",
    ],
)
def test_urls_that_may_not_be_stored(url: str) -> None:
    with pytest.raises(UrlRefused):
        STRICT.check_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://[::1]:8443/", "https://localhost/", "https://x.localhost./",
     "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://192.168.0.1",
     "https://127.0.0.1./", "https://LOCALHOST/", "https://localhost./", "https://[0:0:0:0:0:0:0:1]/",
     "https://[::ffff:7f00:1]/", "https://[0000::ffff:a00:1]/", "https://127.0.0.1:443/",
     # What IDNA makes of other alphabets' digits, letters and dots.
     "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020\u30020\u30021/", "https://\u2460\u2461\u2466.0.0.1/",
     "https://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/"],
)  # fmt: skip
def test_urls_with_an_inner_address(url: str) -> None:
    with pytest.raises(AddressRefused):
        STRICT.check_url(url)


def test_http_goes_to_allowed_networks_only() -> None:
    for url in ("http://10.1.2.3:3000/hook", "http://localhost/", "http://openmeet.internal/hook"):
        assert LAN.check_url(url) == url
    for url in ("http://10.2.0.1/", "http://8.8.8.8/", "http://[fd13::1]/"):
        with pytest.raises(AddressRefused):
            LAN.check_url(url)


@given(st.text())
def test_any_text_is_judged_without_a_fault(text: str) -> None:
    for url in (text, f"https://{text}", f"https://a{text}/"):
        try:
            STRICT.check_url(url)
        except (UrlRefused, AddressRefused):
            continue
