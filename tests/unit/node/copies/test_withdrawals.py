"""The effect of a withdrawal on the files of this node, also when the disk or the log fails in the middle."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.content import durable
from comity.content.blobs import BlobStore, FolderStore
from comity.content.withheld import WithheldFolder
from comity.node.copies import held_files, withdrawal
from comity.node.copies.auditor import AuditedCopy
from comity.node.copies.index import CopyRow
from comity.node.copies.withdrawal import Withdrawals, WithdrawnFiles
from comity.node.members import Peer
from comity.node.uploads import read_manifest
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import MISSED, PASSED, CopyPolicy
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, NotFound, OutOfSpace, PolicyNotMet, Unavailable
from comity.trust.statement import SideObject
from comity.wire.audit import HoldOrder
from support.withdrawals import WithdrawingNode

SHARED, FIRST, SECOND = b"a tokenizer", b"the first weights", b"the second weights"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WithdrawingNode]:
    made = WithdrawingNode(tmp_path / "node", FolderStore(tmp_path / "store"))
    yield made
    made.close()


def withheld(node: WithdrawingNode) -> list[Digest]:
    return node.store.withheld().artifacts()


async def test_files_shared_with_another_held_artifact_stay_until_it_is_removed_too(node: WithdrawingNode) -> None:
    first, second = node.hold([SHARED, FIRST]), node.hold([SHARED, SECOND])
    gone = await node.withdrawals.decide(HoldOrder(first, "space"))
    assert gone.bytes == len(FIRST)
    assert len(gone.proven) == 3
    assert not node.store.has(sha256(FIRST))
    assert node.store.has(sha256(SHARED))
    gone = await node.withdrawals.decide(HoldOrder(second, "space"))
    assert gone.bytes == len(SHARED) + len(SECOND)
    assert withheld(node) == []
    with pytest.raises(NotFound):
        await node.withdrawals.decide(HoldOrder(second, "space"))


@pytest.mark.parametrize("force", [False, True])
async def test_files_of_a_complete_copy_that_is_not_claimed_yet_stay(node: WithdrawingNode, force: bool) -> None:
    """Claims wait for others up to half a minute; a new publication may have no other copy."""
    held = node.hold([SHARED, FIRST])
    node.unclaimed.append([SHARED, SECOND])
    gone = await node.withdrawals.decide(HoldOrder(held, "space", force=force))
    assert gone.bytes == len(FIRST)
    assert node.store.has(sha256(SHARED))


async def test_a_claim_that_cannot_be_logged_stops_a_removal_but_not_an_order(node: WithdrawingNode) -> None:
    held = node.hold([FIRST])
    node.refuse_claims = Unavailable("the blob store did not answer")
    with pytest.raises(Unavailable):
        await node.withdrawals.decide(HoldOrder(held, "space"))
    assert node.store.has(sha256(FIRST))
    await node.withdrawals.decide(HoldOrder(held, "legal-order", "order 12", force=True))
    assert not node.store.has(sha256(FIRST))


async def test_too_few_proofs_restore_all_files(node: WithdrawingNode) -> None:
    node.outcome = MISSED
    held = node.hold([FIRST])
    with pytest.raises(PolicyNotMet) as short:
        await node.withdrawals.decide(HoldOrder(held, "space"))
    assert short.value.code == "COPIES-SHORT"
    assert node.store.has(sha256(FIRST))
    assert (withheld(node), node.withdrawn) == ([], set())


async def test_a_pinned_artifact_is_removed_by_an_order_only(node: WithdrawingNode) -> None:
    held = node.hold([FIRST])
    node.ledger.pins.put(Pin(held, "", CopyPolicy(2, 1)))
    for reason in ("space", "retention"):
        with pytest.raises(Conflict) as refused:
            await node.withdrawals.decide(HoldOrder(held, reason, force=True))
        assert refused.value.code == "PINNED"
    assert node.store.has(sha256(FIRST))
    await node.withdrawals.decide(HoldOrder(held, "legal-order", "order 12"))
    assert not node.store.has(sha256(FIRST))


async def test_a_manifest_that_cannot_be_read_stops_a_removal_but_not_an_order(node: WithdrawingNode) -> None:
    """It may name the same files: a removal waits, and a legal order does not."""
    first, second = node.hold([SHARED, FIRST]), node.hold([SHARED, SECOND])
    manifest = b"".join(node.store.iterate(second, 0, node.store.size(second)))
    node.store.remove(second)
    with pytest.raises(Conflict) as unread:
        await node.withdrawals.decide(HoldOrder(first, "space"))
    assert unread.value.code == "MANIFEST-UNREAD"
    assert node.store.has(sha256(FIRST))
    node.store.put(second, manifest)
    assert (await node.withdrawals.decide(HoldOrder(first, "space", trial=True))).bytes == len(FIRST)
    node.store.remove(second)
    await node.withdrawals.decide(HoldOrder(first, "legal-order", "order 12", keep=True, force=True))
    assert not node.store.has(sha256(FIRST))


@pytest.mark.slow
async def test_no_manifest_is_read_twice(node: WithdrawingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Digest] = []

    def listen(store: BlobStore, manifest: SideObject) -> Manifest:
        read.append(manifest.digest)
        return read_manifest(store, manifest)

    monkeypatch.setattr(held_files, "read_manifest", listen)
    held = [node.hold([b"file %d" % number]) for number in range(70)]
    for artifact in held[:3]:
        await node.withdrawals.decide(HoldOrder(artifact, "space", trial=True))
    assert sorted(read) == sorted(held)


async def test_a_full_disk_at_the_log_restores_the_files(node: WithdrawingNode) -> None:
    held = node.hold([FIRST])
    node.refuse_log = OutOfSpace("the log was not written", why="the disk is full")
    with pytest.raises(OutOfSpace):
        await node.withdrawals.decide(HoldOrder(held, "space"))
    assert node.store.has(sha256(FIRST))
    node.refuse_log = None
    node.now += 3600
    await node.withdrawals.decide(HoldOrder(held, "space"))
    assert not node.store.has(sha256(FIRST))


def no_space(monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    """The disk is full after so many renames."""
    left = iter(range(moves))
    original = durable.move

    def move(source: Path, path: Path, *, point: str = "file") -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "no space left on device")
        original(source, path, point=point)

    monkeypatch.setattr(durable, "move", move)


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
async def test_a_full_disk_in_the_middle_loses_nothing_and_the_node_recovers_by_itself(
    node: WithdrawingNode, moves: int
) -> None:
    """The disk is full while the files are moved aside, and still full when they should be moved back: a later step
    moves them back.
    """
    held = node.hold([FIRST, SECOND])
    node.outcome = MISSED
    with pytest.MonkeyPatch.context() as monkeypatch:
        no_space(monkeypatch, moves)
        with pytest.raises((OutOfSpace, PolicyNotMet)):
            await node.withdrawals.decide(HoldOrder(held, "space"))
        await full(node.withdrawals)
    await node.withdrawals.step()
    assert all(node.store.verify(sha256(data)) for data in (FIRST, SECOND))
    assert (withheld(node), node.withdrawn) == ([], set())


async def full(withdrawals: Withdrawals) -> None:
    try:
        await withdrawals.step()
    except OutOfSpace:
        return


@pytest.mark.parametrize("logged", [False, True])
async def test_a_start_finishes_what_a_crash_interrupted(node: WithdrawingNode, logged: bool) -> None:
    """Before the withdrawal is in the log the files are moved back; after it they are deleted."""
    held = node.hold([FIRST])
    if logged:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(WithdrawnFiles, "finish", nothing)  # as if the process had ended
            await node.withdrawals.decide(HoldOrder(held, "space"))
    else:
        node.store.withheld().take(held, sha256(FIRST))
    assert withheld(node) == [held]
    await node.restarted().recover()
    assert withheld(node) == []
    assert node.store.has(sha256(FIRST)) is not logged


async def nothing(*_: object) -> None:
    return


async def never_answers(node: WithdrawingNode, monkeypatch: pytest.MonkeyPatch, *silent: int) -> list[str]:
    """Nodes at these places are silent when they are audited. Returns the names of those that are asked."""
    asked, names = list[str](), {node.nodes[number].record.name for number in silent}

    async def audit(row: CopyRow, peer: Peer, *, lease: int = 0) -> AuditedCopy:
        asked.append(peer.name)
        if peer.name in names:
            await asyncio.Event().wait()
        return AuditedCopy(peer, PASSED)

    monkeypatch.setattr(node.played_auditor, "audit", audit)
    return asked


async def test_a_holder_that_never_answers_does_not_stop_a_withdrawal(
    node: WithdrawingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawal, "SPARE_SECONDS", 0.01)
    await never_answers(node, monkeypatch, 3)
    held = node.hold([FIRST])
    gone = await node.withdrawals.decide(HoldOrder(held, "space"))
    assert len(gone.proven) == 2
    assert gone.unproven == (f"{node.nodes[3].record.name}: it did not answer in time",)
    assert not node.store.has(sha256(FIRST))


async def test_if_too_few_answer_in_time_the_copy_stays(node: WithdrawingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawal, "LEASE", 0)
    await never_answers(node, monkeypatch, 2, 3)
    with pytest.raises(PolicyNotMet):
        await node.withdrawals.decide(HoldOrder(node.hold([FIRST]), "space"))
    assert node.store.has(sha256(FIRST))


async def test_holders_that_passed_before_are_asked_first(
    node: WithdrawingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise holders that never answer could use all places of those that are asked at a time."""
    monkeypatch.setattr(withdrawal, "AT_ONCE", 2)
    monkeypatch.setattr(withdrawal, "SPARE_SECONDS", 0.01)
    asked = await never_answers(node, monkeypatch, 1)
    held = node.hold([FIRST])
    node.test(held, [2, 3])
    gone = await node.withdrawals.decide(HoldOrder(held, "space"))
    assert set(asked[:2]) == {node.nodes[number].record.name for number in (2, 3)} == set(gone.proven)


