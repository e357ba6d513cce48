"""When a node claims its copies: a single one immediately, many together, and each withdrawn by itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.node.copies.auditor import StatementReader
from comity.node.copies.index import CopiesIndex
from comity.node.copies.own_copies import OwnClaims, OwnPieces
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.own_log import OwnLog
from comity.node.replication.held_copies import CompletedCopy, HeldCopies, OwnHolds
from comity.node.threads import AsyncLedger, Pools
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.copies import HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.trust.keys import HybridSigner
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Author, SideObject, parse_entry
from comity.trust.statement_kinds import HOLD, HOLDS
from comity.trust.tlog.merkle import leaf_hash
from support.logs import LogKeys

OWN = LogKeys.generate("own.example/log")
NODE = Author("node", sha256(b"node"))
RECORD = cast(NodeRecord, SimpleNamespace(node=NODE, log=OWN.vkey))
SIGNER = HybridSigner.generate(("ed25519",))
MOST, SECONDS = 4, 60.0


class Own:
    """A node's ledger, store and claims, with a clock that the test sets."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.now, self.fails = 0.0, False
        self.tables = Ledger.open(folder, lambda: 1_000)
        if not self.tables.logs.all():
            self.tables.logs.create(OWN.origin, OWN.vkey, own=True)
        self.ledger, self.store = AsyncLedger(self.tables), FolderStore(folder / "blobs")
        membership = SimpleNamespace(
            own_node=SimpleNamespace(log=OWN.vkey, record=RECORD),
            writers=lambda log: {NODE} if log == OWN.vkey else set(),
        )
        self.membership = cast(Membership, membership)
        self.held = HeldCopies(self.ledger, self.store, Pools(), self.membership, lambda: self.now)
        self.signer = cast(NodeSigner, SimpleNamespace(record=RECORD, online=SIGNER))
        self.holds = OwnHolds(self.ledger, cast(OwnLog, self), self.held, most, SECONDS, lambda: self.now)

    async def append(self, line: bytes) -> int:
        if self.fails:
            raise Unavailable("the log does not take entries")
        return self.tables.logs.append(OWN.vkey, [line])[0]

    def copy(self, number: int) -> CompletedCopy:
        """An artifact of one file, which is stored and wanted."""
        data = b"file %d" % number
        manifest = Manifest.of([FileEntry("a", len(data), sha256(data))]).encode()
        pieces = PieceIndex((("a", PieceLayout(FIXED_LAYOUT, 1, sha256(leaf_hash(data)))),)).encode()
        for blob in (data, manifest, pieces):
            self.store.put(sha256(blob), blob)
        self.tables.replicas.publications_read([sha256(manifest)], [], sha256(b"basis"), {})
        return CompletedCopy(sha256(manifest), f"a/b{number}@v1", SideObject.of(manifest), SideObject.of(pieces))

    async def add(self, *numbers: int) -> list[Digest]:
        copies = [self.copy(number) for number in numbers]
        for copy in copies:
            await self.holds.add(copy)
        return [copy.artifact for copy in copies]

    def logged(self) -> list[tuple[str, int]]:
        """The predicate of each entry of the log, and how many artifacts it names."""
        said = (parse_entry(found.line).statement for found in self.tables.index.find(EntryQuery(origin=OWN.vkey)))
        return [(statement.predicate, len(statement.subjects)) for statement in said]

    def standing(self, artifact: Digest) -> int | None:
        """The index of the claim that audits of this copy refer to."""
        found = OwnClaims(self.tables, NODE.id, OWN.vkey).hold(artifact)
        return None if found is None else found.index

    async def withdraw(self, artifact: Digest, index: int) -> None:
        said = HoldWithdrawn(NODE, artifact, index, "space", "")
        await self.append(sign_content(said, SIGNER).line)
        await self.held.read_new()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    made = Own(tmp_path)
    with closing(made.tables):
        yield made


async def test_the_first_copy_is_claimed_immediately_and_later_ones_together(own: Own) -> None:
    first, *others = await own.add(0, 1, 2, 3)
    assert own.logged() == [(HOLD, 1)]
    assert [artifact in own.holds for artifact in (first, *others)] == [False, True, True, True]
    (last,) = await own.add(4)
    assert own.logged() == [(HOLD, 1), (HOLDS, MOST)]
    assert (own.held.standing, own.standing(first)) == (5, 0)
    assert [own.standing(artifact) for artifact in (*others, last)] == [1] * MOST
    assert own.tables.replicas.lacking(None, 9) == []


