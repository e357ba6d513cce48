"""The size of a mirroring step: up to a near checkpoint at first, and farther while steps are quick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.members import PeerKey
from comity.node.replication.cosigner import OpenedNotes
from comity.node.replication.link import CopySource
from comity.node.replication.log_turns import AIM_SECONDS, FIRST_LINES, STEP_LINES, StepPace
from comity.node.replication.mirror import LogMirror, PeerHead
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from comity.trust.tlog.note import Checkpoint
from support.logs import LogKeys

PEER, OTHER = PeerKey(sha256(b"a"), "a.example/log"), PeerKey(sha256(b"b"), "b.example/log")
KEYS = LogKeys.generate("step.example/log")


def head_of(size: int) -> PeerHead:
    checkpoint = Checkpoint(KEYS.verifier.name, size, bytes(32))
    return PeerHead(KEYS.verifier, checkpoint.signed(KEYS.key), checkpoint)


class Source:
    """A peer with checkpoints of some sizes; `asked` has the limits of the questions."""

    peer_key = PEER

    def __init__(self, *sizes: int) -> None:
        self.sizes, self.asked = sizes, list[int]()
        self.client = self

    async def checkpoint(self, log: str, *, up_to: int) -> bytes:
        self.asked.append(up_to)
        size = max((size for size in self.sizes if size <= up_to), default=0)
        if not size:
            raise NotFound("no such checkpoint")
        return head_of(size).note.encode()


async def next_size(source: Source, start: int, shown: int, pace: StepPace | None = None) -> int:
    mirror = SimpleNamespace(_pace=pace or StepPace(), _opened=OpenedNotes())
    mirror._head_up_to = lambda *given: LogMirror._head_up_to(cast(Any, mirror), *given)
    head = await LogMirror._head_on_the_way(cast(Any, mirror), cast(CopySource, source), head_of(shown), start)
    return head.checkpoint.size


def test_quick_steps_lead_to_larger_ones_up_to_the_limit_and_slow_ones_back() -> None:
    pace, seen = StepPace(), []
    for _ in range(5):
        seen.append(pace.lines(PEER))
        pace.stored(PEER, 0.1)
    assert seen == [64, 256, 1024, 4096, 4096]
    assert pace.lines(OTHER) == FIRST_LINES, "each peer has its own pace"
    pace.stored(PEER, 0.6 * AIM_SECONDS)
    assert pace.lines(PEER) == STEP_LINES
    for _ in range(9):
        pace.stored(PEER, 2 * AIM_SECONDS)
    assert pace.lines(PEER) == FIRST_LINES


@pytest.mark.parametrize(
    ("sizes", "start", "expected", "questions"),
    [
        pytest.param(range(1, 10_001), 0, 64, 1, id="every size"),
        pytest.param(range(1, 10_001), 64, 128, 1, id="from a later start"),
        pytest.param([1000, 9000], 0, 1000, 2, id="none close, one within a step"),
        pytest.param([1000, 9000], 1000, 10_000, 2, id="none on the way but one that is stored"),
        pytest.param([], 0, 10_000, 2, id="none"),
        pytest.param([], 9950, 10_000, 0, id="the head is close"),
    ],
)
async def test_a_step_ends_at_the_nearest_checkpoints_of_the_peer(
    sizes: range | list[int], start: int, expected: int, questions: int
) -> None:
    source = Source(*sizes)
    assert await next_size(source, start, 10_000) == expected
    assert len(source.asked) == questions


async def test_a_peer_that_was_quick_is_asked_once_for_a_whole_step() -> None:
    pace, source = StepPace(), Source(*range(1, 10_001))
    for _ in range(8):
        pace.stored(PEER, 0.0)
    assert await next_size(source, 0, 10_000, pace) == STEP_LINES
    assert source.asked == [STEP_LINES]