async def test_files_that_an_order_keeps_stay_aside_and_can_be_restored(node: WithdrawingNode) -> None:
    held = node.hold([FIRST])
    node.outcome = MISSED
    order = HoldOrder(held, "legal-order", "order 12", keep=True, force=True)
    assert (await node.withdrawals.decide(order)).proven == ()
    assert node.asked == []
    await node.restarted().recover()
    await node.withdrawals.step()
    assert withheld(node) == [held]
    assert not node.store.has(sha256(FIRST))
    await node.withdrawals.decide(HoldOrder(held, again=True))
    assert node.store.verify(sha256(FIRST))


def died_before_they_were_logged(node: WithdrawingNode) -> dict[Digest, Digest]:
    """Two withdrawals of a process that was killed: by artifact, in their order, the file that was moved aside."""
    held = {node.hold([data]): sha256(data) for data in (FIRST, SECOND)}
    for artifact, file in held.items():
        node.store.withheld().take(artifact, file)
    node.restarted()
    return dict(sorted(held.items()))


async def test_one_withdrawal_that_cannot_end_stops_neither_the_start_nor_the_other(node: WithdrawingNode) -> None:
    (bad, first), (_, second) = died_before_they_were_logged(node).items()
    give_back = WithheldFolder.give_back

    def refuse(self: WithheldFolder, artifact: Digest) -> None:
        if artifact == bad:
            raise Unavailable("the service did not answer")
        give_back(self, artifact)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(WithheldFolder, "give_back", refuse)
        await node.withdrawals.recover()
        assert (node.store.has(first), node.store.has(second)) == (False, True)
        with pytest.raises(Unavailable):
            await node.withdrawals.step()
    await node.withdrawals.step()
    assert node.store.has(first)


