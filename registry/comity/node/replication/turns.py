"""Who brings a log on: one member at a time, claimed without a wait, and for no longer than its rate is worth.

(1) a turn that has lasted is ended for a member that was never tried with this log, or brought it on more than twice as
    fast; one that has lasted four times as long, for any other
(2) who was put off rests for a turn, so that the other one gets in; who failed rests longer each time
(3) as long as nothing of the log is kept, its turns grow, so that what is slow but honest gets to the end of a step

The nodes of a member count as one: who runs many of them gets no more turns. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from comity.trust.digest import Digest

TURN: Final = 20.0
"""Seconds of a log's first turn."""
LONGEST_TURN: Final = 1_200.0
LAST: Final = 4
"""Turns' lengths after which any member may take over."""
LONGEST_REST: Final = 600.0
MAX_KNOWN: Final = 16_384
"""Pairs of a member and a log that are remembered; what was longest not tried is forgotten first."""


@dataclass(slots=True, eq=False)
class Turn:
    """A member at work on a log. `received` counts bytes as they come; `end` is called if another one is to go on."""

    log: str
    member: Digest
    since: float
    received: int = 0
    put_off: bool = False
    end: Callable[[], None] = field(default=lambda: None)

    def rate(self, now: float) -> float:
        return self.received / max(now - self.since, 1e-6)


@dataclass(slots=True)
class _Known:
    """What is known of a member as a source of one log."""

    failures: int = 0
    rests_until: float = 0.0
    rate: float | None = None


class Turns:
    """The turns of all logs.

    Args:
        interval: seconds of the first rest after a failure.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._turns: dict[str, Turn] = {}
        self._lengths: dict[str, float] = {}
        self._known: dict[tuple[Digest, str], _Known] = {}

    def begin(self, log: str, member: Digest, now: float) -> Turn | None:
        """The member's turn with a log; None while it rests, or a node is at it. It may be that one's last moment: then
        this member's nodes ask again."""
        known = self._known.get((member, log))
        if known is not None and now < known.rests_until:
            return None
        holder = self._turns.get(log)
        if holder is None:
            turn = self._turns[log] = Turn(log, member, now)
            return turn
        if holder.member != member and not holder.put_off and self._gives_way(holder, known, now):
            holder.put_off = True
            holder.end()
        return None

    def kept(self, turn: Turn) -> None:
        """A step is kept: the log's turns are short again."""
        self._lengths.pop(turn.log, None)

    def over(self, turn: Turn, now: float, *, failed: bool = False) -> None:
        """The turn has ended: because another one's begins, well, or because the member `failed`."""
        del self._turns[turn.log]
        known = self._known.pop((turn.member, turn.log), _Known())
        self._known[turn.member, turn.log] = known
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        known.rate = turn.rate(now)
        if turn.put_off:
            length = self._lengths[turn.log] = min(LONGEST_TURN, 2 * self._length(turn.log))
            known.rests_until = now + length
        elif failed:
            known.failures += 1
            known.rests_until = now + min(self._interval * 2 ** min(known.failures, 16), LONGEST_REST)
        else:
            known.failures = 0

    def _length(self, log: str) -> float:
        return self._lengths.get(log, TURN)

    def _gives_way(self, holder: Turn, known: _Known | None, now: float) -> bool:
        lasted, length = now - holder.since, self._length(holder.log)
        if lasted < length:
            return False
        untried = known is None or known.rate is None
        return untried or lasted >= LAST * length or (known is not None and (known.rate or 0) > 2 * holder.rate(now))
