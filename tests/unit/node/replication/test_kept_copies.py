"""What copying keeps in the ledger: a restart continues from it, and finds what a reading from the beginning finds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity, Release
from comity.content.blobs import FolderStore
from comity.ledger import schema
from comity.ledger.copy_tables import HOLDS
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.own_log import OwnLog
from comity.node.replication import replicas as replicas_module
from comity.node.replication import wanted as wanted_module
from comity.node.replication.artifacts import Copy, CopyQueue
from comity.node.replication.copy_limits import CopyPauses
from comity.node.replication.files import FileFetcher
from comity.node.replication.held_copies import HeldCopies
from comity.node.replication.replicas import Replicas
from comity.node.replication.wanted import StatementAges, WantedArtifacts
from comity.node.settings import Replication
from comity.node.threads import AsyncLedger, Pools
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.trust.keys import HybridSigner
from comity.trust.statement import Author, SideObject, Statement, Subject, parse_entry, sign_statement
from comity.trust.statement_kinds import HOLD_WITHDRAWN
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from support.context import node_context
from support.copy_charges import made_charges
from support.examples import examples
from support.logs import LogKeys

OWN, OTHER = LogKeys.generate("own.example/log"), LogKeys.generate("other.example/log")
NODE = Author("node", sha256(b"node"))
SIGNER = HybridSigner.generate(("ed25519",))
PUBLISHER = Identity.made("a publisher")
MEMBERSHIP = cast(
    Membership,
    SimpleNamespace(
        own_node=SimpleNamespace(log=OWN.vkey, record=SimpleNamespace(node=NODE), inception=SimpleNamespace(id="own")),
        peers=(),
        owner=lambda log: None,
        node_ids=(),
        precedence=Precedence(),
    ),
)


def artifact(number: int) -> Digest:
    return sha256(b"artifact %d" % number)


EVERY = [artifact(number) for number in range(4)]


def claim(number: int, turn: int, *, hold: bool = True) -> bytes:
    """A hold of an artifact by this node, or its withdrawal. `turn` makes it another statement."""
    manifest, pieces = SideObject(artifact(number), 10), SideObject(sha256(b"pieces"), 20)
    body = {"manifest": manifest.to_json(), "pieces": pieces.to_json()}
    subject = Subject(f"turn {turn}", artifact(number))
    if hold:
        return sign_statement(Statement("hold", (subject,), NODE, body, (manifest, pieces)), SIGNER).line
    return sign_statement(Statement(HOLD_WITHDRAWN, (subject,), NODE, {}), SIGNER).line


def opened(folder: Path) -> Ledger:
    ledger = Ledger.open(folder, lambda: 1_000)
    ledger.logs.create(OWN.origin, OWN.vkey, own=True)
    return ledger


def held_copies(ledger: Ledger, folder: Path) -> HeldCopies:
    return HeldCopies(AsyncLedger(ledger), FolderStore(folder / "blobs"), Pools(), MEMBERSHIP, lambda: 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(opened(tmp_path)) as made:
        yield made


def state(ledger: Ledger) -> dict[Digest, tuple[bool, int]]:
    found = ledger.replicas.copies(EVERY)
    return {digest: (copy.stands, max(copy.held, copy.withdrawn)) for digest, copy in found.items()}


@settings(max_examples=examples(10), deadline=None)
@given(
    said=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=24),
    cuts=st.sets(st.integers(0, 24), max_size=4),
    crash=st.booleans(),
)
async def test_own_copies_are_the_same_after_any_restarts(
    said: Sequence[tuple[int, bool]], cuts: set[int], crash: bool
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        ledger = opened(folder)
        copies = held_copies(ledger, folder)
        await copies.open()
        for turn, (number, hold) in enumerate(said):
            ledger.logs.append(OWN.vkey, [claim(number, turn, hold=hold)])
            if not crash:
                await copies.read_new()
            if turn in cuts:
                ledger.close()
                ledger = opened(folder)
                copies = held_copies(ledger, folder)
                await copies.open()
        await copies.read_new()
        kept, standing, withdrawn = state(ledger), copies.standing, await copies.withdrawn(EVERY)
        ledger.replicas.forget_holds()
        from_zero = held_copies(ledger, folder)
        await from_zero.open()
        assert (kept, standing, withdrawn) == (state(ledger), from_zero.standing, await from_zero.withdrawn(EVERY))
        last = {number: hold for number, hold in said}  # noqa: C416
        assert standing == sum(last.values())
        assert withdrawn == {artifact(number) for number, hold in last.items() if not hold}
        ledger.close()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"size": 99}, "fewer entries"),
        ({"number": 99}, "fewer entries"),
        ({"root": bytes(32)}, "another root"),
        ({"basis": sha256(b"another node")}, "have changed"),
    ],
)
async def test_kept_rows_of_another_ledger_are_computed_again(
    ledger: Ledger, tmp_path: Path, changed: dict[str, object], why: str
) -> None:
    ledger.logs.append(OWN.vkey, [claim(0, 0), claim(1, 1), claim(1, 2, hold=False)])
    copies = held_copies(ledger, tmp_path)
    await copies.open()
    with ledger._database.writing("test") as connection:
        connection.execute(update(schema.kept_positions).values(changed))
        connection.execute(delete(schema.replicas).where(schema.replicas.c.artifact == artifact(0)))
    assert why in ledger.reader_positions.load(HOLDS, copies._basis()).why
    again = held_copies(ledger, tmp_path)
    await again.open()
    assert again.standing == 1
    assert await again.withdrawn(EVERY) == {artifact(1)}
    assert ledger.reader_positions.load(HOLDS, again._basis()).why == ""


async def test_withdrawn_copies_are_read_from_the_ledger_until_the_operator_undoes_it(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.logs.append(OWN.vkey, [claim(0, 0), claim(1, 1), claim(1, 2, hold=False)])
    copies = held_copies(ledger, tmp_path)
    await copies.open()
    assert await copies.withdrawn(EVERY) == {artifact(1)}
    copies.begin_withdrawal(artifact(0))
    assert await copies.withdrawn(EVERY) == {artifact(0), artifact(1)}
    copies.end_withdrawal(artifact(0))
    copies.take_back(artifact(1))
    assert await copies.withdrawn(EVERY) == set()
    ledger.logs.append(OWN.vkey, [claim(1, 3), claim(1, 4, hold=False)])
    await copies.read_new()
    assert await copies.withdrawn(EVERY) == {artifact(1)}, "it was held and withdrawn again since"


async def test_each_withdrawal_is_reported_once_unless_the_artifact_is_held_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    copies = held_copies(ledger, tmp_path)
    ledger.logs.append(OWN.vkey, [claim(number, 0) for number in range(3)])
    await copies.open()
    assert copies.take_withdrawn() == []
    ledger.logs.append(OWN.vkey, [claim(0, 1, hold=False), claim(1, 1, hold=False), claim(1, 2)])
    await copies.read_new()
    ledger.logs.append(OWN.vkey, [claim(2, 1)])
    await copies.read_new()
    assert copies.take_withdrawn() == [artifact(0)]
    assert copies.take_withdrawn() == []


async def test_a_round_finds_a_row_that_is_missing_and_one_that_is_older_than_its_hold(
    ledger: Ledger, tmp_path: Path
) -> None:
    row = schema.replicas.c
    ledger.logs.append(OWN.vkey, [claim(0, 0), claim(1, 1), claim(1, 2, hold=False), claim(1, 3)])
    copies = held_copies(ledger, tmp_path)
    await copies.open()
    for tampered in (
        delete(schema.replicas).where(row.artifact == artifact(0)),
        update(schema.replicas).where(row.artifact == artifact(1)).values(held=1),
    ):
        with ledger._database.writing("test") as connection:
            connection.execute(tampered)
        copies.check_all()
        await copies.check_page()
        assert copies.standing == 2
        assert state(ledger) == {artifact(0): (True, 0), artifact(1): (True, 3)}


async def test_a_start_checks_no_file_and_a_round_checks_each(ledger: Ledger, tmp_path: Path) -> None:
    ledger.logs.append(OWN.vkey, [claim(number, 0) for number in range(200)])
    copies = held_copies(ledger, tmp_path)
    await copies.open()
    assert (copies.standing, copies.complete) == (200, 200)
    first, more = await copies.check_page()
    second, more_still = await copies.check_page()
    assert (len(first) + len(second), more, more_still) == (200, True, False), "no file is in the store"
    assert await copies.check_page() == ([], False), "the next round is due in a day"


async def test_a_store_that_does_not_answer_has_lost_nothing_and_is_asked_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.logs.append(OWN.vkey, [claim(number, 0) for number in range(200)])
    copies = held_copies(ledger, tmp_path)
    await copies.open()

    def silent(self: FolderStore, digest: Digest) -> bool:
        raise Unavailable("the blob store did not answer", code="DISK")

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "has", silent)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await copies.check_page()
    first, _ = await copies.check_page()
    second, more = await copies.check_page()
    assert (len(first) + len(second), more) == (200, False)


def replicas(ledger: Ledger, folder: Path, mirror: object = "all") -> Replicas:
    settings, store, pools = Replication(mirror=mirror), FolderStore(folder / "blobs"), Pools()  # type: ignore[arg-type]
    ages = StatementAges(AsyncLedger(ledger), lambda: 0.0)
    return Replicas(
        node_context(ledger=AsyncLedger(ledger), store=store, pools=pools, membership=MEMBERSHIP, metrics=Metrics()),
        cast(OwnLog, SimpleNamespace(signer=None)),
        cast(FileFetcher, None),
        WantedArtifacts(settings, store, pools, ages, {}),
        made_charges(ledger, store, pools),
        CopyPauses(settings, store, pools, lambda: 0.0),
        on_lost=lambda: None,
    )


async def restarted(ledger: Ledger, folder: Path, mirror: object = "all") -> Replicas:
    """As a start of a node, without its loops, until all publications are read."""
    made = replicas(ledger, folder, mirror)
    await made.load()
    await made.incomplete_copies()
    return made


def publish(ledger: Ledger, count: int) -> None:
    ledger.logs.create(OTHER.origin, OTHER.vkey)
    lines = [PUBLISHER.publish(f"a/b{number}@v1", Release(b"%d\n" % number)) for number in range(count)]
    ledger.logs.advance(OTHER.origin, 0, lines, OTHER.note_over(lines))
    while (batch := ledger.intake.next_batch(OTHER.vkey)).lines:
        facts = (statement_facts(index, parse_entry(line)) for index, line in enumerate(batch.lines, batch.start))
        ledger.intake.commit(batch, IntakeResult(OTHER.vkey, tuple(item for item in facts if item is not None)))


async def test_a_restart_queues_lacking_copies_and_reads_no_other_publication(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ledger, 5)
    first = await restarted(ledger, tmp_path)
    assert first.lacking == 5
    done = first._copies.next(0.0)
    assert done is not None
    first._copies.done(done, 0.0)
    ledger.replicas.completed(done.copy.artifact)
    read = 0
    parse = wanted_module._parse_publication

    def counted(entry: object) -> object:
        nonlocal read
        read += 1
        return parse(entry)  # type: ignore[arg-type]

    monkeypatch.setattr(wanted_module, "_parse_publication", counted)
    again = await restarted(ledger, tmp_path)
    assert (again.lacking, read) == (4, 4)
    assert again._copies.next(0.0) is not None


async def test_who_asks_before_the_start_is_over_gets_what_is_lacking_after_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ledger, 5)
    await restarted(ledger, tmp_path)
    made, loaded = replicas(ledger, tmp_path), asyncio.Event()
    queue_kept = made._publications._requeue_kept

    async def paused() -> bool:
        behind = await queue_kept()
        await loaded.wait()
        return behind

    monkeypatch.setattr(made._publications, "_requeue_kept", paused)
    asked = asyncio.create_task(made.incomplete_copies())
    await asyncio.sleep(0)
    await made.load()
    loaded.set()
    assert len(await asked) == 5


async def test_other_settings_are_applied_to_all_publications(ledger: Ledger, tmp_path: Path) -> None:
    publish(ledger, 5)
    first = await restarted(ledger, tmp_path, ("a/b1",))
    assert (first.lacking, first.not_listed) == (1, 4)
    same = await restarted(ledger, tmp_path, ("a/b1",))
    assert (same.lacking, same.not_listed) == (1, 4)
    other = await restarted(ledger, tmp_path)
    assert (other.lacking, other.not_listed) == (5, 0)


async def test_copies_beyond_the_queue_are_read_again_after_a_restart(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ledger, 9)
    monkeypatch.setattr(replicas_module, "CopyQueue", lambda: CopyQueue(3))
    made = await restarted(ledger, tmp_path)
    assert (made.lacking, made.left_out) == (3, True)
    monkeypatch.undo()
    again = await restarted(ledger, tmp_path)
    assert again.lacking == 9


async def test_an_object_lost_while_its_artifact_is_completed_is_looked_for_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(ledger, 1)
    made = await restarted(ledger, tmp_path)
    copied = list[Digest]()

    async def copy(wanted: Copy) -> None:
        copied.append(wanted.artifact)
        if len(copied) == 1:
            made.check_again()

    monkeypatch.setattr(made._copier, "_copy", copy)
    job = made._copies.next(0.0)
    assert job is not None
    await made._run_job(job)
    assert len(copied) == 2, "the round that the loss began left this artifact out"
    assert made.lacking == 0
