"""Which attackers run together."""

from __future__ import annotations

from attackers import ATTACKERS

FAST = (
    "strangers and identities at the ports",
    "junk in one member's log",
    "whoever holds connections",
    "lies of one member's node, 1",
)
"""Groups of the fast form."""

APART = frozenset(
    {
        "four hundred wide publications of unknown identities",
        "lines that are no statements",
        "objects that nobody ever shows",
        "one object named in many lines of the own log",
    }
)
"""Attackers that run alone: no node mirrors the log beyond them, so other attacks in the same log would reach
nobody.
"""

LIES: tuple[tuple[str, ...], ...] = (
    (
        "five thousand logs that do not exist",
        "ten thousand junk node-records for each artifact",
        "rivals in answer to every name",
        "ten thousand accusations that prove nothing",
        "sizes that are not those of the blobs",
        "lines of charters that nobody decided",
        "false offers and grants, in answers",
        "entries that come one by one, slowly",
    ),
    (
        "a list of logs that does not end",
        "claims of ten thousand authors for each artifact",
        "every blob is held, and none is given",
        "another node's face",
    ),
    ("heads of others' logs, larger than they are", "claims that never end", "pieces of other bytes"),
    ("two histories, turn by turn", "claims and proofs that stall half way", "pieces that never end"),
    ("a log that shrinks", "nothing, in answer to every question about artifacts", "a piece each fifteen seconds"),
    ("a note of half a megabyte of junk cosignatures", "one line logged twice, and two valid proofs by turns"),
    ("entries out of order, twice, and others than were signed", "locations that lead nowhere"),
)
"""False answers of the hostile node that can run together: no two answer the same call."""


def together() -> dict[str, tuple[str, ...]]:
    """Groups of attackers that do not disturb one another."""
    groups = {
        "strangers and identities at the ports": _by("strangers"),
        "junk in one member's log": (*_by("junk_lines"), *_by("copy_claims")),
        "whoever would steer the members' decision": _by("governance"),
        "whoever asks too much": _by("readers"),
        "whoever holds connections": _by("sockets"),
        "connections to the gRPC ports": _by("connections"),
    }
    for number, names in enumerate(LIES, 1):
        groups[f"lies of one member's node, {number}"] = names
    return groups


def _by(module: str) -> tuple[str, ...]:
    return tuple(
        name
        for name, each in ATTACKERS.items()
        if each.attack.__module__ == f"attackers.{module}" and name not in APART and not each.dear
    )
