"""Name templates: what is refused, and that what is accepted never gives two things one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.config.templates import (
    alias_pattern,
    check_alias_template,
    check_user_template,
    matches,
    user_pattern,
)
from openmeet_appservice.domain.names import SLUG, TENANT_ID, Template, key

TENANTS = st.from_regex(TENANT_ID, fullmatch=True)
SLUGS = st.from_regex(SLUG, fullmatch=True)
LITERALS = st.text(st.sampled_from("abz09_-.=/+"), max_size=6)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("openmeet_{tenant}", r"must hold \{user\}"),
        ("openmeet_{tenant}_{user}_{user}", r"must hold \{user\} once"),
        ("openmeet_{tenant}_{slug}", r"unknown placeholder \{slug\}"),
        ("openmeet_{tenant_{user}", "lone"),
        ("OpenMeet_{tenant}_{user}", "may hold a-z"),
        ("openmeet:{tenant}_{user}", "may hold a-z"),
        ("{tenant}_{user}", "must begin with two letters or more of its own"),
        ("{user}_{tenant}", "must begin with two letters or more of its own"),
        ("openmeet_{tenant}{user}", "something between"),
        ("openmeet_{user}x{tenant}", "something between"),
        ("", r"must hold \{tenant\}"),
    ],
)
def test_refused_user_templates(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_user_template(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{slug}-{tenant}", r"must hold \{kind\}"),
        ("{kind}-{slug}-{tenant}-{user}", r"unknown placeholder \{user\}"),
        ("_{kind}-{slug}-{tenant}", "must not begin with '_'"),
        ("{kind}:{slug}-{tenant}", "must not hold"),
        ("{kind} {slug}-{tenant}", "must not hold"),
        ("#{kind}-{slug}-{tenant}", "must not hold"),
        ("Meet-{kind}-{slug}-{tenant}", "must be lower-case"),
        ("{kind}-{slug}{tenant}", "something between"),
        ("{tenant}{kind}{slug}", "something between"),
    ],
)
def test_refused_alias_templates(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_alias_template(template)


def accepted_user_templates() -> st.SearchStrategy[str]:
    return st.tuples(LITERALS, LITERALS, LITERALS, st.permutations(["{tenant}", "{user}"])).map(
        lambda t: f"om{t[0]}{t[3][0]}{t[1]}_{t[3][1]}{t[2]}"
    )


def accepted_alias_templates() -> st.SearchStrategy[str]:
    order = st.permutations(["{tenant}", "{kind}", "{slug}"])
    return st.tuples(LITERALS, LITERALS, LITERALS, order).map(
        lambda t: f"m{t[0]}{t[3][0]}-{t[1]}{t[3][1]}{t[2]}-{t[3][2]}"
    )


@given(accepted_user_templates(), TENANTS, SLUGS, TENANTS, SLUGS)
def test_users_never_share_a_name(template: str, tenant: str, user: str, tenant2: str, user2: str) -> None:
    check_user_template(template)
    names = Template(template, "example.org")
    one = names.localpart(tenant=tenant, user=user)
    other = names.localpart(tenant=tenant2, user=user2)
    assert (one == other) == ((key(tenant), key(user)) == (key(tenant2), key(user2)))
    assert matches(user_pattern(template), one)


@given(accepted_alias_templates(), st.sampled_from(["event", "group"]), TENANTS, SLUGS, SLUGS)
def test_aliases_match_their_pattern(template: str, kind: str, tenant: str, slug: str, other: str) -> None:
    check_alias_template(template)
    names = Template(template, "example.org")
    alias = names.localpart(kind=kind, slug=slug, tenant=tenant)
    assert matches(alias_pattern(template), alias)
    assert (alias == names.localpart(kind=kind, slug=other, tenant=tenant)) == (key(slug) == key(other))


@given(st.data())
def test_moving_the_border_between_tenant_and_user_gives_another_name(data: st.DataObject) -> None:
    template = check_user_template(data.draw(accepted_user_templates()))
    names = Template(template, "example.org")
    text = data.draw(st.text(st.sampled_from("ab1"), min_size=2, max_size=8))
    cuts = [
        names.localpart(tenant=text[:cut], user=text[cut:].lstrip("_-") or "x") for cut in range(1, len(text))
    ]
    assert len(set(cuts)) == len(cuts)
