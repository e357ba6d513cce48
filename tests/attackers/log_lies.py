"""Attacks by one member's node that gives false answers about its log: heads, entries, proofs, and data of
other logs.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator

from support.lying_node import NotHere, Question, head
from support.raw_bytes import RawLog, inclusion, leaf_hash, message

from attackers.attacker import Target, attacker
from attackers.calling import calling
from attackers.forging import Identity, RawKey
from attackers.hostile_node import HostileNode, batches

WHO = Identity.made("a log of lies")


def lines(count: int, what: str = "line") -> list[bytes]:
    return [WHO.say("noted", ("", hashlib.sha256(b"%d" % n).hexdigest()), {what: n}) for n in range(count)]


@attacker("a list of logs that does not end", "own", by="member")
def endless_logs(target: Target) -> None:
    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        while question.alive() and not target.ended.is_set():
            yield head(node.log, node.log.note())

    target.member.lies["ListLogs"] = lie
    target.hold()


@attacker("five thousand logs that do not exist", "own", by="member")
def invented_logs(target: Target) -> None:
    key = RawKey.of_seed("invented").secret
    logs = [RawLog(f"invented-{number}.example/log", key, [b"x"]) for number in range(5_000)]
    heads = [head(log, log.note()) for log in logs]

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        yield head(node.log, node.log.note())
        yield from heads

    target.member.lies["ListLogs"] = lie
    target.hold()


@attacker("heads of others' logs with false larger sizes", "own", by="member")
def wrong_heads(target: Target) -> None:
    """Notes over a million entries, under the others' origins and its own key."""
    forged = []
    for victim in target.victims:
        log = RawLog(victim.origin, target.member.log.key, [])
        text = f"{victim.origin}\n1000000\n{base64.b64encode(bytes(32)).decode()}\n"
        signature = base64.b64encode(log.key_id + log.key.sign(text.encode())).decode()
        forged.append(head(log, f"{text}\n— {victim.origin} {signature}\n".encode()))

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        yield head(node.log, node.log.note())
        yield from forged

    target.member.lies["ListLogs"] = lie
    target.hold()


@attacker("two histories of its log in turn", "own", by="member")
def split_view(target: Target) -> None:
    """Show one history to one call and another history to the next."""
    node = target.member
    sides = [node.log.forked(2, lines(5, side)) for side in ("left", "right")]
    turn = itertools.count()

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        log = sides[next(turn) // 3 % 2]
        yield head(log, log.note())

    node.lies["ListLogs"] = lie
    target.hold()


@attacker("a log that shrinks", "own", by="member")
def shrinking_log(target: Target) -> None:
    node, turn = target.member, itertools.count()
    node.say(*lines(100))

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        yield head(node.log, node.log.note(max(2, 100 - next(turn))))

    node.lies["ListLogs"] = lie
    target.hold()


@attacker("entries that never end", "own", by="member")
def endless_entries(target: Target) -> None:
    target.member.say(*lines(50))

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        at = question.number(2)
        while question.alive() and not target.ended.is_set():
            yield message((1, at), (2, b"x" * 60_000))
            at += 1

    target.member.lies["GetEntries"] = lie
    target.hold()


@attacker("entries that come one by one, slowly", "own", by="member")
def slow_entries(target: Target) -> None:
    target.member.say(*lines(200))

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for at in range(question.number(2), min(question.number(3), len(node.log.lines))):
            if target.ended.wait(0.5) or not question.alive():
                return
            yield message((1, at), (2, node.log.lines[at]))

    target.member.lies["GetEntries"] = lie
    target.hold()


@attacker("entries out of order, repeated, and different from the signed ones", "own", by="member")
def wrong_entries(target: Target) -> None:
    target.member.say(*lines(50))
    turn = itertools.count()

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        start, end = question.number(2), question.number(3)
        mode = next(turn) % 4
        if mode == 0:
            yield message((1, start), *((2, line) for line in reversed(node.log.lines[start:end])))
        elif mode == 1:
            yield from batches(node.log, start, end)
            yield from batches(node.log, start, end)
        elif mode == 2:
            yield message((1, start + 7), *((2, line) for line in node.log.lines[start:end]))
        else:
            yield message((1, start), *((2, b"other") for _ in range(start, end)))

    target.member.lies["GetEntries"] = lie
    target.hold()


CALLS = (
    *("GetNode", "ListLogs", "GetEntries", "GetCheckpoint", "GetProof", "ListMisbehaviour"),
    *("GetClaims", "Resolve", "Search", "Stat", "Read", "GetObject"),
    *("GetProceedings", "SearchOffers", "ListGrants"),
)


@attacker("silence to every question", "own", by="member")
def silence(target: Target) -> None:
    for call in CALLS:
        target.member.lies[call] = HostileNode.silent
    target.hold()


@attacker("a note of half a megabyte of junk cosignatures", "own", by="member")
def fat_notes(target: Target) -> None:
    junk = "".join(
        f"— cosigner-{number}.example/c {base64.b64encode(hashlib.sha512(b'%d' % number).digest()).decode()}\n"
        for number in range(4_000)
    ).encode()

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        yield head(node.log, node.log.note() + junk)

    target.member.lies["ListLogs"] = lie
    target.member.lies["GetCheckpoint"] = lambda node, question: [message((1, node.log.note() + junk))]
    target.hold()


@attacker("ten thousand accusations that prove nothing", "own", by="member")
def junk_accusations(target: Target) -> None:
    parts = [(3, target.member.log.note()), (3, b"x" * 1_000)]
    answers = [
        message((1, "split-view"), (2, victim.origin), *parts, (3, b"%d" % number))
        for number in range(3_000)
        for victim in target.victims
    ]
    target.member.lies["ListMisbehaviour"] = lambda node, question: answers
    target.hold()


@attacker("one line logged twice, and two valid proofs in turn", "A2", by="member")
def alternate_proofs(target: Target) -> None:
    """The node copies all entries of the others' logs into its own, twice each, and shows the two proofs in turn."""
    node = target.member
    with calling(target, target.victims[0]) as caller:
        copied = [line for victim in target.victims for line in caller.lines(victim.origin)]
    node.say(*copied, *copied)
    at: dict[bytes, list[int]] = {}
    for index, line in enumerate(node.log.lines):
        at.setdefault(hashlib.sha256(line).digest(), []).append(index)
    leaves = [leaf_hash(line) for line in node.log.lines]
    turn = itertools.count()

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        found = at.get(question.data(1))
        if not found:
            raise NotHere
        index = found[next(turn) % len(found)]
        hashes = "".join(base64.b64encode(h).decode() + "\n" for h in inclusion(index, leaves))
        note = node.log.note(len(leaves))
        proof = f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n".encode() + note
        yield message((1, node.log.origin), (2, proof))

    node.lies["GetProof"] = lie
    node.lies["GetClaims"] = lambda node, question: [
        message((1, node.log.origin), (2, index), (3, line))
        for index, line in enumerate(node.log.lines)
        if line in copied
    ]
    target.hold()
