"""Audits between running nodes: copies are tested, losses are detected and logged, and strangers get nothing."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.rules.audit import DAY, AuditChallenge, AuditFailure, AuditSummary, is_evidence, parse_audited
from comity.rules.copy_counts import CLAIMED, FAILED, PASSED, TESTED, WITHDRAWN, AssessedCopy
from comity.trust.copies import HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, NotFound, OutOfSpace, PolicyNotMet, Refused
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES
from comity.wire.addresses import Address
from comity.wire.audit import AuditOrder, CheckedCopy, HoldDecision, HoldOrder
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_client.client import Client
from comity_client.home import Home
from support.federation import Founded, NodeHome, found, serving, until
from support.publisher import Publisher, Release, model, release, send

pytestmark = pytest.mark.slow


class MovedClock:
    """The system's clock, moved by `days`."""

    def __init__(self) -> None:
        self.days = 0

    def __call__(self) -> float:
        return time.time() + self.days * DAY


def federation(folder: Path, *, budget: int = 0) -> tuple[Founded, Release]:
    founded = found(folder, 3)
    for home in founded.homes:
        home.set("audits", bytes_per_day=budget)
    what = release(Publisher.generate(), model(folder / "model", weights=9_000_000), "tests/model@v1")
    return founded, what


async def states(asked: NodeHome, artifact: Digest) -> dict[str, AssessedCopy]:
    """The copies by the name of the node, as one node reports them."""
    async with asked.client() as client:
        page = await client.audits.copies(artifact)
    return {page.names[copy.copy.node]: copy for listed in page.artifacts for copy in listed.copies}


async def all_hold(founded: Founded, artifact: Digest) -> None:
    async def seen_by_all() -> bool:
        return all([len(await states(home, artifact)) == len(founded.homes) for home in founded.homes])

    await until(seen_by_all, what="every node to see every copy")


async def checked(home: NodeHome, artifact: Digest) -> dict[str, CheckedCopy]:
    async with home.operator() as operator:
        return {result.node: result async for result in operator.audits.check(artifact)}


def blob(home: NodeHome, digest: Digest) -> Path:
    return FolderStore(home.config().storage.blobs).path(digest)


def weights(what: Release) -> Digest:
    return next(digest for digest, path in what.blobs.items() if path.name == "weights.bin")


async def audits_logged(asked: NodeHome, artifact: Digest) -> list[AuditFailure | AuditSummary]:
    async with asked.client() as client:
        return [parse_audited(parse_entry(located.line).statement) for located in await client.audits.logged(artifact)]


async def test_copies_are_tested_by_others_and_every_node_shows_by_which(tmp_path: Path) -> None:
    founded, what = federation(tmp_path)
    first, second, third = founded.homes
    clock = MovedClock()
    async with serving(*founded.homes, clock=clock), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        assert {copy.state for copy in (await states(first, what.artifact)).values()} == {CLAIMED}
        results = await checked(first, what.artifact)
        assert {name: result.outcome for name, result in results.items()} == {second.name: PASSED, third.name: PASSED}
        seen = await states(first, what.artifact)
        assert {name: copy.state for name, copy in seen.items()} == {
            first.name: CLAIMED,
            second.name: TESTED,
            third.name: TESTED,
        }
        assert (await states(third, what.artifact))[second.name].state == CLAIMED  # no other node knows yet
        user = Client(Home(tmp_path / "user"))
        await asyncio.to_thread(user.pin, founded.federation.encode())
        found = await asyncio.to_thread(user.whereis, f"sha256:{what.artifact}")
        audits = {
            copy.node: [(each.auditor, each.result.outcome, each.logged) for each in copy.audits] for copy in found
        }
        of_first = [(first.name, PASSED, False)]
        assert audits == {first.name: [], second.name: of_first, third.name: of_first}
        clock.days = 1  # when the day is over, the auditor logs what passed

        async def told() -> bool:
            copies = await states(third, what.artifact)
            return copies[second.name].state == TESTED

        await until(told, what="the summary of the day to reach the third node")
        (result,) = (await states(third, what.artifact))[second.name].results
        assert (result.auditor, result.outcome) == (first.record.member, PASSED)
        (summary,) = await audits_logged(third, what.artifact)
        assert isinstance(summary, AuditSummary)
        assert {row.prover for row in summary.rows} == {second.record.node.id, third.record.node.id}
        clock.days = 40
        assert (await states(third, what.artifact))[second.name].state == "stale"


