from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openmeet_appservice.domain.names import (
    CONTROL_ALIAS_LOCALPART,
    SLUG,
    TENANT_ID,
    Template,
    check_slug,
    check_tenant_id,
    full_alias,
    full_user_id,
    key,
    temporary_alias_localpart,
)
from openmeet_appservice.errors import InvalidName

ALIAS = "{kind}-{slug}-{tenant}"
PUPPET = "openmeet_{tenant}_{user}"

slugs = st.from_regex(SLUG, fullmatch=True)
tenants = st.from_regex(TENANT_ID, fullmatch=True)
servers = st.from_regex(r"[a-z]{1,60}(\.[a-z]{2,60})?(:[0-9]{4})?", fullmatch=True)
kinds = st.sampled_from(["event", "group"])


@pytest.mark.parametrize("text", ["a", "A1", "x" * 64, "lsdfaopkljdfs"])
def test_tenant_ids(text: str) -> None:
    assert check_tenant_id(text) == text


@pytest.mark.parametrize("text", ["", "a-b", "a_b", "x" * 65, "ä", "a\n", " a", "a:b", "١"])
def test_no_tenant_ids(text: str) -> None:
    with pytest.raises(InvalidName):
        check_tenant_id(text)


@pytest.mark.parametrize("text", ["a", "0", "Board--Games_", "a" * 255, "dm-x", "event-a-t1"])
def test_slugs(text: str) -> None:
    assert check_slug(text) == text


@pytest.mark.parametrize("text", ["", "-a", "_a", "a" * 256, "a b", "a.b", "é", "a\n", "a~b", "a:b"])
def test_no_slugs(text: str) -> None:
    with pytest.raises(InvalidName):
        check_slug(text)


def test_key_lowers_ascii_only() -> None:
    assert key("Board-GAMES_9") == "board-games_9"
    assert key("\u212aelvin \u0130") == "\u212aelvin \u0130"


def test_alias() -> None:
    template = Template(ALIAS, "hs.test")
    assert template.is_alias
    assert template.alias(kind="event", slug="Board-Games", tenant="T1") == ("#event-board-games-t1:hs.test")


def test_user_id() -> None:
    template = Template(PUPPET, "hs.test:8448")
    assert not template.is_alias
    assert template.user_id(tenant="T1", user="Ada-x8Z1") == "@openmeet_t1_ada-x8z1:hs.test:8448"


def test_literals_become_lower_case() -> None:
    template = Template("OM.{tenant}.{user}", "hs.test")
    assert template.user_id(tenant="t1", user="ada") == "@om.t1.ada:hs.test"


def test_the_long_name_is_the_one_promised() -> None:
    """Names are stored, but a change here would still give old and new things different names."""
    alias = Template(ALIAS, "hs.test").alias(kind="event", slug="A" * 255, tenant="t1")
    assert alias == "#event-" + "a" * 226 + ".337a13015e" + "-t1:hs.test"


def test_long_slugs_that_begin_alike_keep_apart() -> None:
    template = Template(ALIAS, "hs.test")
    first, second = ("x" * 250 + end for end in "ab")
    assert template.localpart(kind="event", slug=first, tenant="t") != template.localpart(
        kind="event", slug=second, tenant="t"
    )


@given(slug=slugs, tenant=tenants, server=servers, kind=kinds)
def test_aliases_are_always_allowed(slug: str, tenant: str, server: str, kind: str) -> None:
    alias = Template(ALIAS, server).alias(kind=kind, slug=slug, tenant=tenant)
    assert re.fullmatch(rf"#{kind}-[a-z0-9][a-z0-9._-]*-[a-z0-9]+:{re.escape(server)}", alias)
    assert len(alias.encode()) <= 255
    assert not alias.startswith("#_openmeet_")


