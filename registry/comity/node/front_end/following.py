"""Follows what the writer of a node commits: entries of logs, epochs, and nodes of members; and tells how old that is.

Signatures of entries are verified by the writer, once for all front ends: here the proven tables are read. What a front
end verifies again are the few lines that say who is a member and which certificates its nodes have, as the writer does
at each of its starts. Not thread-safe: call from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from comity.ledger.intake import ROTATED
from comity.ledger.ledger import LedgerFollower
from comity.node.epochs import EpochStore
from comity.node.home import homes_of
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.own_log import cosigned_times
from comity.node.replication.peers import PeerDiscovery
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import Entry, parse_entry
from comity.trust.tlog.note import VerifierKey, corroborated_time

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks: the gateway keeps its answers for as long."""
ENDING: Final = frozenset({"LEDGER-REPLACED", "LEDGER-OLDER", "LEDGER-NEWER", "CHARTER-BRANCH"})
"""Codes of errors after which only another start helps."""
MEMBERS: Final = "members"
MEMBERS_TIMING: Final = LoopTiming(interval=60.0, deadline=1800.0)
SILENT_SECONDS: Final = 10.0
"""Seconds without a look after which readers are told that they see old things."""

_log: Final = structlog.get_logger("comity.node.front_end")


@dataclass(frozen=True, slots=True)
class ShownAge:
    """How old is what a front end shows.

    Attributes:
        writer: whether the writer ran at the last look.
        looked: seconds since the last look at the ledger.
        checkpoint: the `corroborated_time` of the cosignatures of the newest checkpoint of the node's own log; 0 if
            there is none.
    """

    writer: bool
    looked: float
    checkpoint: int

    @property
    def old(self) -> bool:
        """Whether new entries may be missing: the writer does not run, or the ledger does not answer."""
        return not self.writer or self.looked > SILENT_SECONDS

    def document(self) -> Mapping[str, object]:
        """The members are those of `front_end` in the answer of `/readyz`."""
        return {"writer_runs": self.writer, "looked_seconds": round(self.looked, 1), "checkpoint_time": self.checkpoint}


class FollowedNode:
    """The node whose ledger is read. `first_look` comes before everything else."""

    def __init__(
        self,
        ledger: AsyncLedger,
        follower: LedgerFollower,
        membership: Membership,
        epochs: EpochStore | None,
        metrics: Metrics,
        clock: Clock,
        monotonic: Clock,
    ) -> None:
        """`clock` counts POSIX seconds; `monotonic` never goes back."""
        self._ledger = ledger
        self._follower = follower
        self._membership = membership
        self._epochs = epochs
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._discovery = PeerDiscovery(ledger, membership)
        self._rotations = -1
        """The number of the newest proven rotation that was followed."""
        self._looked_at = float("-inf")
        self._checkpoint = 0
        self._due = False
        """Whether another process has committed since everything was read."""
        self._reread = False
        """Whether more node records may be valid than were learned."""
        self._wake: Callable[[], None] = lambda: None

    def age(self) -> ShownAge:
        return ShownAge(self._follower.writer, self._monotonic() - self._looked_at, self._checkpoint)

    async def first_look(self) -> None:
        """Raises what `LedgerFollower.look` and `EpochStore.reread` raise."""
        self._metrics.ledger_look_age.set_function(lambda: self.age().looked)
        self._metrics.checkpoint_age.set_function(self._checkpoint_age)
        await self._look()
        await self.read_members()

    def begin(self, supervisor: Supervisor) -> None:
        """Read members in the background, after each look that found something new."""
        supervisor.loop(MEMBERS, self.read_members, MEMBERS_TIMING)
        self._wake = partial(supervisor.wake, MEMBERS)

    async def run(self) -> None:
        """Look until cancelled. Raises the errors of `ENDING`; during others, what was read before stays."""
        failed = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except ComityError as error:
                if error.code in ENDING:
                    raise
                if not failed:
                    _log.warning("the ledger does not answer", what=error.what, why=error.why, code=error.code)
                failed = True
                continue
            if failed:
                _log.info("the ledger answers again")
            failed = False

    async def _look(self) -> None:
        began = self._monotonic()
        self._due |= await self._ledger.run(self._follower.look)
        self._metrics.writer_running.set(self._follower.writer)
        if self._due:
            for body in await self._ledger.run(self._epochs.reread) if self._epochs else ():
                self._membership.adopt(body)
                self._reread = True
                self._metrics.charter_epoch.set(body.epoch)
                _log.info("epoch adopted", epoch=body.epoch, body=body.digest, members=len(body.members))
            times = await self._ledger.run(cosigned_times, self._ledger.tables, self._membership, self._own_log)
            self._checkpoint = corroborated_time(times.values(), self._clock()) or 0
            for log, (size, _) in (await self._ledger.run(self._ledger.tables.logs.heads)).items():
                self._metrics.log_size.labels(VerifierKey.parse(log).name).set(size)
            self._due = False
            self._wake()
        self._looked_at = began

    async def read_members(self) -> None:
        """Take up rotations of members, node records and addresses. After a failure the next call does what is left."""
        members, proven = self._membership, self._ledger.tables.proven
        newest = await self._ledger.read(proven.last_number_of, (ROTATED,))
        if self._reread or newest != self._rotations:
            members.name_homes(await self._ledger.run(homes_of, members.known, self._ledger.tables))
            for member in members.known:
                self._reread |= await self._rotate(member)
            self._rotations = newest
        if self._reread:
            self._discovery.forget()
            self._reread = False
        await self._discovery.read()

    async def _rotate(self, member: Digest) -> bool:
        """Returns whether the member has new keys."""
        lines = await self._ledger.run(self._ledger.tables.proven.rotations, member)
        known = {step.entry.statement_digest for chain in self._membership.chains(member) for step in chain.steps}
        new: list[Entry] = [entry for entry in map(parse_entry, lines) if entry.statement_digest not in known]
        return bool(new) and self._membership.rotate(member, new)

    @property
    def _own_log(self) -> VerifierKey:
        return self._membership.seat.record.log

    def _checkpoint_age(self) -> float:
        return self._clock() - self._checkpoint if self._checkpoint else 0.0
