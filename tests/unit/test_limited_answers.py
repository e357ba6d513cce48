"""Statements that a limit leaves out of an answer are logged and counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity, Release
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine, ProvenTables
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services import artifact
from comity.node.services.artifact import ArtifactService
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.node_records import sign_node_record
from comity.trust.statement import parse_entry
from comity.wire import limits
from structlog.testing import capture_logs
from support.case import nodes
from support.logs import LogKeys

LOG, WHO, RELEASE = LogKeys.generate("far.example/log"), Identity.made("somebody"), Release(b"one\n")
ARTIFACT = parse_entry(WHO.publish("a/b@v1", RELEASE)).statement.subject


class Bench:
    """A node with a log of `count` publications of one artifact under one name."""

    def __init__(self, folder: Path, count: int) -> None:
        self.ledger, self.metrics = Ledger.open(folder, lambda: 1_000), Metrics()
        lines = [WHO.publish(f"a/b@v{number}", RELEASE) for number in range(count)]
        self.ledger.logs.create(LOG.origin, LOG.vkey)
        self.ledger.logs.advance(LOG.origin, 0, lines, LOG.note_over(lines))
        facts = [statement_facts(index, parse_entry(line)) for index, line in enumerate(lines)]
        batch = self.ledger.intake.next_batch(LOG.vkey)
        self.ledger.intake.commit(batch, IntakeResult(LOG.vkey, tuple(item for item in facts if item is not None)))
        seat = SimpleNamespace(record_line=WHO.inception)
        membership = cast(Membership, SimpleNamespace(node_ids=(), known=(), peers=(), seat=seat))
        self.service = ArtifactService(AsyncLedger(self.ledger), membership, self.metrics)

    async def asked(self, call: str) -> tuple[int, float]:
        """Lines of the answer, and how often an answer of this call was limited."""
        answer = self.service.resolve("a/b", None, None) if call == "Resolve" else self.service.claims(ARTIFACT)
        lines = [located async for located in answer]
        return len(lines), self.metrics.answers_limited.labels(call)._value.get()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, 20)
    yield made
    made.ledger.close()


@pytest.mark.parametrize("call", ["Resolve", "GetClaims"])
async def test_a_complete_answer_is_not_counted(bench: Bench, call: str) -> None:
    assert await bench.asked(call) == (20, 0)


async def test_a_namespace_is_resolved(bench: Bench) -> None:
    """An earlier version refused it: it asked for more names than the ledger gives in one query."""
    assert len([located async for located in bench.service.resolve("a/", None, None)]) == 20


@pytest.mark.parametrize("call", ["Resolve", "GetClaims"])
async def test_an_answer_cut_by_a_limit_is_logged_and_counted(
    bench: Bench, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESOLVED", 20)
    monkeypatch.setattr(limits, "CLAIMS", 20)
    with capture_logs() as events:
        assert await bench.asked(call) == (10, 1)
    assert [event["call"] for event in events] == [call]


class Members:
    """A node that knows two members and their nodes; `read` are the members whose lines were read for an answer."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.second, *_ = nodes()
        self.ledger, self.read = Ledger.open(folder, lambda: 1_000), list[Digest]()
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        peers = [SimpleNamespace(line=each.entry.line) for each in (self.first, self.second)]
        known, seat = (self.first.seat.id, self.second.seat.id), SimpleNamespace(record_line=self.first.entry.line)
        membership = cast(Membership, SimpleNamespace(node_ids=(), known=known, peers=peers, seat=seat))
        self.service = ArtifactService(AsyncLedger(self.ledger), membership, Metrics())
        keys_of = ProvenTables.keys_of

        def counted(tables: ProvenTables, author: Digest) -> list[ProvenLine]:
            self.read.append(author)
            return keys_of(tables, author)

        monkeypatch.setattr(ProvenTables, "keys_of", counted)
        self.say(*(line for each in (self.first, self.second) for line in (each.seat.entry.line, each.entry.line)))
        self.say(self.second.seat.entry.line, WHO.publish("a/b@v1", RELEASE))

    def say(self, *lines: bytes) -> None:
        self.ledger.logs.append(LOG.vkey, lines)

    async def lines(self) -> set[bytes]:
        """The lines of an answer."""
        self.read.clear()
        found = {located.line async for located in self.service.claims(ARTIFACT)}
        self.read = [author for author in self.read if author != WHO.id]
        return found


async def test_key_statements_of_others_have_no_lines_of_members_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may log inceptions: each had the records and keys of all members read again for the next answer."""
    scene = Members(tmp_path, monkeypatch)
    first, second = scene.first, scene.second
    expected = {first.entry.line, second.entry.line, first.seat.entry.line, second.seat.entry.line}
    assert expected <= await scene.lines()
    assert scene.read == [first.seat.id, second.seat.id]
    scene.say(Identity.made("somebody else").inception)
    assert expected <= await scene.lines()
    assert scene.read == []
    renewed = sign_node_record(replace(first.record, name="renewed"), [first.seat.signer], first.bound).line
    scene.say(renewed)
    assert {renewed, *expected} <= await scene.lines()
    assert scene.read == [first.seat.id]
    monkeypatch.setattr(artifact, "MAX_NEW", 3)
    scene.say(*(Identity.made(f"somebody {number}").inception for number in range(3)))
    assert {renewed, *expected} <= await scene.lines()
    assert scene.read == [first.seat.id, second.seat.id]
    scene.ledger.close()