async def test_the_scheduler_tests_every_copy_of_others_within_its_budget(tmp_path: Path) -> None:
    founded, what = federation(tmp_path, budget=10**12)
    async with serving(*founded.homes), founded.homes[0].client() as client:
        await send(client, what)

        async def all_tested() -> bool:
            for home in founded.homes:
                seen = await states(home, what.artifact)
                others = [copy.state for name, copy in seen.items() if name != home.name]
                if others != [TESTED, TESTED]:
                    return False
            return True

        await until(all_tested, what="every node to have tested the copies of the others")


async def test_a_node_that_overwrote_its_copy_says_that_it_has_none_and_repairs_it(tmp_path: Path) -> None:
    """An honest node finds the damage when it reads the piece: it signs no wrong answer, and fetches the file again."""
    founded, what = federation(tmp_path)
    first, second, _ = founded.homes
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        path = blob(second, weights(what))
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(os.urandom(9_000_000))
        results = await checked(first, what.artifact)
        assert results[second.name].outcome == "not-held"
        failure = next(item for item in await audits_logged(first, what.artifact) if isinstance(item, AuditFailure))
        assert (failure.prover, failure.reason, failure.answer) == (second.record.node.id, "not-held", None)
        assert not is_evidence(failure, second.record)

        async def repaired() -> bool:
            return (await checked(first, what.artifact))[second.name].outcome == PASSED

        await until(repaired, what="the second node to repair its copy")


async def test_a_missing_answer_is_no_failure(tmp_path: Path) -> None:
    founded, what = federation(tmp_path)
    first, second, third = founded.homes
    async with serving(first, second), first.client() as client:
        async with serving(third):
            await send(client, what)
            await all_hold(founded, what.artifact)
        results = await checked(first, what.artifact)
        assert (results[second.name].outcome, results[third.name].outcome) == (PASSED, "missed")
        assert (await states(first, what.artifact))[third.name].state == CLAIMED


async def test_an_auditor_with_a_damaged_copy_accuses_no_node(tmp_path: Path) -> None:
    founded, what = federation(tmp_path)
    first, second, _ = founded.homes
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        path = blob(first, weights(what))
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(os.urandom(9_000_000))
        assert await checked(first, what.artifact) == {}
        assert await audits_logged(first, what.artifact) == []
        assert (await states(first, what.artifact))[second.name].state == CLAIMED


async def test_strangers_and_greedy_members_are_refused(tmp_path: Path) -> None:
    founded, what = federation(tmp_path)
    first, second, third = founded.homes
    second.set("audits", answer_bytes_per_hour=20_000_000)
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        index = what.ingested.index.digest
        parties = first.record.node.id, second.record.node.id
        challenge = AuditChallenge(*parties, what.artifact, index, sha256(b"nonce"), (0, 1, 2))
        order = AuditOrder(founded.federation.id, challenge)
        async with second.client() as stranger:
            with pytest.raises(Refused) as refused:
                await stranger.audits.audit(order)
            assert refused.value.code == "AUDITORS-ONLY"
            with pytest.raises(Refused):
                _ = [result async for result in stranger.audits.check(what.artifact)]
        async with as_node(first, second) as greedy:
            with pytest.raises(NotFound) as unknown:
                await greedy.audits.audit(replace(order, challenge=replace(challenge, artifact=sha256(b"other"))))
            assert unknown.value.code == "NOT-HELD"
            relayed = replace(order, challenge=replace(challenge, auditor=third.record.node.id))
            for wrong in (relayed, replace(order, federation=sha256(b"another federation"))):
                with pytest.raises(Refused) as not_answered:
                    await greedy.audits.audit(wrong)
                assert not_answered.value.code == "AUDIT-PARTIES"
            await greedy.audits.audit(order)
            with pytest.raises(OutOfSpace) as budget:
                for _ in range(3):
                    await greedy.audits.audit(order)
            assert budget.value.code == "AUDIT-BUDGET"
        assert (await checked(third, what.artifact))[second.name].outcome == PASSED  # its budget is its own


