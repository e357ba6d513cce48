"""The own log after a restore: what peers have of it is taken only if the log itself signed it, and before it signs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.ledger.ledger import Ledger
from comity.node.members import PeerKey
from comity.node.replication.link import PeerState, StartBarrier
from comity.node.replication.mirror import PeerHead
from comity.node.replication.own_log_recovery import OwnLogRecovery
from comity.node.replication.questions import PeerQuestions
from comity.node.threads import AsyncLedger
from comity.rules.tree_proofs import MemoryTree, consistency_proof
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Untrusted
from comity.trust.tlog.merkle import leaf_hash, root
from comity.trust.tlog.note import Checkpoint
from support.logs import LogKeys, statement_lines

LOG = LogKeys.generate("own.example/log")
LINES = statement_lines(0, 30)


class Peer:
    """A peer that has the first `size` of these lines, and sends at most `most` at a time."""

    def __init__(self, number: int, size: int, lines: Sequence[bytes] = LINES, most: int = 100) -> None:
        self.peer_key = PeerKey(sha256(b"member %d" % number), f"peer-{number}.example/log")
        self.state, self.client = PeerState(reachable=True), self
        self.address, self.lines, self.size, self.most = "peer:1", list(lines), size, most
        self.tree = MemoryTree([leaf_hash(line) for line in self.lines])
        self.failing: Exception | None = None
        self.asked: list[int] = []

    async def entries(self, log: str, start: int, end: int) -> AsyncGenerator[Any, None]:
        self.asked.append(start)
        if self.failing is not None:
            raise self.failing
        yield SimpleNamespace(lines=self.lines[start : min(end, start + self.most)])

    async def consistency(self, log: str, old: int, new: int) -> tuple[bytes, ...]:
        return tuple(consistency_proof(old, new, self.tree.node))

    @property
    def head(self) -> PeerHead:
        note = LOG.note_over(self.lines[: self.size])
        return PeerHead(LOG.verifier, note, Checkpoint.parse(note.text))


class Scene:
    """A node whose ledger has the first lines of its own log; `marked` counts when it may sign again."""

    def __init__(self, folder: Path) -> None:
        self.ledger = AsyncLedger(Ledger.open(folder, lambda: 1_000))
        self.ledger.tables.logs.create(LOG.origin, LOG.vkey, own=True)
        self.marked = 0
        self.fetched: list[int] = []

    def has(self, size: int) -> None:
        self.ledger.tables.logs.append(LOG.vkey, LINES[:size])
        self.ledger.tables.logs.set_note(LOG.vkey, LOG.note_over(LINES[:size]))

    async def mark(self) -> None:
        self.marked += 1

    async def fetch_all(self, client: Any, objects: Sequence[Any], peer: PeerKey) -> int:
        self.fetched.append(len(objects))
        return 0

    async def recover(self, *peers: Any) -> int:
        """The size of the log after the recovery."""
        objects: Any = self
        questions = PeerQuestions(lambda: peers)
        made = OwnLogRecovery(self.ledger, LOG.vkey, self.mark, 0.0, StartBarrier((), 0.0), objects, questions)
        for peer in peers:
            made.add_head(peer, peer.head)
        async with asyncio.timeout(20):
            await made.run()
        return self.ledger.tables.logs.get(LOG.vkey).size


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


async def test_a_log_of_which_nobody_has_more_is_left_as_it_is(scene: Scene) -> None:
    scene.has(10)
    assert await scene.recover() == 10
    assert await scene.recover(Peer(1, 10), Peer(2, 7)) == 10 and scene.marked == 2
    assert scene.fetched == []


@pytest.mark.parametrize("most", [100, 7, 1])
async def test_missing_entries_are_appended_up_to_the_newest_head(scene: Scene, most: int) -> None:
    scene.has(10)
    assert await scene.recover(Peer(1, 18, most=most), Peer(2, 30, most=most)) == 30
    state = scene.ledger.tables.logs.get(LOG.vkey)
    assert state.root == root([leaf_hash(line) for line in LINES]) and scene.marked == 1
    assert state.note is not None and Checkpoint.parse(Peer(2, 30).head.note.text).size == 30
    assert len(scene.fetched) >= (20 + most - 1) // most


async def test_an_empty_ledger_is_filled(scene: Scene) -> None:
    assert await scene.recover(Peer(1, 30)) == 30


@pytest.mark.parametrize("size", [5, 10])
async def test_another_history_under_the_own_signature_is_never_continued(scene: Scene, size: int) -> None:
    scene.has(10)
    with pytest.raises(Untrusted) as raised:
        await scene.recover(Peer(1, size, statement_lines(100, 130)))
    assert raised.value.code == "LOG-DIVERGED" and scene.marked == 0
    assert scene.ledger.tables.logs.get(LOG.vkey).size == 10


async def test_entries_that_do_not_lead_to_the_signed_head_are_not_appended(scene: Scene) -> None:
    scene.has(10)
    liar = Peer(1, 30)
    head = liar.head
    liar.lines[15] = statement_lines(100, 101)[0]
    truthful = Peer(2, 30)
    peers: Any = (liar, truthful)
    questions, objects = PeerQuestions(lambda: peers), cast(Any, scene)
    made = OwnLogRecovery(scene.ledger, LOG.vkey, scene.mark, 0.0, StartBarrier((), 0.0), objects, questions)
    made.add_head(liar, head)  # type: ignore[arg-type]
    made.add_head(truthful, truthful.head)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await made.run()
    assert scene.ledger.tables.logs.get(LOG.vkey).root == root([leaf_hash(line) for line in LINES])


async def test_a_failure_of_all_peers_is_tried_again(scene: Scene) -> None:
    scene.has(10)
    peer = Peer(1, 30)
    peer.failing = NotFound("not here")
    waiting = asyncio.create_task(scene.recover(peer))
    while len(peer.asked) < 3:
        await asyncio.sleep(0)
    assert scene.marked == 0 and not waiting.done()
    peer.failing = None
    assert await waiting == 30 and scene.marked == 1


async def test_nothing_is_done_before_peers_had_time_to_answer(scene: Scene) -> None:
    scene.has(10)
    barrier, objects = StartBarrier([PeerKey(sha256(b"m"), "p")], None), scene
    questions = PeerQuestions(lambda: ())
    unused: Any = objects
    made = OwnLogRecovery(scene.ledger, LOG.vkey, scene.mark, 0.0, barrier, unused, questions)
    waiting = asyncio.create_task(made.run())
    await asyncio.wait({waiting}, timeout=0.1)
    assert scene.marked == 0 and not waiting.done()
    barrier.attempted(PeerKey(sha256(b"m"), "p"), answered=True)
    async with asyncio.timeout(20):
        await waiting
    assert scene.marked == 1
