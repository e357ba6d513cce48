"""Since when a statement is known: nodes' words move little, and proofs count before them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.encoding import sha256
from comity.wire.messages import LocatedEntry
from comity_client.evidence.artifact_info import _known
from comity_client.evidence.known_since import ClaimedTimes, KnownSince, cosigned_since
from hypothesis import given
from hypothesis import strategies as st

LINE, OTHER = b"a line", b"another"
TIMES = st.lists(st.integers(1, 2_000), min_size=1, max_size=6)


def said(line: bytes, since: int) -> LocatedEntry:
    return LocatedEntry("node/log", 0, line, known_since=since)


def claimed(*times: int, line: bytes = LINE) -> ClaimedTimes:
    """What one member after the other says of a line."""
    found = ClaimedTimes()
    for number, since in enumerate(times):
        found.add(sha256(b"%d" % number), [said(line, since)])
    return found


def test_what_nobody_says_is_unknown() -> None:
    assert ClaimedTimes().of(LINE) is None
    assert claimed(0, 0).of(LINE) is None, "a node of an earlier version says nothing"
    assert claimed(5).of(OTHER) is None


def test_the_word_of_one_counts_only_where_no_other_says_more() -> None:
    assert claimed(5).of(LINE) == KnownSince(5, "claimed", 1)
    assert claimed(5, 900, 800).of(LINE) == KnownSince(800, "claimed", 2)
    assert claimed(900, 900, 900).of(LINE) == KnownSince(900, "claimed", 3)


@given(times=TIMES, liar=st.integers(1, 3_000))
def test_no_member_moves_the_time_beyond_those_that_others_say(times: list[int], liar: int) -> None:
    """Whatever one more member says: the time stays between the earliest and the second earliest of the others."""
    found = claimed(*times, liar).of(LINE)
    assert found is not None
    ordered = sorted(times)
    assert ordered[0] <= found.at <= max(ordered[:2][-1], liar if len(times) == 1 else 0)


def test_a_member_counts_once_with_the_earliest_that_it_says_of_any_line() -> None:
    found = claimed(700, 900)
    found.add(sha256(b"0"), [said(LINE, 800), said(OTHER, 600)])
    assert found.of(LINE) == KnownSince(900, "claimed", 2)
    found.add(sha256(b"2"), [said(OTHER, 650)])
    assert found.of(LINE, OTHER) == KnownSince(650, "claimed", 2)


def test_a_proof_that_is_here_counts_before_what_nodes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    proven = KnownSince(1_000, "cosigned", 3)
    monkeypatch.setattr("comity_client.evidence.artifact_info.proven_times", lambda *_: {LINE: proven})
    evidence, session = SimpleNamespace(lines=(LINE, OTHER, b"a third")), SimpleNamespace(reader=None)
    both = claimed(5, 5)
    both.add(sha256(b"0"), [said(OTHER, 7)])
    inquiry = SimpleNamespace(claimed_times=both, session=session)
    resolution: Any = SimpleNamespace(inquiry=inquiry, evidence=evidence, statements=())
    assert _known(resolution, (), ()) == {LINE: proven, OTHER: KnownSince(7, "claimed", 1)}


def test_too_few_cosigners_prove_no_time() -> None:
    judged: Any = SimpleNamespace(first_cosigned=lambda policy: None)
    assert cosigned_since(judged, SimpleNamespace()) is None  # type: ignore[arg-type]