@given(user=slugs, tenant=tenants, server=servers)
def test_user_ids_are_always_allowed(user: str, tenant: str, server: str) -> None:
    user_id = Template(PUPPET, server).user_id(tenant=tenant, user=user)
    assert re.fullmatch(rf"@[a-z0-9._=/+-]+:{re.escape(server)}", user_id)
    assert len(user_id.encode()) <= 255


@given(one=slugs, other=slugs, tenant_one=tenants, tenant_other=tenants)
def test_different_things_have_different_names(
    one: str, other: str, tenant_one: str, tenant_other: str
) -> None:
    assume((key(one), key(tenant_one)) != (key(other), key(tenant_other)))
    for text, name in ((ALIAS, "slug"), (PUPPET, "user")):
        template = Template(text, "x" * 60 + ".test")
        more = {"kind": "event"} if name == "slug" else {}
        assert template.localpart(**{name: one, "tenant": tenant_one}, **more) != (
            template.localpart(**{name: other, "tenant": tenant_other}, **more)
        )


@given(slug=slugs)
def test_a_cut_name_is_no_other_slugs_name(slug: str) -> None:
    template = Template(ALIAS, "x" * 60 + ".test")
    localpart = template.localpart(kind="event", slug=slug, tenant="t")
    was_cut = localpart != f"event-{key(slug)}-t"
    assert was_cut == ("." in localpart)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{kind}-{slug}",
        "{kind}-{slug}-{tenant}-{user}",
        "{kind}-{slug}-{slug}-{tenant}",
        "{kind}-{slug}-{tenant",
        "{kind}-{slug}-}{tenant}",
        "{}-{slug}-{tenant}",
        "{kind}-{slug}-{tenant!r}",
        "{kind}-{slug}-{tenant:>9}",
        "{kind}-{slug}-{tenant.real}",
        "{kind} {slug}-{tenant}",
        "{kind}:{slug}-{tenant}",
        "#{kind}-{slug}-{tenant}",
        "\0{kind}-{slug}-{tenant}",
        "_{kind}-{slug}-{tenant}",
        "_openmeet_{slug}{kind}{tenant}",
        "{tenant}_{user}_ä",
        "{tenant}~{user}",
    ],
)
def test_no_templates(text: str) -> None:
    with pytest.raises(InvalidName):
        Template(text, "hs.test")


def test_user_templates_may_begin_with_an_underscore() -> None:
    template = Template("_om_{tenant}_{user}", "hs.test")
    assert template.localpart(tenant="t", user="u") == "_om_t_u"


def test_a_template_needs_exactly_its_fields() -> None:
    with pytest.raises(TypeError):
        Template(ALIAS, "hs.test").localpart(kind="event", slug="a")


def test_no_place_for_a_slug() -> None:
    template = Template(ALIAS, "s" * 230)
    assert template.alias(kind="event", slug="abc", tenant="t").startswith("#event-abc-t:")
    with pytest.raises(InvalidName):
        template.alias(kind="event", slug="a" * 100, tenant="t" * 20)


@pytest.mark.parametrize("localpart", ["", "Ada", "a b", "ä", "a\n", "a:b", "a" * 250])
def test_no_user_ids(localpart: str) -> None:
    with pytest.raises(InvalidName):
        full_user_id(localpart, "hs.test")


def test_the_limit_counts_bytes() -> None:
    assert len(full_alias("ä" * 123, "hs.test").encode()) == 255
    with pytest.raises(InvalidName):
        full_alias("ä" * 124, "hs.test")


def test_temporary_alias() -> None:
    claim = "0123456789abcdef"
    assert temporary_alias_localpart(claim) == "_openmeet_0123456789abcdef"
    assert temporary_alias_localpart(claim) != CONTROL_ALIAS_LOCALPART


@pytest.mark.parametrize("claim", ["", "control", "ABCDEFABCDEFABCDEF", "a" * 65, "0123456789abcde-"])
def test_no_claims(claim: str) -> None:
    with pytest.raises(InvalidName):
        temporary_alias_localpart(claim)
