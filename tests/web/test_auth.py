from __future__ import annotations

import pytest

from openmeet_appservice.errors import Forbidden, NotAuthenticated, NotFound
from openmeet_appservice.web.auth import (
    authenticate,
    authorize,
    check_supplied_key,
    digest,
    new_key,
)
from openmeet_appservice.web.routes import Access, Caller, Scope

ADMIN = Caller(Scope.ADMIN, None, "k1", "admin")
PLATFORM = Caller(Scope.PLATFORM, None, "k2", "backend")
TENANT = Caller(Scope.TENANT, "t1", "k3", "tenant")


@pytest.mark.parametrize("scope", list(Scope))
def test_a_new_key_is_fit_to_be_supplied(scope: Scope) -> None:
    key = new_key(scope)
    assert key.startswith(f"omk_{scope.value}_")
    assert check_supplied_key(scope, key) == key
    assert new_key(scope) != key


@pytest.mark.parametrize(
    "key",
    [
        "omk_admin_" + "0123456789abcdef" * 2,
        "omk_tenant_" + "0123456789abcdef" * 2 + "\n",
        "omk_tenant_" + "0123456789abcdef" + "0123456789abcde",
        "omk_tenant_" + "0123456789abcdef" * 9,
        "omk_tenant_" + "ab" * 20,
        "omk_tenant_" + "0123456789abcde ï" * 2,
        "",
    ],
)
def test_a_supplied_key_must_have_the_form(key: str) -> None:
    with pytest.raises(ValueError, match="omk_tenant_") as caught:
        check_supplied_key(Scope.TENANT, key)
    assert "0123456789abcdef" not in str(caught.value)


async def test_the_lookup_gets_the_digest_and_not_the_key() -> None:
    asked: list[str] = []

    async def lookup(digest: str) -> Caller | None:
        asked.append(digest)
        return TENANT

    key = new_key(Scope.TENANT)
    assert await authenticate([f"bearer {key}"], lookup) is TENANT
    assert asked == [digest(key)]
    assert len(digest(key)) == 64


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Basic abc"],
        ["Bearer a b"],
        ["Bearer a", "Bearer a"],
        ["Bearer " + "a" * 257],
        ["Bearer é"],
    ],
)
async def test_what_is_no_bearer_key_is_not_looked_up(headers: list[str]) -> None:
    async def lookup(digest: str) -> Caller | None:
        raise AssertionError

    with pytest.raises(NotAuthenticated):
        await authenticate(headers, lookup)


@pytest.mark.parametrize(
    ("caller", "access", "path_tenant", "refusal"),
    [
        (ADMIN, Access.ADMIN, None, None),
        (ADMIN, Access.ADMIN, "t1", None),
        (ADMIN, Access.PLATFORM, None, None),
        (ADMIN, Access.TENANT, "t1", None),
        (PLATFORM, Access.ANYONE_WITH_KEY, None, None),
        (PLATFORM, Access.TENANT, "t1", None),
        (PLATFORM, Access.PLATFORM, None, None),
        (PLATFORM, Access.ADMIN, None, Forbidden),
        (PLATFORM, Access.ADMIN, "t1", Forbidden),
        (TENANT, Access.ANYONE_WITH_KEY, None, None),
        (TENANT, Access.TENANT, "t1", None),
        (TENANT, Access.TENANT, "T1", None),
        (TENANT, Access.TENANT, "t2", NotFound),
        (TENANT, Access.TENANT, "", NotFound),
        (TENANT, Access.TENANT, None, NotFound),
        (TENANT, Access.PLATFORM, None, Forbidden),
        (TENANT, Access.ADMIN, None, Forbidden),
        (TENANT, Access.ADMIN, "t1", Forbidden),
        (TENANT, Access.ADMIN, "t2", Forbidden),
    ],
)
def test_who_may_call_what(
    caller: Caller, access: Access, path_tenant: str | None, refusal: type[Exception] | None
) -> None:
    if refusal is None:
        authorize(caller, access, path_tenant)
    else:
        with pytest.raises(refusal):
            authorize(caller, access, path_tenant)


def test_the_kelvin_sign_is_not_the_letter_k() -> None:
    with pytest.raises(NotFound):
        authorize(Caller(Scope.TENANT, "k", "k4", ""), Access.TENANT, "\u212a")


def test_only_a_tenants_key_belongs_to_a_tenant() -> None:
    with pytest.raises(ValueError, match="tenant"):
        Caller(Scope.TENANT, None, "k", "")
    with pytest.raises(ValueError, match="tenant"):
        Caller(Scope.PLATFORM, "t1", "k", "")