async def test_copies_that_wait_are_claimed_after_a_while(own: Own) -> None:
    await own.add(0, 1, 2)
    own.now = SECONDS - 1
    await own.holds.log_due()
    assert own.logged() == [(HOLD, 1)]
    own.now = SECONDS
    await own.holds.log_due()
    assert own.logged() == [(HOLD, 1), (HOLDS, 2)]
    own.now = 3 * SECONDS
    await own.add(3)
    assert own.logged()[2:] == [(HOLD, 1)], "it is alone, and nothing was logged for a while"


async def test_waiting_copies_are_claimed_on_request(own: Own) -> None:
    await own.add(0, 1, 2)
    await own.holds.log_waiting()
    await own.holds.log_waiting()
    assert own.logged() == [(HOLD, 1), (HOLDS, 2)]


async def test_with_a_batch_of_one_each_copy_is_claimed_alone(tmp_path: Path) -> None:
    own = Own(tmp_path, most=1)
    with closing(own.tables):
        await own.add(0, 1, 2)
        assert own.logged() == [(HOLD, 1)] * 3


async def test_one_of_many_is_withdrawn_and_claimed_again(own: Own) -> None:
    await own.add(0)
    artifacts = await own.add(1, 2, 3, 4)
    await own.withdraw(artifacts[0], 1)
    assert [own.standing(artifact) for artifact in artifacts] == [None, 1, 1, 1]
    assert await own.held.withdrawn(artifacts) == {artifacts[0]}
    own.now = SECONDS
    await own.add(1)
    assert own.standing(artifacts[0]) is None, "the operator has not taken the withdrawal back"
    for index in (1, 2, 3):
        await own.withdraw(artifacts[index], 1)
    for artifact in artifacts:
        own.held.take_back(artifact)
    assert await own.held.withdrawn(artifacts) == set()
    own.now = 3 * SECONDS
    await own.add(9)
    await own.add(1, 2, 3, 4)
    assert {own.standing(artifact) for artifact in artifacts} == {7}, "the same four are another statement"


async def test_a_claim_that_waited_when_the_node_ended_is_among_the_incomplete_copies(tmp_path: Path) -> None:
    own = Own(tmp_path)
    with closing(own.tables):
        artifacts = await own.add(0, 1, 2)
    again = Own(tmp_path)
    with closing(again.tables):
        await again.held.open()
        assert again.held.standing == 1
        assert again.tables.replicas.lacking(None, 9) == sorted(artifacts[1:])


async def test_a_copy_that_lost_a_file_while_it_waited_is_not_claimed(own: Own) -> None:
    _, lost, kept = await own.add(0, 1, 2)
    own.store.remove(sha256(b"file 1"))
    own.now = SECONDS
    await own.holds.log_due()
    assert own.logged() == [(HOLD, 1), (HOLD, 1)]
    assert (own.standing(lost), own.standing(kept)) == (None, 1)
    assert (own.holds.take_lost(), own.holds.take_lost()) == ([lost], [])
    assert own.tables.replicas.lacking(None, 9) == [lost]


async def test_a_claim_that_was_not_logged_does_not_wait(own: Own) -> None:
    own.fails = True
    with pytest.raises(Unavailable):
        await own.add(0)
    assert own.copy(0).artifact not in own.holds
    own.fails = False
    await own.add(0)
    assert own.logged() == [(HOLD, 1)]


async def test_the_index_of_copies_has_each_artifact_of_a_line(own: Own, tmp_path: Path) -> None:
    await own.add(0)
    artifacts = await own.add(1, 2, 3, 4)
    await own.withdraw(artifacts[1], 1)
    numbers = itertools.count()
    index = CopiesIndex(tmp_path / "copies.sqlite", OWN.vkey, lambda: next(numbers))
    with closing(index):
        await StatementReader(own.ledger, own.membership, index, cast(OwnPieces, None)).read()
        rows = [index.copies(artifact) for artifact in artifacts]
    assert [[row.withdrawn for row in found] for found in rows] == [[""], ["space"], [""], [""]]
    assert rows[0][0].manifest.digest == artifacts[0]


async def test_a_round_checks_the_files_of_each_artifact_of_a_line(own: Own) -> None:
    await own.held.open()
    _, *artifacts = await own.add(0, 1, 2, 3, 4)
    own.store.remove(sha256(b"file 3"))
    assert await own.held.check_page() == ([artifacts[2]], False)
