"""A date says whose word it is."""

from __future__ import annotations

from comity_cli.known_since import earliest, known_day, known_text
from comity_client.evidence.known_since import KnownSince

PROVEN, SAID = KnownSince(86_400, "cosigned", 3), KnownSince(86_400, "claimed", 1)


def test_a_proven_date_a_claimed_one_and_none_are_told_apart() -> None:
    assert known_text(PROVEN) == "cosigned 1970-01-02 (by 3 members), verified here"
    assert known_text(SAID) == "1970-01-02, claimed by nodes of 1 member"
    assert known_text(None) == "unknown"
    assert (known_day(SAID), known_day(None)) == ("1970-01-02", "-")


def test_the_earliest_of_several_times_counts_and_unknown_ones_do_not() -> None:
    later = KnownSince(90_000, "claimed", 2)
    assert earliest([None, later, SAID]) == SAID
    assert earliest([None]) is None
