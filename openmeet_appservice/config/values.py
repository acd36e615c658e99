"""The kinds of value a configuration can hold: durations, addresses, secrets, URLs, networks.

Every check here raises `ValueError` with words that fit behind the name of a key ("must be …"). No message
repeats a secret; other values are repeated so that a typing error is seen at a glance.
"""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr, ValidationInfo
from yarl import URL

from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.domain.durations import duration_text, parse_duration

PLACEHOLDER = "REPLACE-ME"
"""What secrets begin with in `config.example.yaml`; never accepted as a secret."""

MINIMUM_SECRET = 32
"""Characters that a token must have at least (the contract's measure for keys)."""

MINIMUM_RATE, MAXIMUM_RATE = 1 / 60, 100.0
"""How many times a second something may be allowed to happen."""

_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}
_ADMIN_KEY = re.compile(rf"omk_admin_[A-Za-z0-9_-]{{{MINIMUM_SECRET},}}")
# The last label is no number, for that would be a spelling of an address.
# Matrix spec, appendix "Server Name": a DNS name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?![0-9]+\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
_SERVER_NAME = re.compile(r"(?:[A-Za-z0-9.-]{1,230}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


def parse_rate(value: object) -> float:
    """Return how many times a second a text such as ``2/s`` or ``30/m`` stands for."""
    rate = value if isinstance(value, float) else 0.0
    if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())):
        rate = float(match[1]) / _RATE_SECONDS[match[2]]
    if not MINIMUM_RATE <= rate <= MAXIMUM_RATE:
        raise ValueError(f"must be a number and its time, such as 2/s or 30/m, 1/m to 100/s, not {value!r}")
    return rate


def rate_text(value: float) -> str:
    """Write *value*, times a second, as `parse_rate` reads it."""
    return f"{value:g}/s" if value >= 1 or value * 60 < 1 else f"{value * 60:g}/m"


def parse_address(value: object) -> Address:
    """Return the address that ``host:port`` or ``[ipv6]:port`` names."""
    if isinstance(value, Address):
        return value
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", str(value))
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError(f"must be host:port, such as 127.0.0.1:29350, not {value!r}")
    return Address(host=match[1] or match[2], port=int(match[3]))


def check_http_url(value: str) -> str:
    """Return *value* without a closing slash; it must be an http or https URL of a host, and no more."""
    try:
        parts = urlsplit(value)
        port_is_right = parts.port != 0
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right:
        raise ValueError("must be a URL such as http://localhost:8008")
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("must not hold spaces or control characters")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("must end before '?' and '#'")
    return value.rstrip("/")


def check_server_name(value: str) -> str:
    """Return *value* if it is a Matrix server name (the part of user ids behind the first colon)."""
    if "://" in value:
        raise ValueError("is the name in user ids (@ada:example.org → example.org), not a URL")
    if not _SERVER_NAME.fullmatch(value):
        raise ValueError("must be a server name such as example.org")
    return value


def check_token(value: SecretStr) -> SecretStr:
    """Return *value* if it can serve as a token of a registration."""
    text = _without_placeholder(value)
    if len(text) < MINIMUM_SECRET:
        raise ValueError(f"must have at least {MINIMUM_SECRET} characters; `init` makes good ones")
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be of visible ASCII characters, without spaces")
    return value


def check_access_token(value: SecretStr) -> SecretStr:
    """Return *value* if it can be the access token of a Matrix account, which the homeserver has made."""
    if not re.fullmatch(r"[!-~]+", _without_placeholder(value)):
        raise ValueError("must be of visible ASCII characters, without spaces")
    return value


def check_admin_key(value: SecretStr) -> SecretStr:
    """Return *value* if it has the form that the contract gives to an admin key."""
    if not _ADMIN_KEY.fullmatch(_without_placeholder(value)):
        raise ValueError(
            f"must be omk_admin_ and at least {MINIMUM_SECRET} random letters, digits, '_' or '-'"
        )
    return value


def check_encryption_key(value: SecretStr) -> SecretStr:
    """Return *value* if it is a Fernet key (32 random bytes in base64, as the Fernet spec says)."""
    try:
        Fernet(_without_placeholder(value, "an encryption key").encode())
    except ValueError as error:
        if PLACEHOLDER in str(error):
            raise
        raise ValueError("must be 32 random bytes in URL-safe base64 (44 characters)") from None
    return value


