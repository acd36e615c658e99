"""What to do when the homeserver and this service do not reach each other, for each way it can fail."""

from __future__ import annotations

import re

from openmeet_appservice.errors import HomeserverError, HomeserverRefused

_ADVICE = {
    "M_URL_NOT_SET": (
        "The registration that Synapse has loaded names no `url`, so it sends nothing. Write the "
        "registration again (`openmeet-appservice registration`), put it where Synapse reads it, and "
        "restart Synapse."
    ),
    "M_UNKNOWN_TOKEN": (
        "Synapse does not know our as_token. Either its `app_service_config_files` does not list our "
        "registration, or that file holds another as_token than the configuration. Synapse reads the file "
        "only when it starts: put the current one there and restart Synapse."
    ),
    "M_FORBIDDEN": (
        "Our as_token belongs to an application service of another id. `appservice.id` in the "
        "configuration and `id` in the registration that Synapse has loaded must be the same; correct it "
        "and restart Synapse."
    ),
    "M_CONNECTION_FAILED": (
        "Synapse cannot connect to the `url` in our registration. From Synapse's machine or container that "
        "address must lead to `appservice.listen`: inside a container, `localhost` is the container itself. "
        "Correct `appservice.url`, write the registration again and restart Synapse."
    ),
    "M_CONNECTION_TIMEOUT": (
        "Synapse reaches the `url` in our registration but gets no answer in time: look for a firewall or a "
        "proxy in between, and whether something else listens there."
    ),
    "M_UNRECOGNIZED": (
        "What answers at `homeserver.url` knows no pings to application services. It has to be Synapse 1.85 "
        "or newer, and a proxy in between must pass `/_matrix/client/v1/appservice/` on."
    ),
    "M_LIMIT_EXCEEDED": (
        "Synapse limits our rate. The registration must say `rate_limited: false`; write it again and "
        "restart Synapse."
    ),
}

_BY_STATUS = {
    "401": (
        "Synapse calls us without the hs_token. Something between it and us removes the header "
        "`Authorization`."
    ),
    "403": (
        "We refuse Synapse's hs_token: the registration that it has loaded is not the one of this "
        "configuration. Put the current one there and restart Synapse."
    ),
    "404": (
        "Somebody answers Synapse at the `url` in our registration, but not we. Correct `appservice.url` "
        "(no path, and the port of `appservice.listen`), write the registration again and restart Synapse."
    ),
}

_BAD_STATUS = (
    "Somebody answers Synapse at the `url` in our registration, but not with success. A proxy in between, or "
    "another program on that port? Its log and ours say more."
)

_UNREACHABLE = (
    "There is no usable answer from `homeserver.url`. See whether Synapse runs, and whether that address is "
    "right from here."
)

_UNKNOWN = "Synapse's log says more."

_STATUS_IN_WORDS = re.compile(r"\b([1-5][0-9]{2})\b")


def advice(error: HomeserverError) -> str:
    """Return what an admin can do about *error*, raised by a ping (`ServerCalls.ping`).

    The codes are those of the specification (*Application service API, pinging*). With
    ``M_BAD_STATUS`` Synapse tells in its words which status it got from us.
    """
    if not isinstance(error, HomeserverRefused):
        return _UNREACHABLE
    if error.errcode == "M_MISSING_TOKEN":
        return _ADVICE["M_UNKNOWN_TOKEN"]
    if error.errcode == "M_BAD_STATUS":
        found = _STATUS_IN_WORDS.search(error.error)
        return _BY_STATUS.get(found.group(1), _BAD_STATUS) if found else _BAD_STATUS
    return _ADVICE.get(error.errcode, _UNKNOWN)
