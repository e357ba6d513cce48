"""What a limit leaves out of an answer is logged and counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity, Release
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.artifact import ArtifactService
from comity.node.threads import AsyncLedger
from comity.trust.statement import parse_entry
from comity.wire import limits
from structlog.testing import capture_logs
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
    """It was refused: more names were asked for than the ledger gives at once."""
    assert len([located async for located in bench.service.resolve("a/", None, None)]) == 20


@pytest.mark.parametrize("call", ["Resolve", "GetClaims"])
async def test_an_answer_from_which_a_limit_left_something_out_is_logged_and_counted(
    bench: Bench, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESOLVED", 20)
    monkeypatch.setattr(limits, "CLAIMS", 20)
    with capture_logs() as events:
        assert await bench.asked(call) == (10, 1)
    assert [event["call"] for event in events] == [call]
