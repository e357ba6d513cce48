"""Attacks by one member's node that answers truly, but late: after nine of the ten seconds that nodes wait for it, or
never; to some calls only, or to some callers' questions only.

Each is a rule for when a call is delayed. The honest script of `tests/interference` meets them in real time; the script
of `tests/integration/test_stalled_calls.py` on virtual time, where no outcome may take three times as long.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from support.lying_node import Answer, NotHere, Pause, Question

from attackers.answers import having
from attackers.attacker import Target, attacker
from attackers.hostile_node import HostileNode

LATE = 9.0
"""Seconds, of the ten that a node waits for a message."""
FOR_EVER = 3_600.0
ASKED_OF_ANY = ("Stat", "GetRecords", "GetObject", "GetObjects", "Read", "GetEntries", "GetConsistency", "ListLogs",
                "GetCheckpoint", "ListMisbehaviour", "GetEpochs", "GetCharter", "ListLocations")  # fmt: skip
"""What nodes ask of one another."""

Delay = Callable[[str, Question], float]
"""The seconds before a call is answered."""


def delayed(target: Target, delay: Delay, *calls: str) -> None:
    """Answer these calls as before, after a delay."""
    for call in calls or ASKED_OF_ANY:
        target.member.lies[call] = late(call, target.member.lies.get(call), delay)
    target.hold()


def late(
    call: str, lie: Callable[[HostileNode, Question], Iterable[Answer]] | None, delay: Delay
) -> Callable[[HostileNode, Question], Iterator[Answer]]:
    def answer(node: HostileNode, question: Question) -> Iterator[Answer]:
        yield Pause(delay(call, question))
        yield from lie(node, question) if lie else node.truth(call, question)

    return answer


def digests(question: Question) -> list[bytes]:
    return [digest for digest in question.fields.get(1, []) if isinstance(digest, bytes)]


@attacker("what files it has, told after nine seconds", "H3", by="member")
def late_stat(target: Target) -> None:
    having(target)
    delayed(target, lambda call, question: LATE, "Stat")


@attacker("piece records after nine seconds, of files that it claims to have", "H3", by="member")
def late_records(target: Target) -> None:
    having(target)
    target.member.lies["GetRecords"] = lambda node, question: [bytes(36)]
    delayed(target, lambda call, question: LATE, "GetRecords")


@attacker("side objects after nine seconds", "H3", by="member")
def late_objects(target: Target) -> None:
    delayed(target, lambda call, question: LATE, "GetObject", "GetObjects")


@attacker("the first answers at once, and then none", "own", by="member")
def tired(target: Target) -> None:
    having(target)
    asked = Counter[str]()

    def delay(call: str, question: Question) -> float:
        asked[call] += 1
        return 0.0 if asked[call] <= 5 else FOR_EVER

    delayed(target, delay)


@attacker("fast and late answers in turn", "own", by="member")
def uneven(target: Target) -> None:
    """What it usually needs looks long, and is not."""
    having(target)
    turn = itertools.count()
    delayed(target, lambda call, question: LATE * (next(turn) % 2))


@attacker("late answers about every other file only", "own", by="member")
def choosy(target: Target) -> None:
    having(target)

    def delay(call: str, question: Question) -> float:
        return LATE if any(digest[0] % 2 for digest in digests(question) if digest) else 0.0

    delayed(target, delay, "Stat", "GetRecords", "GetObject", "GetObjects", "Read")


@attacker("not found, at once, for all that it has", "own", by="member")
def denies(target: Target) -> None:
    """It is always the first to answer."""

    def deny(node: HostileNode, question: Question) -> Iterator[bytes]:
        raise NotHere
        yield b""

    for call in ("GetRecords", "GetObject", "Read", "GetCharter", "GetEpochs", "ListLocations"):
        target.member.lies[call] = deny
    target.member.lies["GetObjects"] = lambda node, question: []
    having(target)
    target.hold()


@attacker("answers that stop after their first byte", "own", by="member")
def stops(target: Target) -> None:
    having(target)

    def lie(node: HostileNode, question: Question) -> Iterator[Answer]:
        yield b"\0"
        yield Pause(FOR_EVER)

    target.member.lies["Read"] = lie
    for call in ("GetObject", "GetObjects", "GetRecords"):
        target.member.lies[call] = lambda node, question: iter((b"", Pause(FOR_EVER)))
    target.hold()


@attacker("late answers to those that lag behind only", "own", by="member")
def stalls_latecomers(target: Target) -> None:
    """Nodes that follow closely see nothing of it."""

    def delay(call: str, question: Question) -> float:
        if call == "GetEntries":
            return LATE if question.number(3) - question.number(2) > 2 else 0.0
        if call == "GetConsistency":
            return LATE if question.number(3) - question.number(2) > 2 else 0.0
        return LATE if len(digests(question)) > 2 else 0.0

    delayed(target, delay, "GetEntries", "GetConsistency", "GetObjects", "Stat")


@attacker("late answers of every kind, a little within each limit", "own", by="member")
def always_late(target: Target) -> None:
    having(target)
    delayed(target, lambda call, question: LATE)