def as_node(caller: NodeHome, called: NodeHome) -> NodeClient:
    """A client with the certificate of a node, as its member could make one."""
    from comity.node.keys import NodeKeys

    keys = NodeKeys.load(caller.directory / "keys", caller.record)
    return NodeClient.connect(Address.parse(called.card.mutual[0]), CertificatePin.of(called.record.tls), keys.tls)


async def test_a_signed_wrong_answer_proves_the_fault_of_its_signer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comity.node.copies import responder
    from comity.rules.audit import ReadPiece, read_pieces

    def invent(*given: object) -> list[ReadPiece]:
        read = read_pieces(*given)  # type: ignore[arg-type]  # as it was called
        return [ReadPiece(piece.number, piece.record, piece.path, sha256(b"invented")) for piece in read]

    founded, what = federation(tmp_path)
    first, second, third = founded.homes
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        monkeypatch.setattr(responder, "read_pieces", invent)
        assert (await checked(first, what.artifact))[second.name].outcome == "digest"

        async def convicted() -> bool:
            return (await states(third, what.artifact))[second.name].state == FAILED

        await until(convicted, what="the third node to check the signed answer with its own copy")
        (result,) = (await states(third, what.artifact))[second.name].results
        assert result.proven


def without_start_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of this test may withdraw right after their start."""
    from comity.node.copies import leases

    monkeypatch.setattr(leases, "MAX_LEASE", 0)


async def decided(home: NodeHome, order: HoldOrder) -> HoldDecision:
    async with home.operator() as operator:
        return await operator.audits.decide(order)


async def serves(home: NodeHome, digest: Digest) -> bool:
    async with home.client() as client:
        (stat,) = await client.stat([digest])
        return stat.have


async def test_a_copy_is_removed_only_if_enough_others_prove_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_start_guard(monkeypatch)
    founded = found(tmp_path, 3, policy=(2, 2))
    for home in founded.homes:
        home.set("audits", bytes_per_day=0)
    publisher = Publisher.generate()
    what = release(publisher, model(tmp_path / "model", weights=9_000_000), "tests/model@v1")
    first, second, third = founded.homes
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        with pytest.raises(Refused):  # no other caller can have a node remove anything
            await client.audits.decide(HoldOrder(what.artifact))
        trial = await decided(second, HoldOrder(what.artifact, trial=True))
        assert set(trial.unproven) == {first.name, third.name}
        assert trial.bytes == 9_000_000 + len('{"seed": 1}\n')
        assert await serves(second, weights(what))
        gone = await decided(second, HoldOrder(what.artifact, "space"))
        assert set(gone.proven) == {first.name, third.name}
        assert gone.bytes == trial.bytes
        assert not await serves(second, weights(what))
        assert not (second.config().storage.blobs / "withheld" / what.artifact).exists()

        async def seen() -> bool:
            return (await states(third, what.artifact))[second.name].state == WITHDRAWN

        await until(seen, what="the third node to see the withdrawal")
        for home in (first, third):  # the next one would leave one copy
            with pytest.raises(PolicyNotMet) as short:
                await decided(home, HoldOrder(what.artifact, "space"))
            assert short.value.code == "COPIES-SHORT"
            assert await serves(home, weights(what))
        await decided(second, HoldOrder(what.artifact, again=True))

        async def back() -> bool:
            return await serves(second, weights(what)) and (await states(third, what.artifact))[second.name].counts

        await until(back, what="the second node to copy it again and to say so")


async def test_two_nodes_that_remove_at_once_cannot_both_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_start_guard(monkeypatch)
    founded = found(tmp_path, 3, policy=(2, 2))
    for home in founded.homes:
        home.set("audits", bytes_per_day=0)
    what = release(Publisher.generate(), model(tmp_path / "model", weights=9_000_000), "tests/model@v1")
    first, second, third = founded.homes
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        orders = [decided(home, HoldOrder(what.artifact, "space")) for home in (first, second, third)]
        outcomes = await asyncio.gather(*orders, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert len(failed) >= 2
        assert all(isinstance(outcome, PolicyNotMet | Conflict) for outcome in failed)
        assert sum([await serves(home, weights(what)) for home in founded.homes]) >= 2


async def test_a_legal_order_stops_serving_immediately_and_is_logged(tmp_path: Path) -> None:
    founded, what = federation(tmp_path)
    first, second, _ = founded.homes
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)
        await all_hold(founded, what.artifact)
        order = HoldOrder(what.artifact, "legal-order", "order 12 of a court", keep=True, force=True)
        decision = await decided(second, order)
        assert not await serves(second, weights(what))
        kept = second.config().storage.blobs / "withheld" / what.artifact / weights(what)
        assert sha256(kept.read_bytes()) == weights(what)
        logged = HoldWithdrawn.parse(parse_entry(decision.line).statement)
        assert (logged.reason, logged.basis, logged.kept, logged.forced) == (
            "legal-order",
            "order 12 of a court",
            True,
            True,
        )
    async with serving(*founded.homes):
        assert kept.exists()
        assert not await serves(second, weights(what))  # a restart brings nothing back


async def test_the_last_copy_needs_its_name_typed(tmp_path: Path) -> None:
    founded = found(tmp_path, 2, policy=(1, 1))
    first, second = founded.homes
    second.set("replication", mirror="none")
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1_000_000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client:
        await send(client, what)

        async def held() -> bool:
            return len(await states(first, what.artifact)) == 1

        await until(held, what="the first node to hold it")
        for typed in ("", "tests/model@v2"):
            with pytest.raises(PolicyNotMet) as last:
                await decided(first, HoldOrder(what.artifact, "space", force=True, typed=typed))
            assert last.value.code == "LAST-COPY"
        assert await serves(first, weights(what))
        await decided(first, HoldOrder(what.artifact, "space", force=True, typed="tests/model@v1"))
        assert not await serves(first, weights(what))


async def test_copies_that_one_line_claims_are_audited_and_withdrawn_one_by_one(tmp_path: Path) -> None:
    founded, publisher = found(tmp_path, 2), Publisher.generate()
    first, second = founded.homes
    made = [model(tmp_path / f"model-{number}", weights=1000, seed=number) for number in range(5)]
    several = [release(publisher, folder, f"tests/model-{at}@v1") for at, folder in enumerate(made)]
    async with serving(*founded.homes), first.client() as client:
        for what in several:
            await send(client, what)
        for what in several:
            await all_hold(founded, what.artifact)
        lines = {located.line for what in several for located in await client.claims(what.artifact)}
        claims = [said for said in (parse_entry(line).statement for line in lines) if said.predicate in HOLD_PREDICATES]
        assert len(claims) < 2 * len(several)
        together = max(claims, key=lambda said: len(said.subjects))
        one, other = (subject.digest for subject in together.subjects[:2])
        holder = second if together.by == second.record.node else first
        auditor = first if holder is second else second
        assert {(await checked(auditor, artifact))[holder.name].outcome for artifact in (one, other)} == {PASSED}
        await decided(holder, HoldOrder(one, "space", force=True))
        await until(lambda: _withdrawn(auditor, one, holder.name), what="the withdrawal to be seen")
        assert not await _withdrawn(auditor, other, holder.name)
        assert (await checked(auditor, other))[holder.name].outcome == PASSED


async def _withdrawn(asked: NodeHome, artifact: Digest, node: str) -> bool:
    return (await states(asked, artifact))[node].state == WITHDRAWN
