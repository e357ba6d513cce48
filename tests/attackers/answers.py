"""One member's node lies in its answers to those who ask it about artifacts and blobs."""

from __future__ import annotations

from collections.abc import Iterator

from support.liar import Question
from support.raw_bytes import message

from attackers.attacker import Target, attacker
from attackers.hostile_node import HostileNode
from attackers.strangers import padded


def located(origin: str, index: int, line: bytes) -> bytes:
    return message((1, origin), (2, index), (3, line))


@attacker("ten thousand junk node-records for each artifact", "C4", by="member")
def junk_claims(target: Target) -> None:
    lines = [padded(target.member.record_line, number, signatures=12) for number in range(100)]

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for number in range(10_000):
            yield located(node.log.origin, number, lines[number % 100])

    target.member.lies["GetClaims"] = lie  # type: ignore[assignment]
    target.hold()
