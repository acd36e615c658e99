"""From an alias that nobody was given to what could be meant by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain.names import AliasParts, Template

SERVER = "hs.test"
DEFAULT = Template("{kind}-{slug}-{tenant}", SERVER)


@pytest.mark.parametrize(
    ("alias", "kind", "slug", "tenant"),
    [
        ("#event-games-t1:hs.test", "event", "games", "t1"),
        ("#group-chess-club-9ab2cd-t1:hs.test", "group", "chess-club-9ab2cd", "t1"),
        ("#group-chess_club_-t1:hs.test", "group", "chess_club_", "t1"),
        ("#event-a--b-t1:hs.test", "event", "a--b", "t1"),
        # Its end looks like a tenant, but the tenant stands last.
        ("#event-games-t2-t1:hs.test", "event", "games-t2", "t1"),
        ("#event-group-x-t1:hs.test", "event", "group-x", "t1"),
    ],
)
def test_what_an_alias_could_mean(alias: str, kind: str, slug: str, tenant: str) -> None:
    assert DEFAULT.read_alias(alias) == AliasParts(kind, slug, tenant)


@pytest.mark.parametrize(
    "alias",
    [
        "#event-games-t1:other.test",
        "#event-games-t1:hs.test:8448",
        "event-games-t1:hs.test",
        "#event-games:hs.test",
        "#Event-games-t1:hs.test",
        "#event-Games-t1:hs.test",
        "#dm-a-b-t1:hs.test",
        "#event--t1:hs.test",
        "#event-games-t_1:hs.test",
        "#_openmeet_control:hs.test",
        "#event-games-t1\n:hs.test",
        "#event-g\u00e4mes-t1:hs.test",
        # A cut slug ends in a hash, from which nobody gets back to the slug.
        f"#event-{'x' * 200}.0123456789-t1:hs.test",
        "#event-" + "x" * 250 + "-t1:hs.test",
    ],
)
def test_fault_10_and_19_an_alias_that_no_template_makes_means_nothing(alias: str) -> None:
    assert DEFAULT.read_alias(alias) is None


SLUGS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}", fullmatch=True)
TENANTS = st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True)


@pytest.mark.parametrize(
    "text",
    ["{kind}-{slug}-{tenant}", "{tenant}.{slug}.{kind}", "om{tenant}_{kind}{slug}", "{slug}{kind}-x{tenant}"],
)
@given(slug=SLUGS, tenant=TENANTS, kind=st.sampled_from(["event", "group"]))
def test_what_a_template_makes_it_reads(text: str, slug: str, tenant: str, kind: str) -> None:
    template = Template(text, SERVER)
    alias = template.alias(kind=kind, slug=slug, tenant=tenant)
    read = template.read_alias(alias)
    # Where two things have one alias, either reading is one that makes it.
    assert read is not None
    assert template.alias(kind=read.kind, slug=read.slug, tenant=read.tenant) == alias


@given(slug=SLUGS, tenant=TENANTS, kind=st.sampled_from(["event", "group"]))
def test_the_usual_template_is_read_exactly(slug: str, tenant: str, kind: str) -> None:
    alias = DEFAULT.alias(kind=kind, slug=slug, tenant=tenant)
    assert DEFAULT.read_alias(alias) == AliasParts(kind, slug.lower(), tenant.lower())
