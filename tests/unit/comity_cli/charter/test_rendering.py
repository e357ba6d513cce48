"""A decided epoch is dated by what is proven, and by an earlier claim of nodes, which is called one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comity_cli.charter.rendering import _dated
from comity_client.evidence.known_since import KnownSince

DAY = 86_400


@pytest.mark.parametrize(
    ("seen", "known", "text"),
    [
        (None, None, "no date is proven"),
        (5 * DAY, None, "seen by cosigners on 1970-01-06"),
        (5 * DAY, 5 * DAY + 9, "seen by cosigners on 1970-01-06"),
        (5 * DAY, 2 * DAY, "known since 1970-01-03, claimed by nodes of 2 members; seen by cosigners on 1970-01-06"),
        (None, 2 * DAY, "known since 1970-01-03, claimed by nodes of 2 members; no date is proven"),
    ],
)
def test_a_claim_is_said_where_it_is_earlier_than_what_is_proven(
    seen: int | None, known: int | None, text: str
) -> None:
    since = None if known is None else KnownSince(known, "claimed", 2)
    epoch: Any = SimpleNamespace(seen=seen, known_since=since)
    assert _dated(epoch) == text