async def test_a_service_that_is_silent_at_the_start_is_asked_again(node: WithdrawingNode) -> None:
    files = died_before_they_were_logged(node).values()

    def silent(self: WithheldFolder) -> list[Digest]:
        raise Unavailable("the service did not answer")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(WithheldFolder, "artifacts", silent)
        await node.withdrawals.recover()
        with pytest.raises(Unavailable):
            await node.withdrawals.step()
    await node.withdrawals.step()
    assert all(map(node.store.has, files))


async def test_files_that_could_not_be_deleted_yet_are_not_reported_as_deleted(node: WithdrawingNode) -> None:
    held = node.hold([FIRST])

    def silent(self: WithheldFolder, artifact: Digest) -> None:
        raise Unavailable("the service did not answer")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(WithheldFolder, "erase", silent)
        gone = await node.withdrawals.decide(HoldOrder(held, "legal-order", "order 12", force=True))
    assert (gone.bytes, withheld(node)) == (0, [held])
    await node.withdrawals.step()
    assert withheld(node) == []


async def test_an_operator_who_goes_while_files_are_deleted_ends_the_withdrawal_too(
    node: WithdrawingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the node would answer no audit of a copy that it has again later, and withdraw it never again."""
    held, erasing, go_on = node.hold([FIRST]), threading.Event(), threading.Event()
    erase = WithheldFolder.erase

    def slow(self: WithheldFolder, artifact: Digest) -> None:
        erasing.set()
        go_on.wait()
        erase(self, artifact)

    monkeypatch.setattr(WithheldFolder, "erase", slow)
    deciding = asyncio.create_task(node.withdrawals.decide(HoldOrder(held, "space")))
    await asyncio.to_thread(erasing.wait)
    deciding.cancel()
    await asyncio.gather(deciding, return_exceptions=True)
    go_on.set()
    async with asyncio.timeout(30):
        while node.withdrawals._leases.withdrawing(held):
            await asyncio.sleep(0.01)
    assert withheld(node) == []
