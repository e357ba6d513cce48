"""Whose turn it is to catch a log up, and how many lines a step goes for. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from comity.node.members import PeerKey
from comity.node.replication.link import MAX_LINES
from comity.trust.encoding import Digest

TURN_SECONDS: Final = 20.0
"""Seconds of a log's first turn."""
STALL_SECONDS: Final = 3.0
"""The same while less than `STALL_RATE` bytes a second arrive: what a peer is waited for anywhere (`wire.asking`)."""
STALL_RATE: Final = 16 * 1024.0
MAX_TURN_SECONDS: Final = 1_200.0
TAKEOVER_TURNS: Final = 4
"""Turn lengths after which any member may take over."""
MAX_REST_SECONDS: Final = 600.0
MAX_REMEMBERED: Final = 16_384
"""Remembered pairs of a member and a log; the one unused longest is dropped first."""


@dataclass(slots=True, eq=False)
class LogTurn:
    """A member that fetches a log. `received` counts bytes; `end` is called when another member is to continue."""

    log: str
    member: Digest
    since: float
    received: int = 0
    preempted: bool = False
    end: Callable[[], None] = field(default=lambda: None)

    def add(self, size: int) -> None:
        self.received += size

    def rate(self, now: float) -> float:
        return self.received / max(now - self.since, 1e-6)


@dataclass(slots=True)
class _LogProgress:
    """What is known of a member as a source of one log."""

    failures: int = 0
    resting_until: float = 0.0
    rate: float | None = None


class LogTurns:
    """Whose turn it is to catch a log up: that of one member at a time; its nodes count as one. No I/O, no clock.

    (1) a turn is ended after its length for a member that was never tried with this log or was more than twice as fast,
        and after four lengths for any other member
    (2) a member whose turn was ended pauses for one turn; a member that failed pauses longer each time
    (3) while no step of the log is stored, its turns grow, so that a slow honest peer can finish a step
    (4) a turn in which little arrives is shorter in the same proportion

    Args:
        interval: seconds of the first pause after a failure.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._turns: dict[str, LogTurn] = {}
        self._lengths: dict[str, float] = {}
        self._progress: dict[tuple[Digest, str], _LogProgress] = {}

    def begin(self, log: str, member: Digest, now: float) -> LogTurn | None:
        """The member's turn with a log; None while the member pauses or another turn runs. That turn may be ended by
        this call; then this member's nodes ask again."""
        known = self._progress.get((member, log))
        if known is not None and now < known.resting_until:
            return None
        current = self._turns.get(log)
        if current is None:
            turn = self._turns[log] = LogTurn(log, member, now)
            return turn
        if current.member != member and not current.preempted and self._should_yield(current, known, now):
            current.preempted = True
            current.end()
        return None

    def step_stored(self, turn: LogTurn) -> None:
        """A step was stored: the log's turns are short again."""
        self._lengths.pop(turn.log, None)

    def finish(self, turn: LogTurn, now: float, *, failed: bool = False) -> None:
        """The turn has ended: preempted, successful, or because the member `failed`."""
        del self._turns[turn.log]
        known = self._progress.pop((turn.member, turn.log), _LogProgress())
        self._progress[turn.member, turn.log] = known
        if len(self._progress) > MAX_REMEMBERED:
            del self._progress[next(iter(self._progress))]
        known.rate = turn.rate(now)
        if turn.preempted:
            length = self._lengths[turn.log] = min(MAX_TURN_SECONDS, 2 * self._length(turn.log))
            known.resting_until = now + length
        elif failed:
            known.failures += 1
            known.resting_until = now + min(self._interval * 2 ** min(known.failures, 16), MAX_REST_SECONDS)
        else:
            known.failures = 0

    def _length(self, log: str) -> float:
        return self._lengths.get(log, TURN_SECONDS)

    def _should_yield(self, current: LogTurn, known: _LogProgress | None, now: float) -> bool:
        lasted, length = now - current.since, self._length(current.log)
        if current.rate(now) < STALL_RATE:
            length *= STALL_SECONDS / TURN_SECONDS
        if lasted < length:
            return False
        untried = known is None or known.rate is None
        return (
            untried
            or lasted >= TAKEOVER_TURNS * length
            or (known is not None and (known.rate or 0) > 2 * current.rate(now))
        )


STEP_LINES: Final = MAX_LINES
FIRST_LINES: Final = 64
"""Lines that the first steps with a peer go for."""
AIM_SECONDS: Final = 60.0
"""After a step that took less than a third of this, the next one goes for four times the lines; after one that took
more, for half of them. Each step costs some round trips."""


class StepPace:
    """How many lines ahead of the stored ones a step looks for a checkpoint, by peer: a step goes for one that this
    peer was seen to bring within a minute. Not thread-safe: call from the event loop."""

    def __init__(self) -> None:
        self._lines: dict[PeerKey, int] = {}

    def lines(self, peer: PeerKey) -> int:
        return min(self._lines.get(peer, FIRST_LINES), STEP_LINES)

    def stored(self, peer: PeerKey, seconds: float) -> None:
        """A step with this peer took so long, with its side objects."""
        lines = self.lines(peer)
        if seconds < AIM_SECONDS / 3:
            lines = min(4 * lines, STEP_LINES)
        elif seconds > AIM_SECONDS:
            lines = max(lines // 2, FIRST_LINES)
        self._lines[peer] = lines