def check_signing_secret(value: SecretStr) -> SecretStr:
    """Return *value* if it is a secret of the Standard Webhooks specification."""
    text = _without_placeholder(value)
    try:
        if not text.startswith("whsec_") or not 24 <= len(b64decode(text[6:], validate=True)) <= 64:
            raise ValueError
    except ValueError:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes") from None
    return value


def check_database_url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    """Return *value* with a relative SQLite path put under ``info.context["folder"]``.

    The URL is kept like a secret, for it may hold a password.
    """
    url = value.get_secret_value()
    if url.startswith("sqlite:///"):
        file = url.removeprefix("sqlite:///").partition("?")[0]
        if file in ("", ":memory:"):
            raise ValueError("must name a file, such as sqlite:///openmeet-appservice.db")
        folder: Path = (info.context or {}).get("folder", Path())
        return SecretStr(f"sqlite:///{(folder / file).absolute()}")
    if url.startswith("postgresql://") and urlsplit(url).path.strip("/"):
        return value
    raise ValueError(
        "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE "
        "(anything in a password that is not a letter or digit is percent-encoded)"
    )


def shown_url(value: SecretStr) -> str:
    """Write a database URL without its password, also without one that hides in the query."""
    url = re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", value.get_secret_value())
    return re.sub(r"(?i)([?&][^=&]*password[^=&]*=)[^&]*", r"\1***", url)


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """Return the network that *value* writes as ``10.0.0.0/8``; one address is a network of its own."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(str(value))
    except ValueError:
        pass
    try:
        nearest = ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(f"must be a network such as 10.0.0.0/8, not {value!r}") from None
    raise ValueError(f"must be a network: {value} is an address in {nearest}")


def check_host_name(value: str) -> str:
    """Return *value*, a host's name, as URLs write it: in lower case and ASCII, without a closing dot."""
    try:
        ip_address(value.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError(f"must be a name; the address {value} goes into allowed_networks")
    try:
        name = URL(f"https://{value}/").raw_host or ""
    except ValueError:
        name = ""
    name = name.rstrip(".").lower()
    if any(sign in "/:@?#%" or not sign.isprintable() for sign in value) or not _HOST_NAME.fullmatch(name):
        raise ValueError(
            f"must be a host's name such as openmeet.internal, without scheme or port, not {value!r}"
        )
    return name


def _without_placeholder(value: SecretStr, what: str = "a secret") -> str:
    text = value.get_secret_value()
    if PLACEHOLDER in text:
        raise ValueError(
            f"still holds the example's placeholder {PLACEHOLDER}, not {what}: "
            "`openmeet-appservice init` writes a configuration with fresh secrets"
        )
    return text


def _as_text(value: Any) -> Any:
    # YAML reads `version: 12` as a number; what is meant is the room version's name.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    # A secret file may hold bare keys, one a line, as well as a YAML list.
    return value.split() if isinstance(value, str) else value


def _hidden(_: object) -> str:
    return "***"


Secret = Annotated[SecretStr, PlainSerializer(_hidden, return_type=str, when_used="json")]
AccessToken = Annotated[Secret, AfterValidator(check_access_token)]
Token = Annotated[Secret, AfterValidator(check_token)]
AdminKey = Annotated[Secret, AfterValidator(check_admin_key)]
EncryptionKey = Annotated[Secret, AfterValidator(check_encryption_key)]
SigningSecret = Annotated[Secret, AfterValidator(check_signing_secret)]
SigningSecrets = Annotated[tuple[SigningSecret, ...], BeforeValidator(_as_list)]
EncryptionKeys = Annotated[tuple[EncryptionKey, ...], BeforeValidator(_as_list)]
DatabaseUrl = Annotated[
    SecretStr,
    AfterValidator(check_database_url),
    PlainSerializer(shown_url, return_type=str, when_used="json"),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_text, return_type=str, when_used="json"),
]
Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    PlainSerializer(rate_text, return_type=str, when_used="json"),
]
ListenAddress = Annotated[
    Address,
    BeforeValidator(parse_address),
    PlainSerializer(str, return_type=str, when_used="json"),
]
HttpUrl = Annotated[str, AfterValidator(check_http_url)]
ServerName = Annotated[str, AfterValidator(check_server_name)]
RoomVersion = Annotated[str, BeforeValidator(_as_text)]
HostName = Annotated[str, AfterValidator(check_host_name)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network)]
