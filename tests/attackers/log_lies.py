"""One member's node lies about its log: heads, entries, proofs."""

from __future__ import annotations

from collections.abc import Iterator

from support.liar import Question, head

from attackers.attacker import Target, attacker
from attackers.hostile_node import HostileNode


@attacker("a list of logs that does not end", "own", by="member")
def endless_logs(target: Target) -> None:
    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        while question.alive() and not target.ended.is_set():
            yield head(node.log, node.log.note())

    target.member.lies["ListLogs"] = lie  # type: ignore[assignment]
    target.hold()
