from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.errors import AddressRefused, UrlRefused
from openmeet_appservice.outbound.guard import Guard, unwrapped

STRICT = Guard()
LAN = Guard([ip_network("10.1.0.0/16"), ip_network("fd12::/16"), ip_network("127.0.0.0/8")])
OPEN = Guard([ip_network("0.0.0.0/0"), ip_network("::/0")])

INNER = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2002:a9fe:a9fe::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "168.63.129.16",
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
    "64:ff9b::808:808",
    "2002:808:808::",
]


@pytest.mark.parametrize("text", INNER)
def test_inner_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressRefused):
        STRICT.check_address(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_called(text: str) -> None:
    STRICT.check_address(ip_address(text))


@given(st.ip_addresses())
def test_whatever_the_standard_library_knows_as_inner_is_refused(address: object) -> None:
    found = ip_address(str(address))
    if found.is_private or found.is_multicast or found.is_reserved or found.is_loopback:
        real = unwrapped(found)
        if real == found:
            with pytest.raises(AddressRefused):
                STRICT.check_address(found)


@pytest.mark.parametrize("text", ["10.1.2.3", "fd12::1", "127.0.0.1", "::ffff:10.1.2.3"])
def test_allowed_networks_are_called_in_whatever_form(text: str) -> None:
    LAN.check_address(ip_address(text))
    LAN.check_address(ip_address(text), plain=True)


@pytest.mark.parametrize("text", ["10.2.0.1", "fd13::1", "192.168.1.1", "::1"])
def test_allowing_one_network_allows_no_other(text: str) -> None:
    with pytest.raises(AddressRefused):
        LAN.check_address(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
     "fd00:ec2::254", "100.100.100.200", "fe80::a9fe:a9fe%eth0"],
)  # fmt: skip
def test_nothing_opens_the_metadata_addresses(text: str) -> None:
    with pytest.raises(AddressRefused, match="credentials"):
        OPEN.check_address(ip_address(text))


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
     "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://192.168.0.1"],
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
