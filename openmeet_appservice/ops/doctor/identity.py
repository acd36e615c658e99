"""Who we are in Synapse's eyes: tokens, the bot's name, and which names are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mautrix.api import Method, Path

from openmeet_appservice.config import Config
from openmeet_appservice.domain.names import Template, full_alias, temporary_alias_localpart
from openmeet_appservice.errors import HomeserverError, HomeserverRefused
from openmeet_appservice.homeserver import AdminCalls, Homeserver, MatrixApi
from openmeet_appservice.intake.advice import advice
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning

_ANEW = (
    "Write the registration again (`openmeet-appservice registration --force`), put it where Synapse reads "
    "it, and restart Synapse."
)


async def check_tokens(
    config: Config, homeservers: Mapping[str, Homeserver]
) -> tuple[list[Finding], Homeserver | None, str]:
    """Try each as_token alone; return what was found, who is to be asked from now on, and who we are.

    Parameters
    ----------
    homeservers
        By the key of each as_token, as the configuration names it, a client that has only that one.
    """
    accepted: dict[str, str] = {}
    refused: dict[str, HomeserverError] = {}
    for key, homeserver in homeservers.items():
        try:
            accepted[key] = await homeserver.whoami()
        except HomeserverError as error:
            refused[key] = error
    if not accepted:
        return [_not_accepted(key, error) for key, error in refused.items()], None, ""
    findings = [ok(key, f"accepted, as {user_id}") for key, user_id in accepted.items()]
    findings += [_rotation(key, error) for key, error in refused.items()]
    key, user_id = next(iter(accepted.items()))
    return [*findings, _check_bot(config, user_id)], homeservers[key], user_id


def _not_accepted(key: str, error: HomeserverError) -> Finding:
    verdict = "not accepted" if isinstance(error, HomeserverRefused) else "could not be checked"
    return problem(key, f"{verdict}: {error}", advice(error))


def _rotation(key: str, error: HomeserverError) -> Finding:
    """Tell how far the change of tokens has come, when the other token is accepted."""
    if not isinstance(error, HomeserverRefused) or error.errcode != "M_UNKNOWN_TOKEN":
        return warning(key, f"could not be checked: {error}", advice(error))
    if key == "as_token":
        remedy = (
            "Finish the change: move the values of `appservice.as_token_next` and `hs_token_next` to "
            "`as_token` and `hs_token`, and restart this service."
        )
        return info(key, "no longer accepted, the next one is", remedy)
    return info(key, "not yet accepted, the present one is", _ANEW)


async def check_admin(admin: AdminCalls, new_name: Callable[[], str]) -> Finding:
    """Ask, as the admin, about a room that does not exist: only an admin is told so."""
    name = "admin_token"
    try:
        await admin.room_exists(f"!{new_name()}")
    except HomeserverRefused as error:
        if error.status in (401, 403):
            remedy = (
                "Set `homeserver.admin_token` to the access token of a server admin, or null: rooms cannot "
                "be deleted for good until then."
            )
            return problem(name, f"not an admin's: {error}", remedy)
        if error.status == 404:
            remedy = "Let /_synapse/admin through to Synapse from this machine."
            return problem(name, f"Synapse's admin API is not at homeserver.url: {error}", remedy)
        raise
    return ok(name, "accepted, as an admin's")


def _check_bot(config: Config, user_id: str) -> Finding:
    wanted = f"@{config.appservice.bot_localpart}:{config.homeserver.server_name}"
    if user_id == wanted:
        return ok("server name", f"the bot is {user_id}")
    localpart, _, server = user_id.removeprefix("@").partition(":")
    what = f"the bot is {user_id} for Synapse and {wanted} in the configuration"
    if server != config.homeserver.server_name:
        return problem("server name", what, f"Set `homeserver.server_name: {server}`.")
    remedy = f"Set `appservice.bot_localpart: {localpart}`, or else: {_ANEW}"
    return problem("server name", what, remedy)


async def check_user_namespace(
    template: Template, homeserver: Homeserver, api: MatrixApi, new_name: Callable[[], str]
) -> Finding:
    """Try to act as a puppet that does not exist, and see whether a person could take its name.

    Synapse answers both refusals with ``M_FORBIDDEN`` and tells only in words whether the user is missing
    or not ours.
    """
    name = "user namespace"
    puppet = template.user_id(tenant=new_name(), user="doctor")
    try:
        await homeserver.whoami(as_user=puppet)
    except HomeserverRefused as error:
        if error.errcode != "M_FORBIDDEN":
            raise
        if "has not registered" not in error.error:
            return problem(name, f"Synapse does not let us act as puppets: {error}", _ANEW)
    if await _is_free(api, template.localpart(tenant=new_name(), user="doctor")):
        return problem(name, "Synapse lets anybody register our puppets' names", _ANEW)
    return ok(name, f"puppets such as {template.text} are ours")


async def _is_free(api: MatrixApi, localpart: str) -> bool:
    path = Path.v3.register.available
    try:
        await api.call("register_available", Method.GET, path, query={"username": localpart})
    except HomeserverRefused:
        # Exclusive, or nobody can register at all.
        return False
    return True


async def check_alias_namespace(
    template: Template, homeserver: Homeserver, new_name: Callable[[], str]
) -> Finding:
    """Delete aliases that do not exist: Synapse allows it where they would be ours."""
    probes = {
        f"aliases such as {template.text}": [
            template.alias(kind=kind, slug="doctor", tenant=new_name()) for kind in ("event", "group")
        ],
        "the temporary aliases of rooms in the making": [
            full_alias(temporary_alias_localpart(new_name()), template.server)
        ],
    }
    name = "alias namespace"
    for what, aliases in probes.items():
        for alias in aliases:
            try:
                await homeserver.delete_alias(alias)
            except HomeserverRefused as error:
                if error.errcode != "M_EXCLUSIVE":
                    raise
                return problem(name, f"Synapse does not let us use {what}: {error}", _ANEW)
    return ok(name, f"aliases such as {template.text} are ours")
