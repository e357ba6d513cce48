"""Pinned artifacts: keeps those of this node's operator available, and answers what other nodes ask for theirs.

    (1) the node wants every pinned artifact itself, whatever its mirror rules say
    (2) it counts its own copy, and those of others that it verified (`rules.artifact_pins`); what is only claimed it
    audits, at once and then every AUDIT_RETRY seconds, a bounded number in one step
    (3) a node that gave no answer for `patience_seconds` is silent: its copy counts no more, and nothing changes there
    (4) if those that are verified or claimed are too few, or if too few could be verified for `patience_seconds`, the
    node logs `wanted`; when the pin is met, changed or removed, it logs `wanted-withdrawn`

It commands nobody, and no answer of another node makes it drop anything.

At the other nodes, a rule with `wanted_by` copies what nodes of the named members ask for in their logs now. Only such
members are read, one log in a step, at most MAX_WANTED artifacts of each, so that what one member asks for delays no
other. Each member that may answer waits its turn (`rules.artifact_pins.answer_turn`), for `patience_seconds` a turn:
when the asking node withdraws its statement meanwhile, nothing is copied. Nothing is removed because a statement was
withdrawn.

`PinServicer` takes the operator's pins, and tells how each is met.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Final

import structlog

from comity.ledger.entry_index import EntryQuery
from comity.node.context import NodeContext
from comity.node.copies.auditor import Auditor
from comity.node.copies.counter import CopyAssessor
from comity.node.copies.index import CopiesIndex, CopyRow, WantedFact
from comity.node.members import Membership, Peer, PeerKey
from comity.node.operator_acts import OperatorActs
from comity.node.own_log import OwnLog, last_entry
from comity.node.replication.link import PeerLink
from comity.node.replication.replicas import Replicas
from comity.node.replication.wanted import WantedArtifacts
from comity.node.settings import PinSettings
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.rules.artifact_pins import HERE, Pin, PinnedArtifact, PinnedCopy, Wanted, WantedWithdrawn, answer_turn
from comity.rules.audit import DAY
from comity.rules.copy_counts import CLAIMED, CopyCount, CopyPolicy
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound
from comity.trust.statement_kinds import PUBLICATION_PREDICATES, WANTED_WITHDRAWN
from comity.wire.pin import ListedPin, ListedPinnedCopy

PINS: Final = "pins"
PINS_SECONDS: Final = 5.0
PINS_DEADLINE: Final = 1800.0
AUDIT_RETRY: Final = 600.0
"""Seconds after which a claimed copy that did not pass is audited again."""
AUDITS_IN_STEP: Final = 16
ANSWERS: Final = "wanted answers"
ANSWERS_SECONDS: Final = 5.0
ANSWERS_DEADLINE: Final = 600.0
ANSWER_RETRY: Final = 300.0
"""Seconds after which an artifact that is still missing here is looked at again: its publication may have come."""

_log: Final = structlog.get_logger("comity.node.pins")


class PinRepair:
    """Not thread-safe: call from the event loop. The constructor reads the ledger (blocking).

    Args:
        links: the connections to peers.
    """

    def __init__(
        self,
        context: NodeContext,
        settings: PinSettings,
        index: CopiesIndex,
        auditor: Auditor,
        own_log: OwnLog,
        links: Mapping[PeerKey, PeerLink],
        replicas: Replicas,
    ) -> None:
        self._ledger = context.ledger
        self._pools = context.pools
        self._membership = context.membership
        self._signer = own_log.signer
        self._metrics = context.metrics
        self._clock = context.clock
        self._patience = settings.patience_seconds
        self._index = index
        self._auditor = auditor
        self._own_log = own_log
        self._links = links
        self._replicas = replicas
        self._wake: Callable[[], None] = lambda: None
        """Runs the loop now; before `begin` there is none."""
        self._started = context.clock()
        self.pins = replicas.pins
        self._asked: dict[Digest, WantedFact] | None = None
        """What this node asks for in its log; None until that was read."""
        self._short_since: dict[Digest, float] = {}
        self._tried: dict[tuple[Digest, str], float] = {}
        self._audits_left = 0
        self.unmet = 0
        """Pins that were not met in the last round."""

    def begin(self, supervisor: Supervisor, interval: float) -> None:
        self._wake = partial(supervisor.wake, PINS)
        supervisor.loop(PINS, self.step, LoopTiming(min(max(1.0, interval), PINS_SECONDS), PINS_DEADLINE))

    async def put(self, pin: Pin) -> bool:
        """Pin an artifact, or change its pin. Returns False if no log here names the artifact. Raises OutOfSpace
        (PINS)."""
        about = self._ledger.tables.proven.about
        if not (await self._ledger.run(about, pin.artifact, PUBLICATION_PREDICATES, 1)).found:
            return False
        await self._ledger.run(self._ledger.tables.pins.put, pin)
        self.pins[pin.artifact] = pin
        self._wake()
        return True

    async def end(self, artifact: Digest) -> bool:
        """End a pin. Returns whether there was one."""
        removed = await self._ledger.run(self._ledger.tables.pins.remove, artifact)
        self.pins.pop(artifact, None)
        self._wake()
        return removed

    def asks(self, artifact: Digest) -> bool:
        """Whether this node asks others for it now."""
        return artifact in (self._asked or {})

    async def step(self) -> None:
        """One round over all pins."""
        await self._auditor.read_new()
        if self._asked is None:
            own = await self._ledger.run(self._index.wanted_in, self._membership.own_node.log)
            self._asked = {fact.artifact: fact for fact in own}
        self._audits_left, unmet = AUDITS_IN_STEP, 0
        for pin in list(self.pins.values()):
            unmet += not await self._keep(pin)
        for artifact in [artifact for artifact in self._asked if artifact not in self.pins]:
            await self._end_asking(artifact, "unpinned")
        self._forget()
        self.unmet = unmet
        self._metrics.pins.labels("met").set(len(self.pins) - unmet)
        self._metrics.pins.labels("unmet").set(unmet)

    async def count(self, pin: Pin) -> PinnedArtifact:
        """The copies of a pinned artifact, as this node counts them now."""
        return PinnedArtifact(pin, tuple(copy for copy, _, _ in await self._copies(pin)))

    async def _keep(self, pin: Pin) -> bool:
        """Returns whether the pin is met."""
        copies = await self._copies(pin)
        if any(copy.state == HERE for copy, _, _ in copies):
            if await self._audit_claimed(copies):
                copies = await self._copies(pin)
        else:
            await self._replicas.reconsider([pin.artifact])
            self._replicas.wake()
        found = PinnedArtifact(pin, tuple(copy for copy, _, _ in copies))
        if found.met:
            self._short_since.pop(pin.artifact, None)
            await self._end_asking(pin.artifact, "met")
            return True
        since = self._short_since.setdefault(pin.artifact, self._clock())
        if not found.hoped.meets(pin.policy) or self._clock() - since >= self._patience:
            await self._ask(pin)
        return False

    async def _copies(self, pin: Pin) -> list[tuple[PinnedCopy, CopyRow, Peer | None]]:
        rows = await self._ledger.run(self._index.copies, pin.artifact)
        whole = await self._replicas.whole([pin.artifact])
        today = int(self._clock()) // DAY
        assessor, own = CopyAssessor(self._membership, today), self._membership.own_node
        found: list[tuple[PinnedCopy, CopyRow, Peer | None]] = []
        for row in rows:
            if row.withdrawn:
                continue
            peer = self._auditor.peer(row.log)
            for assessed in assessor.assess([row]):
                if row.log == own.log and whole:
                    found.append((PinnedCopy(assessed.copy, HERE), row, None))
                elif peer is not None:
                    member, answers = own.inception.id, self._answers(peer)
                    copy = PinnedCopy.of(assessed.copy, row.results, member, today, answers=answers)
                    found.append((copy, row, peer))
        return found

    def _answers(self, peer: Peer) -> bool:
        """Whether the peer answers, or did a short time ago. It has that time after this node's start too."""
        link, now = self._links.get(peer.key), self._clock()
        seen = max(self._started, link.state.last_seen if link else 0.0)
        return (link is not None and link.state.reachable) or now - seen <= self._patience

    async def _audit_claimed(self, copies: list[tuple[PinnedCopy, CopyRow, Peer | None]]) -> bool:
        """Audit claimed copies that are due, together: one that does not answer delays no other. Returns whether any
        was audited."""
        now, due = self._clock(), list[tuple[CopyRow, Peer]]()
        for copy, row, peer in copies:
            key = row.artifact, row.log
            waited = now - self._tried.get(key, now - AUDIT_RETRY) >= AUDIT_RETRY
            if copy.state == CLAIMED and peer is not None and waited and self._audits_left > 0:
                self._audits_left -= 1
                self._tried[key] = now
                due.append((row, peer))
        audited = await asyncio.gather(*(self._auditor.audit(row, peer) for row, peer in due), return_exceptions=True)
        for found in audited:
            if isinstance(found, BaseException):
                raise found
        return any(found is not None for found in audited)

    async def _ask(self, pin: Pin) -> None:
        assert self._asked is not None
        open_ = self._asked.get(pin.artifact)
        if open_ is not None and open_.policy == pin.policy:
            return
        await self._end_asking(pin.artifact, "changed")
        record, log = self._signer.record, self._membership.own_node.log
        query = EntryQuery(pin.artifact, WANTED_WITHDRAWN, record.node.id, log)
        last = await self._ledger.run(last_entry, self._ledger.tables, query)
        label = "" if last is None else f"wanted again after entry {last}"  # a log has no statement twice
        entry = await self._pools.files(sign_content, Wanted.of(record.node, pin, label), self._signer.online)
        index = await self._own_log.append(entry.line)
        self._asked[pin.artifact] = WantedFact(pin.artifact, log, index, pin.policy)
        _log.info("copies wanted", artifact=pin.artifact, policy=str(pin.policy), index=index)

    async def _end_asking(self, artifact: Digest, reason: str) -> None:
        assert self._asked is not None
        open_ = self._asked.get(artifact)
        if open_ is None:
            return
        ended = WantedWithdrawn(self._signer.record.node, artifact, open_.index, reason)
        entry = await self._pools.files(sign_content, ended, self._signer.online)
        await self._own_log.append(entry.line)
        del self._asked[artifact]
        _log.info("copies wanted no longer", artifact=artifact, reason=reason)

    def _forget(self) -> None:
        """Forget what was noted about artifacts that are pinned no longer."""
        self._short_since = {key: since for key, since in self._short_since.items() if key in self.pins}
        self._tried = {key: at for key, at in self._tried.items() if key[0] in self.pins}


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
                    self._replicas.wake()

            timing = LoopTiming(min(max(1.0, interval), ANSWERS_SECONDS), ANSWERS_DEADLINE)
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
        fresh = [a for a in self._due[log] if now - self._looked.get(a, now - ANSWER_RETRY) >= ANSWER_RETRY]
        self._looked |= dict.fromkeys(fresh, now)
        await self._replicas.reconsider(fresh)
        return bool(fresh)

    def _next_round(self) -> None:
        """The logs of the nodes of members of the charter whom some rule answers."""
        own, answered = self._membership.own_node.inception.id, self._wanted.answered
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
        body, own = self._membership.body, self._membership.own_node.inception.id
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
            if (member := members.get(log)) is not None:  # else its node writes another log since this round began
                for artifact in artifacts:
                    asked.setdefault(artifact, set()).add(member)
        self._wanted.asked = {artifact: frozenset(askers) for artifact, askers in asked.items()}


