"""What an operator reads of a node: each state is one word, and states are never mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.trust.encoding import sha256
from comity.wire.node_status import DraftStatus, LogStatus, NodeStatus, PeerStatus, Quota, StoreStatus
from comity_cli.node_view import exit_status, log_state, obstacle, peer_state, share_text, span


@pytest.mark.parametrize(
    ("reachable", "last_seen", "last_error", "state"),
    [
        (True, 1_800_000_000, "", "up"),
        (False, 1_800_000_000, "", "DOWN"),
        (False, 0, "it cannot be reached", "DOWN"),
        (False, 0, "", "unknown"),
    ],
)
def test_a_peer_is_up_or_down_or_not_asked_yet(reachable: bool, last_seen: int, last_error: str, state: str) -> None:
    assert peer_state(PeerStatus("node-es", "ES", "", reachable, last_seen, 0, last_error)) == state


@pytest.mark.parametrize(
    ("own", "frozen", "full", "state"),
    [
        (True, False, False, "own"),
        (False, False, False, "follows"),
        (False, False, True, "at quota"),
        (False, True, True, "FROZEN"),
        (True, True, False, "FROZEN"),
    ],
)
def test_a_log_with_proven_misbehaviour_is_frozen_in_any_state(own: bool, frozen: bool, full: bool, state: str) -> None:
    assert log_state(LogStatus("node-es/log", 1, own, 0, (), frozen, full)) == state


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (1e6, "11 d")]
)
def test_spans_have_one_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("used", "limit", "text"), [(0, 100, "0%"), (42, 100, "42%"), (100, 100, "full"), (10**9, 1, "full")]
)
def test_a_limit_is_used_to_a_share_or_full(used: int, limit: int, text: str) -> None:
    assert share_text(Quota("disk of the ledger", used, limit)) == text


@pytest.mark.parametrize(
    ("missing", "objection", "text"),
    [
        ((), "", "-"),
        (("BSC", "CNRS"), "", "no consent of BSC, CNRS"),
        (("BSC",), "it takes the vote of a member", "it takes the vote of a member"),
    ],
)
def test_a_draft_is_held_up_by_a_missing_consent_or_an_objection(
    missing: tuple[str, ...], objection: str, text: str
) -> None:
    assert obstacle(DraftStatus(sha256(b""), "BSC", "why", 0, 0, 3, missing, objection)) == text


STATUS = NodeStatus("comity", "node.example/log", 1, (), (), StoreStatus(0, 0, None, 0), 0, 0, (), ())


@pytest.mark.parametrize(
    ("status", "ends_with"),
    [
        (STATUS, 0),
        (replace(STATUS, quotas=(Quota("disk of the ledger", 99, 100),)), 0),
        (replace(STATUS, quotas=(Quota("disk of the ledger", 100, 100),)), 8),
        (replace(STATUS, quotas=(Quota("entries of outsiders", 0, 0, items=True),)), 0),
        (replace(STATUS, warnings=("no peer answered when this node started",)), 0),
        (replace(STATUS, warnings=("LEDGER-CORRUPT: the ledger is damaged: 1 pages; comity doctor",)), 8),
    ],
)
def test_the_exit_status_tells_of_a_full_disk_and_of_damage(status: NodeStatus, ends_with: int) -> None:
    assert exit_status(status) == ends_with
