"""Answers what other nodes ask for, as far as this node's mirror rules allow it.

A rule with `wanted_by` copies what nodes of the named members ask for in their logs now. Only such members are read,
one log in a step, at most MAX_WANTED artifacts of each, so that what one member asks for delays no other. Each member
that may answer waits its turn (`trust.artifact_pins.answer_turn`), for `patience_seconds` a turn: when the asking node
withdraws its statement meanwhile, nothing is copied. Nothing is removed because a statement was withdrawn.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from comity.node.copies.index import CopiesIndex, WantedFact
from comity.node.members import Membership
from comity.node.replication.replicas import Replicas
from comity.node.replication.wanted import WantedArtifacts
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.trust.artifact_pins import answer_turn
from comity.trust.encoding import Digest

ANSWERS: Final = "wanted answers"
STEP_SECONDS: Final = 5.0
STEP_DEADLINE: Final = 600.0
AGAIN: Final = 300.0
"""Seconds after which an artifact that is still missing here is looked at again: its publication may have come."""


class WantedAnswers:
    """Not thread-safe: call from the event loop.

    Args:
        patience: seconds of one turn.
        monotonic: seconds, for turns.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        index: CopiesIndex,
        replicas: Replicas,
        wanted: WantedArtifacts,
        patience: float,
        monotonic: Clock,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._index = index
        self._replicas = replicas
        self._wanted = wanted
        self._patience = patience
        self._monotonic = monotonic
        self._logs: deque[tuple[str, Digest]] = deque()
        self._seen: dict[str, dict[tuple[Digest, int], float]] = {}
        """By log, since when each open statement is known here."""
        self._due: dict[str, frozenset[Digest]] = {}
        """By log, the artifacts that are to be answered now."""
        self._looked: dict[Digest, float] = {}

    def begin(self, supervisor: Supervisor, interval: float) -> None:
        """Does nothing if no rule answers anybody."""
        if self._wanted.answered:

            async def step() -> None:
                if await self.step():
                    self._replicas.wake(supervisor)

            timing = LoopTiming(min(max(1.0, interval), STEP_SECONDS), STEP_DEADLINE)
            supervisor.loop(ANSWERS, step, timing)

    async def step(self) -> bool:
        """Look at the next log. Returns whether artifacts may have been queued."""
        if not self._logs:
            self._next_round()
        if not self._logs:
            return False
        log, asker = self._logs.popleft()
        open_ = await self._ledger.run(self._index.wanted_in, log)
        now, known = self._monotonic(), self._seen.get(log, {})
        self._seen[log] = {(fact.artifact, fact.index): known.get((fact.artifact, fact.index), now) for fact in open_}
        absent = await self._replicas.absent([fact.artifact for fact in open_])
        due = [fact for fact in open_ if fact.artifact in absent and await self._is_due(fact, asker, now)]
        self._due[log] = frozenset(fact.artifact for fact in due)
        self._tell()
        fresh = [a for a in self._due[log] if now - self._looked.get(a, now - AGAIN) >= AGAIN]
        self._looked |= dict.fromkeys(fresh, now)
        await self._replicas.reconsider(fresh)
        return bool(fresh)

    def _next_round(self) -> None:
        """The logs of the nodes of members of the charter whom some rule answers."""
        own, answered = self._membership.seat.inception.id, self._wanted.answered
        for peer in self._membership.peers:
            member = peer.member.id
            if member != own and member in answered and self._membership.member(member) is not None:
                self._logs.append((str(peer.record.log), member))
        logs = {log for log, _ in self._logs}
        self._seen = {log: seen for log, seen in self._seen.items() if log in logs}
        self._due = {log: due for log, due in self._due.items() if log in logs}
        everything = frozenset[Digest]().union(*self._due.values())
        self._looked = {artifact: at for artifact, at in self._looked.items() if artifact in everything}

    async def _is_due(self, fact: WantedFact, asker: Digest, now: float) -> bool:
        body, own = self._membership.body, self._membership.seat.inception.id
        if body is None:
            return False
        rows = await self._ledger.run(self._index.copies, fact.artifact)
        owners = {self._membership.owner(row.log) for row in rows if not row.withdrawn}
        holding = {member for member in owners if member is not None}
        places = {member.id: member.jurisdiction for member in body.active}
        candidates = {member: code for member, code in places.items() if member != asker or member in holding}
        if own not in candidates:
            return False
        missing = fact.policy.min_copies - len(holding)
        turn = answer_turn(fact.artifact, own, candidates, holding, missing)
        return now - self._seen[fact.log][fact.artifact, fact.index] >= turn * self._patience

    def _tell(self) -> None:
        """Let the rules see who is to be answered now."""
        members = {str(peer.record.log): peer.member.id for peer in self._membership.peers}
        asked: dict[Digest, set[Digest]] = {}
        for log, artifacts in self._due.items():
            for artifact in artifacts:
                asked.setdefault(artifact, set()).add(members[log])
        self._wanted.asked = {artifact: frozenset(askers) for artifact, askers in asked.items()}
