"""Secrets at rest."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice import errors
from openmeet_appservice.store.secretbox import SecretBox


def key() -> str:
    return Fernet.generate_key().decode()


KEY = key()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_opens_and_shows_nothing(text: str) -> None:
    box = SecretBox([KEY])
    sealed = box.seal(text)
    assert box.open(sealed) == text
    assert sealed.isascii()
    assert len(text) < 3 or text not in sealed
    assert box.seal(text) != sealed


def test_a_key_is_replaced_by_putting_the_new_one_first() -> None:
    old, new = key(), key()
    sealed = SecretBox([old]).seal("whsec_x")
    both = SecretBox([new, old])
    assert both.open(sealed) == "whsec_x"
    assert SecretBox([new]).open(both.seal("whsec_y")) == "whsec_y"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sealed: sealed[:-4],
        lambda sealed: "",
        lambda sealed: sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:],
    ],
)
def test_what_was_changed_does_not_open(spoil: object) -> None:
    assert callable(spoil)
    box = SecretBox([KEY])
    with pytest.raises(errors.SecretUnreadable):
        box.open(spoil(box.seal("whsec_x")))


def test_a_lost_key_is_named_as_the_cause_without_any_secret() -> None:
    sealed = SecretBox([key()]).seal("whsec_x")
    with pytest.raises(errors.SecretUnreadable, match=r"security\.encryption_keys") as caught:
        SecretBox([key()]).open(sealed)
    assert sealed not in str(caught.value)


@pytest.mark.parametrize("keys", [[], ["short"], [KEY, "x" * 44]])
def test_unusable_keys_are_refused_without_showing_them(keys: list[str]) -> None:
    with pytest.raises(errors.ConfigError, match="encryption_keys") as caught:
        SecretBox(keys)
    assert not any(k in str(caught.value) for k in keys)


def test_which_key_opens_is_told() -> None:
    first, second = key(), key()
    box = SecretBox([first, second])
    assert box.key_of(box.seal("x")) == 0
    assert box.key_of(SecretBox([second]).seal("x")) == 1
    assert box.key_of(SecretBox([key()]).seal("x")) is None
