"""The parts that deal with offers, put together, and the one loop that keeps them up to date."""

from __future__ import annotations

from comity.node.allocation.accuser import Accuser
from comity.node.allocation.allocator import Allocator
from comity.node.allocation.clock import Clock
from comity.node.allocation.counter import Counter
from comity.node.allocation.pen import Pen
from comity.node.allocation.register import Convicted, Register
from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.node.tasks import Rhythm, Supervisor

OFFERS = "offers"
DEADLINE = 600.0
"""Seconds for one step."""


class Allocation:
    """Everything about offers at this node."""

    def __init__(self, core: Core, own_log: OwnLog, supervisor: Supervisor) -> None:
        self._core = core
        self._supervisor = supervisor
        self.register = Register(core)
        self.allocator = Allocator(core, Pen(core, own_log), self.register)
        self.counter = Counter(core, self.register)
        self._clock = Clock(core, self.allocator, self.register)
        self._accuser = Accuser(core, own_log)
        self._to_accuse: list[Convicted] = []

    def begin(self) -> None:
        rhythm = Rhythm(max(1.0, self._core.config.replication.interval_seconds), DEADLINE)
        self._supervisor.loop(OFFERS, self._step, rhythm)

    def look(self) -> None:
        """Some log has grown."""
        self._supervisor.ring(OFFERS)

    async def _step(self) -> None:
        behind = await self.register.read()
        self._to_accuse += self.register.newly_convicted()
        while self._to_accuse:
            await self._accuser.accuse(self._to_accuse[0])
            del self._to_accuse[0]
        if behind or await self._clock.turn():
            self.look()
