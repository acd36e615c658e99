"""What is answered to whom."""

from __future__ import annotations

import pytest

from openmeet_appservice.domain.invitations import InvitationPolicy, accepts
from openmeet_appservice.domain.tenant_settings import invitation_policy

ACCEPT, DECLINE = InvitationPolicy.ACCEPT, InvitationPolicy.DECLINE


def test_only_direct_chats_are_ever_accepted() -> None:
    for policy in InvitationPolicy:
        assert not accepts(policy, direct=False)
        assert accepts(policy, direct=True) is (policy is ACCEPT)


@pytest.mark.parametrize("default", [ACCEPT, DECLINE])
def test_a_tenant_may_choose(default: InvitationPolicy) -> None:
    assert invitation_policy(default, {}) is default
    assert invitation_policy(default, {"users": None, "rooms": {"access": "anyone"}}) is default
    for chosen in InvitationPolicy:
        assert invitation_policy(default, {"users": {"direct_invitations": chosen.value}}) is chosen
