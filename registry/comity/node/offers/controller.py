"""The parts for offers at a node, put together, and the loop that keeps them up to date.

`GrantReconciler` records acceptances, releases and lapses by itself, by the node's clock, one transaction a step.
"""

from __future__ import annotations

from typing import Final

import structlog

from comity.node.home import OpenedHome
from comity.node.offers.admission import OfferAdmission
from comity.node.offers.index import FaultPublisher, FaultyChain, OfferIndex
from comity.node.offers.own_chains import RecordWriter
from comity.node.offers.provider import HardwareAttester, OfferProvider
from comity.node.own_log import OwnLog
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Clock
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, OutOfSpace, Unavailable
from comity.trust.offers.chain import ACCEPTED, GRANTED, GrantState
from comity.trust.offers.records import Acceptance, GivingBack, PartyStatement

_log: Final = structlog.get_logger("comity.node.offers")

MAX_RECORDS_PER_STEP: Final = 64
RETRY_SECONDS: Final = 60.0
"""Seconds until a statement that failed to verify is tried again."""
MAX_RETRIES: Final = 10_000
"""Statements that wait for a retry."""


class GrantReconciler:
    """Records what is due for open grants of this node. Not thread-safe: call from the event loop."""

    def __init__(self, clock: Clock, provider: OfferProvider, index: OfferIndex) -> None:
        self._clock = clock
        self._provider = provider
        self._index = index
        self._retry_at: dict[Digest, float] = {}

    async def step(self) -> bool:
        """Record what is due, as far as the index has read. Returns whether there may be more."""
        due = list(self._due())
        for grant, statement in due[:MAX_RECORDS_PER_STEP]:
            try:
                await self._record(grant, statement)
            except (OutOfSpace, Unavailable):
                raise
            except ComityError as error:  # one bad statement must not block other grants
                _log.warning("grant record failed", grant=grant.digest, why=str(error), code=error.code)
                if statement is not None:
                    self._defer(statement)
        return len(due) > MAX_RECORDS_PER_STEP

    async def _record(self, grant: GrantState, statement: Digest | None) -> None:
        if grant.state == ACCEPTED:
            await self._provider.release(grant.digest)
        elif statement is not None:
            await self._provider.accept(statement)
        else:
            await self._provider.lapse(grant.digest)

    def _due(self) -> list[tuple[GrantState, Digest | None]]:
        """Open grants that need a record, each with the grantee's statement if there is one."""
        now = int(self._clock())
        due: list[tuple[GrantState, Digest | None]] = []
        for chain in self._index.own.chains.values():
            for grant_state in (chain.state.grants[digest] for digest in chain.state.open):
                statement = self._find_statement(
                    grant_state, Acceptance if grant_state.state == GRANTED else GivingBack
                )
                if statement is not None or (grant_state.state == GRANTED and now > grant_state.grant.accept_by):
                    due.append((grant_state, statement))
        return due

    def _find_statement(self, grant_state: GrantState, kind: type[PartyStatement]) -> Digest | None:
        """The grantee's statement of this kind about a grant, from any log."""
        now = self._clock()
        found = [
            item.located
            for item in self._index.grant_statements(grant_state.digest)
            if isinstance(item.located.statement, kind)
            and item.located.statement.by == grant_state.grant.grantee
            and self._retry_at.get(item.located.line, 0) <= now
        ]
        return min(found, key=lambda located: not located.proven).line if found else None

    def _defer(self, statement: Digest) -> None:
        """Try the statement again later: its author's new keys may be known then."""
        if len(self._retry_at) >= MAX_RETRIES:
            self._retry_at.clear()
        self._retry_at[statement] = self._clock() + RETRY_SECONDS


OFFERS = "offers"
DEADLINE = 600.0
"""Maximum seconds for one step."""


class OfferController:
    """The components for offers at this node, and the loop that keeps them up to date."""

    def __init__(self, home: OpenedHome, own_log: OwnLog, supervisor: Supervisor) -> None:
        ledger, membership, signer = home.ledger, home.membership, home.keys.signer
        self._supervisor = supervisor
        self._interval = home.config.replication.interval_seconds
        self.index = OfferIndex(ledger, home.pools, membership, home.config.limits.offer_lines_per_origin)
        writer = RecordWriter(ledger, membership, signer, home.clock, own_log.compose)
        attester = HardwareAttester(ledger, home.pools, home.store, signer, self.index, own_log.append)
        self.provider = OfferProvider(membership, writer, self.index, attester)
        self.admission = OfferAdmission(ledger, membership, self.index)
        self._reconciler = GrantReconciler(home.clock, self.provider, self.index)
        self._fault_publisher = FaultPublisher(ledger, home.metrics, signer, own_log)
        self._to_publish: list[FaultyChain] = []

    def begin(self) -> None:
        timing = LoopTiming(max(1.0, self._interval), DEADLINE)
        self._supervisor.loop(OFFERS, self._step, timing)

    def wake(self) -> None:
        """Run a step soon: some log has grown."""
        self._supervisor.wake(OFFERS)

    async def _step(self) -> None:
        behind = await self.index.read()
        self._to_publish += self.index.take_new_faults()
        while self._to_publish:
            await self._fault_publisher.publish(self._to_publish[0])
            del self._to_publish[0]
        if behind or await self._reconciler.step():
            self.wake()
