"""Which attackers run together."""

from __future__ import annotations

from attackers import ATTACKERS

FAST = (
    "strangers and identities at the ports",
    "junk in one member's log",
    "false answers of one member's node, 3",
)
"""Groups of the fast form: one for each kind of attacker, those that take the shortest time."""

APART = frozenset(
    {
        "four hundred wide publications of unknown identities",
        "lines that are no statements",
        "objects that no node ever serves",
        "one object named in many lines of the own log",
    }
)
"""Attackers that run alone: no node mirrors the log beyond them, so other attacks in the same log would reach
no node.
"""

LIES: tuple[tuple[str, ...], ...] = (
    (
        "five thousand logs that do not exist",
        "ten thousand junk node-records for each artifact",
        "rival claims in answer to every name",
        "ten thousand accusations that prove nothing",
        "false sizes of blobs",
        "lines of charters that were never certified",
        "false offers and grants, in answers",
        "entries that come one by one, slowly",
    ),
    (
        "a list of logs that does not end",
        "claims of ten thousand authors for each artifact",
        "claims to hold every blob, without serving any",
        "the record and origin of another node",
    ),
    ("heads of others' logs with false larger sizes", "claims that never end", "pieces of other bytes"),
    ("two histories of its log in turn", "claims and proofs that stall in the middle", "pieces that never end"),
    ("a log that shrinks", "empty answers to every question about artifacts", "one piece in fifteen seconds"),
    ("a note of half a megabyte of junk cosignatures", "one line logged twice, and two valid proofs in turn"),
    ("entries out of order, repeated, and different from the signed ones", "locations without a server"),
    ("what files it has, told after nine seconds", "side objects after nine seconds", "a log that shrinks"),
    ("piece records after nine seconds, of files that it claims to have", "entries that come one by one, slowly"),
    ("answers that stop after their first byte", "five thousand logs that do not exist"),
    ("not found, at once, for all that it has", "ten thousand accusations that prove nothing"),
    ("late answers about every other file only", "two histories of its log in turn"),
    ("late answers to those that lag behind only", "claims that never end"),
    ("false answers to questions that nobody asked yet",),
)
"""False answers of the hostile node that can run together: no two answer the same call."""

WORDS_OF_OTHERS: tuple[tuple[str, str], ...] = (
    (
        "challenges of an audit passed on to another holder",
        "a line of addresses that lead to machines of others",
    ),
    (
        "the first answer to an audit, repeated for every later one",
        "names and spellings of this machine as addresses of its node",
    ),
    (
        "answers to audits in the form of an older version",
        "the addresses of the others' nodes, announced as its own",
    ),
    ("correct answers of the others, shown as failed audits", "files of thirty artifacts at machines of others"),
    (
        "lines of the others about copies and addresses, logged again",
        "lines of the others with signatures added, removed and turned",
    ),
    (
        "nodes with the names of the others in other spellings",
        "claims of others' artifacts in the answers of its node",
    ),
)
"""Attacks with others' words, in pairs that do not disturb one another."""

SPACE: tuple[tuple[str, ...], ...] = (
    (
        "claims of all free space that receive a few bytes",
        "wanted statements about every artifact, and about a thousand that do not exist",
    ),
    ("artifacts made of pieces that the others have", "one claim of many copies that its node does not have"),
    ("claims of all free space whose piece records never come", "hundreds of bound nodes that do not run"),
    ("claims of all free space by a hundred publishers in one log", "junk inceptions that name the publishers"),
    ("artifacts of which all but the last piece arrives", "many publications under one name"),
    ("one artifact under many names, and each of its files in a hundred others", "copies of a public node-record"),
    ("claims that receive one piece and stop", "one statement in many new envelopes"),
)
"""Attacks on the space for copies, each beside another one: two of them would answer the same calls."""


def together() -> dict[str, tuple[str, ...]]:
    """Groups of attackers that do not disturb one another."""
    groups = {
        "strangers and identities at the ports": _by("strangers"),
        "floods of warnings and names": _by("floods"),
        "junk in one member's log": (*_by("junk_lines"), *_by("copy_claims")),
        "attacks on the members' decision": _by("governance"),
        **{f"space for copies, {number}": names for number, names in enumerate(SPACE, 1)},
        "too many requests": _by("readers"),
        "held connections": _by("sockets"),
        "connections to the gRPC ports": _by("connections"),
    }
    for number, pair in enumerate(WORDS_OF_OTHERS, 1):
        groups[f"the words of others, {number}"] = pair
    for number, names in enumerate(LIES, 1):
        groups[f"false answers of one member's node, {number}"] = names
    return groups


def _by(module: str) -> tuple[str, ...]:
    return tuple(
        name
        for name, each in ATTACKERS.items()
        if each.attack.__module__ == f"attackers.{module}" and name not in APART and not each.dear
    )
