"""Attacks by one member's node that answers questions about artifacts and blobs with false data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from support.lying_node import Question
from support.raw_bytes import message

from attackers.attacker import Target, attacker
from attackers.calling import calling
from attackers.forging import Identity, Release
from attackers.hostile_node import HostileNode
from attackers.strangers import padded

WHO = Identity.made("a node's friend")
MIB = 1 << 20


def located(origin: str, index: int, line: bytes) -> bytes:
    return message((1, origin), (2, index), (3, line))


def having(target: Target) -> None:
    """Claim to hold every blob, of any size that is asked for."""

    def stat(node: HostileNode, question: Question) -> Iterable[bytes]:
        digests = [digest for digest in question.fields.get(1, []) if isinstance(digest, bytes)]
        return [message(*((1, message((1, digest), (2, 1), (3, 300_000))) for digest in digests))]

    target.member.lies["Stat"] = stat


def lying_about(target: Target, call: str, lie: Callable[[HostileNode, Question], Iterable[bytes]]) -> None:
    target.member.lies[call] = lie
    target.hold()


@attacker("ten thousand junk node-records for each artifact", "C4", by="member")
def junk_claims(target: Target) -> None:
    lines = [padded(target.member.record_line, number) for number in range(100)]

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for number in range(10_000):
            yield located(node.log.origin, number, lines[number % 100])

    lying_about(target, "GetClaims", lie)


@attacker("claims of ten thousand authors for each artifact", "C4", by="member")
def crowd_of_claims(target: Target) -> None:
    """Valid claims: warnings of identities, together with their inceptions."""
    people = [Identity.made(f"crowd {number}") for number in range(100)]

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        artifact = question.data(1).hex()
        for number, who in enumerate(people):
            yield located(node.log.origin, 2 * number, who.inception)
            yield located(node.log.origin, 2 * number + 1, who.advise(artifact, "beware"))

    lying_about(target, "GetClaims", lie)


@attacker("claims that never end", "C4", by="member")
def endless_claims(target: Target) -> None:
    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for number in itertools.count():
            if target.ended.is_set() or not question.alive():
                return
            yield located(node.log.origin, number, b"x" * 60_000)

    lying_about(target, "GetClaims", lie)


@attacker("references to lines that nobody has", "own", by="member")
def references_to_nothing(target: Target) -> None:
    """Ten thousand references in answer to everything, each to no line; the node is asked again, and gives others."""

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for number in range(39):
            lines = b"".join((number << 32 | at).to_bytes(8, "big") for at in range(256))
            places = ((2, bytes(256)), (3, bytes(256)), (4, lines))
            yield message((6, message((1, node.log.origin), *places)))

    target.member.lies["Resolve"] = lie
    lying_about(target, "GetClaims", lie)


def _references(logs: bytes, indexes: bytes, lines: bytes, origins: int = 1) -> bytes:
    names = ((1, f"log-{number}.example/log") for number in range(origins))
    return message((6, message(*names, (2, logs), (3, indexes), (4, lines))))


BAD_REFERENCES = (
    _references(b"", b"", b""),
    _references(b"\x07", b"\x00", bytes(8)),
    _references(b"\x00", b"\x00", bytes(7)),
    _references(bytes(2), b"\x00", bytes(8)),
    _references(bytes(300), bytes(300), bytes(2_400)),
    _references(b"\x00", b"\xff" * 9 + b"\x01", bytes(8)),
    _references(b"\x00", b"\x00", bytes(8), origins=300),
)


@attacker("references that do not fit together", "own", by="member", emits=lambda: BAD_REFERENCES)
def broken_references(target: Target) -> None:
    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        yield from BAD_REFERENCES

    target.member.lies["Resolve"] = lie
    lying_about(target, "GetClaims", lie)


@attacker("false answers to questions that nobody asked yet", "own", by="member")
def false_answers_ahead(target: Target) -> None:
    """With the answer for a name: junk and references to nothing about artifacts and names, and a wrong manifest."""

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        name, version = question.data(1), question.data(2)
        junk = (6, located(node.log.origin, 7, node.inception))
        nothing = (6, BAD_REFERENCES[1])
        unknown = (6, message((6, message((1, node.log.origin), (2, b"\x00"), (3, b"\x00"), (4, b"nothing!")))))
        first = message((1, name), unknown)
        about = [message((4, bytes.fromhex(artifact)), unknown, junk) for artifact in target.known.artifacts[:5]]
        others = message((1, name), (2, version), junk)
        broken = message((1, name), nothing)
        yield message((1, first), *((1, each) for each in about), (1, others), (2, b"{}" * 1_000))
        if len(question.history.asked) % 2:
            yield message((1, broken))

    lying_about(target, "FindArtifact", lie)


@attacker("claims and proofs that stall in the middle", "own", by="member")
def stalled_claims(target: Target) -> None:
    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        yield located(node.log.origin, 0, node.inception)
        yield from node.silent(question)

    for call in ("Resolve", "Search", "GetProof"):
        target.member.lies[call] = lie
    lying_about(target, "GetClaims", lie)


@attacker("rival claims in answer to every name", "N1", by="member")
def rivals_in_answers(target: Target) -> None:
    """Three hundred valid claimants of any name that is asked for, with their inceptions in the own log."""
    people = [Identity.made(f"rival {number}") for number in range(300)]
    target.member.say(*(who.inception for who in people))

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        name = question.data(1).decode()
        version = (question.data(2) or b"v9").decode()
        for number, who in enumerate(people):
            yield located(node.log.origin, number, who.publish(f"{name}@{version}", Release(b"rival")))

    lying_about(target, "Resolve", lie)


@attacker("empty answers to every question about artifacts", "own", by="member")
def withheld_answers(target: Target) -> None:
    for call in ("GetClaims", "Resolve", "Search", "GetProof", "GetProceedings"):
        target.member.lies[call] = lambda node, question: []
    target.hold()


@attacker("one piece in fifteen seconds", "H2", by="member")
def slow_pieces(target: Target) -> None:
    having(target)

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for _ in range(0, question.number(3), MIB):
            yield b"\0"
            if target.ended.wait(15) or not question.alive():
                return

    lying_about(target, "Read", lie)


@attacker("pieces of other bytes", "own", by="member")
def wrong_pieces(target: Target) -> None:
    having(target)

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        left = question.number(3)
        while left > 0:
            yield bytes(min(left, MIB))
            left -= MIB

    target.member.lies["GetObject"] = lambda node, question: [message((1, bytes(1_000)))]
    target.member.lies["GetRecords"] = lambda node, question: [message((1, bytes(36)))]
    lying_about(target, "Read", lie)


@attacker("pieces that never end", "own", by="member")
def endless_pieces(target: Target) -> None:
    having(target)

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        while question.alive() and not target.ended.is_set():
            yield bytes(MIB)

    target.member.lies["GetObject"] = lambda node, question: (message((1, part)) for part in lie(node, question))
    lying_about(target, "Read", lie)


@attacker("claims to hold every blob, without serving any", "own", by="member")
def empty_promises(target: Target) -> None:
    having(target)
    target.member.lies["GetObject"] = HostileNode.silent
    lying_about(target, "Read", HostileNode.silent)


@attacker("false sizes of blobs", "own", by="member")
def wrong_sizes(target: Target) -> None:
    turn = itertools.count()

    def lie(node: HostileNode, question: Question) -> Iterable[bytes]:
        digests = [digest for digest in question.fields.get(1, []) if isinstance(digest, bytes)]
        sizes = (0, 1, 1 << 40, (1 << 64) - 1)
        if next(turn) % 2:
            digests = digests[::-1] * 3
        return [message(*((1, message((1, digest), (2, 1), (3, sizes[next(turn) % 4]))) for digest in digests))]

    lying_about(target, "Stat", lie)


@attacker("locations without a server", "own", by="member")
def junk_locations(target: Target) -> None:
    """URLs of the own machine's closed ports, of a victim's own ports, and of what is no URL."""
    having(target)
    urls = [f"https://{target.victims[0].open}/x", f"https://{target.victims[0].mutual}/x", "https://127.0.0.1:9/x"]
    urls += ["file:///etc/passwd", "https://[::1", "x" * 4_000]
    answer = message(*((1, message((1, "https-range"), (2, url))) for url in urls))
    target.member.lies["ListLocations"] = lambda node, question: [answer]
    lying_about(target, "Read", HostileNode.silent)


@attacker("messages larger than any limit", "own", by="member")
def oversized_messages(target: Target) -> None:
    huge = message((1, bytes(48 * MIB)))
    for call in ("GetNode", "Search", "Stat", "GetCheckpoint", "GetClaims", "Resolve", "GetProceedings", "GetEntries"):
        target.member.lies[call] = lambda node, question: [huge]
    target.hold()


@attacker("bytes that are no messages, in every answer", "own", by="member")
def junk_answers(target: Target) -> None:
    turn = itertools.count()
    junk = (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"", b"\x08" * 100, message((1, b"\xff\xfe")), b"\x0a\x05ab")

    def lie(node: HostileNode, question: Question) -> Iterable[bytes]:
        return [junk[next(turn) % len(junk)]]

    for call in ("GetNode", "ListLogs", "GetClaims", "Resolve", "Search", "Stat", "GetProceedings", "GetEpochs",
                 "ListMisbehaviour", "GetCheckpoint", "GetProof", "SearchOffers", "ListGrants"):  # fmt: skip
        target.member.lies[call] = lie
    target.hold()


@attacker("the record and origin of another node", "own", by="member")
def record_of_another_node(target: Target) -> None:
    """Claim to be the first victim: its record and origin, and a gateway address of the attacker's choice."""
    victim = target.victims[0]
    with calling(target, victim) as caller:
        (facts,) = caller.ask("GetNode")
    record, inception = facts[3][0], facts[4][0]
    said = message((1, "x" * 128), (2, victim.origin), (3, record), (4, inception), (7, "http://127.0.0.1:9"))
    target.member.lies["GetNode"] = lambda node, question: [said]
    target.hold()


@attacker("lines of charters that were never certified", "own", by="member")
def junk_statement_sets(target: Target) -> None:
    """Sixty thousand lines about the next epoch, and an invalid epoch."""
    lines = [WHO.say("draft", ("charter", f"{number:064x}"), {"text": "why not"}) for number in range(60)]

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for number in range(60_000):
            yield located(node.log.origin, number, lines[number % 60])

    target.member.lies["GetEpochs"] = lambda node, question: [message((1, 1), (2, b"{}"), (3, lines[0]))]
    lying_about(target, "GetProceedings", lie)


@attacker("false offers and grants, in answers", "own", by="member")
def junk_grants(target: Target) -> None:
    answers = [message((1, b"\x0a\x00"), (2, bytes(100)), (3, number)) for number in range(2_000)]
    for call in ("SearchOffers", "GetOffer", "ListGrants"):
        target.member.lies[call] = lambda node, question: answers
    target.hold()