class PinServicer:
    """Implements `PinService`."""

    def __init__(self, repair: PinRepair, membership: Membership, acts: OperatorActs) -> None:
        self._repair = repair
        self._membership = membership
        self._acts = acts

    async def decide(
        self, artifact: Digest, name: str = "", policy: CopyPolicy | None = None, *, keep: bool = False
    ) -> None:
        async with self._acts.recorded("pin.add" if keep else "pin.rm", artifact, str(policy) if policy else ""):
            if keep and not await self._repair.put(Pin(artifact, name, policy or CopyPolicy(0, 0))):
                raise NotFound("no such artifact", why=f"no log that this node has names {short(artifact)}")
            if not keep and not await self._repair.end(artifact):
                raise NotFound("it is not pinned", why=short(artifact), hint="comity pin ls", code="NOT-PINNED")

    async def listed(self, artifact: Digest | None = None) -> AsyncGenerator[ListedPin, None]:
        for pin in sorted(self._repair.pins.values(), key=lambda pin: pin.artifact):
            if artifact in (None, pin.artifact):
                yield self._shown(await self._repair.count(pin))

    def _shown(self, found: PinnedArtifact) -> ListedPin:
        names = {peer.record.node.id: self._membership.shown_name(peer) for peer in self._membership.peers}
        own = self._membership.own_node.record
        names[own.node.id] = own.name
        copies = tuple(
            ListedPinnedCopy(names.get(item.copy.node, short(item.copy.node)), item.copy.jurisdiction, item.state)
            for item in found.copies
        )
        asked = self._repair.asks(found.pin.artifact)
        return ListedPin(found.pin, _numbers(found.verified), _numbers(found.hoped), found.met, asked, copies)


def _numbers(count: CopyCount) -> CopyPolicy:
    return CopyPolicy(count.copies, count.jurisdictions, count.reaches)
