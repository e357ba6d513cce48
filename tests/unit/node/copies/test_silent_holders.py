"""Nodes that claim a copy and do not answer audits, and auditors that log failures: what they cost another node."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.copies import auditor as auditor_module
from comity.node.copies.auditor import MAX_CHECKED, Auditor, StatementReader
from comity.node.copies.index import ResultFact
from comity.node.copies.pins import PinRepair
from comity.rules.audit import AuditChallenge
from comity.rules.copy_counts import CLAIMED, AuditResult
from comity.trust.encoding import sha256
from comity.trust.errors import Unavailable
from comity.wire.audit import AuditOrder

CHALLENGE = AuditChallenge(
    sha256(b"auditor"), sha256(b"prover"), sha256(b"artifact"), sha256(b"pieces"), sha256(b"nonce"), (0,)
)
ORDER = AuditOrder(sha256(b"federation"), CHALLENGE)


async def test_a_node_with_many_addresses_takes_no_more_time_than_one_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor_module, "ANSWER_SECONDS", 0.05)
    asked = list[float]()

    def address() -> Any:
        def with_timeout(seconds: float) -> Any:
            asked.append(seconds)

            async def audit(order: object) -> None:
                await asyncio.sleep(seconds)
                raise Unavailable("the node does not answer", code="DEADLINE")

            return SimpleNamespace(audits=SimpleNamespace(audit=audit))

        return SimpleNamespace(with_timeout=with_timeout)

    link = SimpleNamespace(authenticated=lambda: [address() for _ in range(16)])
    auditor = SimpleNamespace(_links={"key": link}, _patience={})
    with pytest.raises(Unavailable):
        await Auditor._ask(cast(Auditor, auditor), ORDER, cast(Any, SimpleNamespace(key="key", name="silent")))
    assert sum(asked) < 0.1


@pytest.mark.parametrize("answers_of_three", [0, 1, 2])
async def test_a_node_that_lets_audits_pass_costs_the_others_seconds_in_the_end(answers_of_three: int) -> None:
    """In an earlier version each audit of its copies took two minutes, in which no other copy was audited."""
    took, turn = list[float](), itertools.cycle(number < answers_of_three for number in range(3))

    def with_timeout(seconds: float) -> Any:
        async def audit(order: object) -> str:
            if next(turn):
                return "reply"
            took.append(seconds)
            raise Unavailable("the node does not answer", code="DEADLINE")

        return SimpleNamespace(audits=SimpleNamespace(audit=audit))

    link = SimpleNamespace(authenticated=lambda: [SimpleNamespace(with_timeout=with_timeout)])
    auditor = cast(Auditor, SimpleNamespace(_links={"key": link}, _patience={}))
    for _ in range(60):
        with suppress(Unavailable):
            await Auditor._ask(auditor, ORDER, cast(Any, SimpleNamespace(key="key", name="silent")))
    assert took[0] == pytest.approx(auditor_module.ANSWER_SECONDS, abs=1)
    if answers_of_three < 2:
        assert took[-1] <= 2 * auditor_module.LEAST_ANSWER_SECONDS


async def test_the_claimed_copies_of_a_pinned_artifact_are_audited_together() -> None:
    """A holder that does not answer must not delay the others, nor the next pins."""
    others = asyncio.Event()

    async def audit(row: Any, peer: Any) -> object:
        if row.log == "silent":
            await others.wait()
            return None
        others.set()
        return object()

    repair = SimpleNamespace(_clock=lambda: 1_000.0, _tried={}, _audits_left=16, _auditor=SimpleNamespace(audit=audit))
    claimed = SimpleNamespace(state=CLAIMED)
    copies = [(claimed, SimpleNamespace(artifact=sha256(b"a"), log=log), object()) for log in ("silent", "other")]
    async with asyncio.timeout(10):
        assert await PinRepair._audit_claimed(cast(PinRepair, repair), cast(Any, copies))
    assert repair._audits_left == 14


def test_the_failures_of_one_auditor_cost_a_bounded_number_of_reads_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[object]()

    def is_proven(reader: StatementReader, failure: object) -> bool:
        read.append(failure)
        return True

    monkeypatch.setattr(StatementReader, "_is_proven", is_proven)
    reader = StatementReader(*cast(Any, (None, None, None, None)))

    def failed(auditor: bytes, number: int) -> Any:
        result = AuditResult(sha256(auditor), 20_000, "digest", 1)
        return ResultFact(sha256(b"artifact %d" % number), "log", result), object()

    logged = [failed(b"mallory", number) for number in range(256)]
    checked = reader._check_failures([*logged, failed(b"honest", 0)])
    assert len(read) == MAX_CHECKED + 1
    assert len(checked) == 257
    assert cast(ResultFact, checked[-1]).result.proven and not cast(ResultFact, checked[-2]).result.proven
