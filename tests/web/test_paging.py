from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.errors import Invalid
from openmeet_appservice.web.paging import decode_page_token, encode_page_token

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(_TEXT, st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_token_brings_its_key_back(text: str, number: int) -> None:
    token = encode_page_token(text, number)
    assert decode_page_token(token, str, int) == (text, number)
    assert token.isascii()
    assert not set(token) & set("+/=&?# ")


@given(st.text())
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_page_token(token, str, int)
    assert caught.value.errors[0].pointer == "?page_token"


@pytest.mark.parametrize(
    "key", ['["a"]', '["a", "b"]', '["a", 1, 2]', '["a", true]', '["a", 1e3]', '["a\\u0000", 1]',
            '{"a": 1}', '["a", 99999999999999999999]', '["a", -9223372036854775808]']
)  # fmt: skip
def test_a_key_of_another_form_is_refused(key: str) -> None:
    token = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    with pytest.raises(Invalid):
        decode_page_token(token, str, int)
