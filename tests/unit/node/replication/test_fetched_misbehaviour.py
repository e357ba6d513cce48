"""Misbehaviour proofs from peers: each is stored for the log that it is about, as soon as that log is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.replication import misbehaviour
from comity.node.replication.misbehaviour import MAX_INVALID, MisbehaviourProofs
from comity.node.replication.news import PeerNews
from comity.node.replication.peers import CHARTER_RETRY_SECONDS, PeerRounds
from comity.node.threads import AsyncLedger
from comity.rules.misbehaviour import ROOTS, minimal_misbehaviour
from comity.rules.tree_proofs import MemoryTree
from comity.trust.errors import Malformed, OutOfSpace, Untrusted
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import VerifierKey
from comity.wire.client import NodeClient
from comity.wire.log import ShownMisbehaviour
from support.logs import LogKeys

LOG = LogKeys.generate("log.example/log")
NAMESAKE = LogKeys.generate("log.example/log")


def shown(log: LogKeys) -> ShownMisbehaviour:
    trees = (MemoryTree([leaf_hash(word)]) for word in (b"one", b"other"))
    return ShownMisbehaviour(ROOTS, log.origin, tuple(log.note(1, tree.root(1)).encode() for tree in trees))


class Scene:
    """A node that knows some logs, and a peer that shows proofs."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.known: list[LogKeys] = []
        self.shown: list[ShownMisbehaviour] = []
        self.failure: Exception | None = None
        members = SimpleNamespace(log_keys=self._log_keys, log_title=lambda log: log)
        self.proofs = MisbehaviourProofs(AsyncLedger(self.ledger), cast(Membership, members), Metrics())
        self.client = cast(NodeClient, SimpleNamespace(misbehaviour=self._answer))

    def _log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        return tuple(log.verifier for log in self.known if log.origin == origin)

    async def _answer(self) -> tuple[ShownMisbehaviour, ...]:
        if self.failure is not None:
            raise self.failure
        return tuple(self.shown)

    def frozen(self, log: LogKeys) -> bool:
        return self.proofs.frozen(VerifierKey.parse(log.vkey))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


async def test_a_proof_about_a_log_that_becomes_known_later_counts_then(scene: Scene) -> None:
    scene.shown = [shown(LOG)]
    await scene.proofs.fetch(scene.client)
    scene.known = [LOG]
    await scene.proofs.fetch(scene.client)
    assert scene.frozen(LOG)


async def test_a_proof_about_a_log_with_the_origin_of_a_known_one_counts_later_too(scene: Scene) -> None:
    scene.shown, scene.known = [shown(NAMESAKE)], [LOG]
    await scene.proofs.fetch(scene.client)
    scene.known.append(NAMESAKE)
    await scene.proofs.fetch(scene.client)
    assert scene.frozen(NAMESAKE) and not scene.frozen(LOG)


async def test_a_proof_that_could_not_be_stored_is_stored_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.shown, scene.known = [shown(LOG)], [LOG]

    def full(*_: object) -> bool:
        raise OutOfSpace("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(scene.ledger.misbehaviour, "add", full)
        with pytest.raises(OutOfSpace):
            await scene.proofs.fetch(scene.client)
    await scene.proofs.fetch(scene.client)
    assert scene.frozen(LOG)


async def test_a_peer_that_shows_proofs_of_nothing_is_not_read_to_its_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer has up to 10,000: each would cost signature checks on the event loop, and a line in the node's log."""
    checked: list[bytes] = []
    check = minimal_misbehaviour

    def counted(kind: str, parts: Sequence[bytes], key: VerifierKey) -> tuple[bytes, bytes]:
        checked.append(parts[0])
        return check(kind, parts, key)

    monkeypatch.setattr(misbehaviour, "minimal_misbehaviour", counted)
    scene.known = [LOG]
    rubbish = [ShownMisbehaviour(ROOTS, LOG.origin, (b"one %d" % number, b"two")) for number in range(1_000)]
    scene.shown = [*rubbish[:MAX_INVALID], shown(LOG)]
    await scene.proofs.fetch(scene.client)
    assert scene.frozen(LOG)
    scene.shown = rubbish
    with pytest.raises(Untrusted):
        await scene.proofs.fetch(scene.client)
    assert len(checked) == 2 * MAX_INVALID + 2


def test_proofs_are_asked_for_again_when_more_logs_are_known() -> None:
    news = PeerNews()
    news.misbehaviour = news.fetched_misbehaviour = 1
    news.begin_again()
    assert news.fetched_misbehaviour != news.misbehaviour


async def test_proofs_that_a_peer_cannot_show_do_not_keep_its_logs_from_being_mirrored(scene: Scene) -> None:
    scene.failure = Malformed("the answer is too long", code="UNBOUNDED")
    news = PeerNews()
    news.misbehaviour = 1
    link = SimpleNamespace(news=news, client=scene.client, name="a peer")
    rounds = SimpleNamespace(_misbehaviour=scene.proofs, _interval=5.0)
    await PeerRounds._fetch_misbehaviour(cast(PeerRounds, rounds), link)  # type: ignore[arg-type]
    assert news.fetched_misbehaviour is None
    assert news.fetch_at >= CHARTER_RETRY_SECONDS / 2
