"""What a node does with submitted statements, besides logging them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.ledger.quotas import ALL, AUTHOR, OutsideAmount, OutsideQuota, OutsideUsageTable
from comity.node.admission import Admission, OutsideQuotas
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.operator_acts import OperatorActs
from comity.node.own_log import OwnLog
from comity.node.publishing import Submissions
from comity.node.replication.setup import CHARTER, ReplicationTasks
from comity.node.settings import Limits
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads
from comity.trust.encoding import sha256
from comity.trust.keys import HybridSigner
from comity.trust.statement import Author, Entry, Statement, Subject, sign_statement
from comity.trust.statement_kinds import DRAFT
from comity.wire.access import Caller
from support.context import node_context
from support.logs import LogKeys

OWN = LogKeys.generate("own.example/log")
SIGNER = HybridSigner.generate(("ed25519",))


def entry(predicate: str, number: int = 0) -> Entry:
    subject = Subject("", sha256(b"%d" % number))
    return sign_statement(Statement(predicate, (subject,), Author("identity", sha256(b"member")), {}, ()), SIGNER)


async def test_logged_entries_are_announced_once(tmp_path: Path) -> None:
    told, caller = list[Sequence[Entry]](), cast(Caller, SimpleNamespace(name="caller", block=""))

    @asynccontextmanager
    async def admitted(caller: Caller, entries: Sequence[Entry]) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(logging=nullcontext)

    with closing(Ledger.open(tmp_path, lambda: 1_000)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)

        async def append_all(lines: Sequence[bytes]) -> list[int]:
            return ledger.logs.append(OWN.vkey, lines)

        submissions = Submissions(
            node_context(
                ledger=AsyncLedger(ledger),
                store=FolderStore(tmp_path / "blobs"),
                pools=Pools(),
                membership=SimpleNamespace(
                    own_node=SimpleNamespace(log=OWN.vkey, record=SimpleNamespace(origin=OWN.origin))
                ),
            ),
            cast(Uploads, None),
            cast(OwnLog, SimpleNamespace(append_all=append_all)),
            cast(Admission, SimpleNamespace(admitted=admitted)),
            1 << 20,
            cast(OperatorActs, None),
            told.append,
        )
        draft = entry(DRAFT)
        for _ in range(2):
            await submissions.submit(caller, [draft.line], [])
    assert [[item.line for item in entries] for entries in told] == [[draft.line]]


@pytest.mark.parametrize(("predicate", "wakes"), [(DRAFT, True), ("inception", True), ("vouched", False)])
async def test_a_draft_of_an_own_member_wakes_the_follower_of_the_charter(predicate: str, wakes: bool) -> None:
    supervisor, steps, stepped = Supervisor(Metrics()), list[int](), asyncio.Event()

    async def step() -> None:
        steps.append(len(steps))
        stepped.set()

    supervisor.loop(CHARTER, step, LoopTiming(3_600.0, 60.0))
    await stepped.wait()
    stepped.clear()
    tasks = cast(ReplicationTasks, SimpleNamespace(_supervisor=supervisor))
    ReplicationTasks.submitted(tasks, [entry(predicate)])
    if wakes:
        await stepped.wait()
    assert len(steps) == 1 + wakes
    await supervisor.stop()


async def test_a_submission_that_its_caller_gives_up_uses_no_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a stranger would use up what all outsiders together may add to the log, and add nothing to it."""
    charging, go_on, charged, charge = Event(), Event(), Event(), OutsideUsageTable.charge

    def slow(
        table: OutsideUsageTable, log: str, lines: Sequence[bytes], quotas: Sequence[OutsideQuota]
    ) -> OutsideAmount:
        charging.set()
        go_on.wait()
        try:
            return charge(table, log, lines, quotas)
        finally:
            charged.set()

    monkeypatch.setattr(OutsideUsageTable, "charge", slow)
    seat = SimpleNamespace(
        log=OWN.vkey, inception=SimpleNamespace(id=sha256(b"own")), record=SimpleNamespace(node=None)
    )
    membership = SimpleNamespace(own_node=seat, member=lambda identity: None, node=lambda author: None)
    caller = cast(Caller, SimpleNamespace(name="stranger", operator=False))
    with closing(Ledger.open(tmp_path, lambda: 1_000)) as ledger:
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        quotas = OutsideQuotas(AsyncLedger(ledger), cast(Membership, membership), Limits(), "any")

        async def submit() -> None:
            async with quotas.charged(caller, [entry("inception")], ()):
                raise AssertionError("it was given up before")

        submitting = asyncio.create_task(submit())
        await asyncio.to_thread(charging.wait)
        submitting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(submitting, return_exceptions=True)
        await asyncio.to_thread(charged.wait)
        async with asyncio.timeout(30):
            while ledger.outside_usage.used(ALL) != OutsideAmount():
                await asyncio.sleep(0.01)
        assert ledger.outside_usage.used(AUTHOR, sha256(b"member")) == OutsideAmount()
