"""The audit service: pages of copies within their bounds, and which decisions of an operator are recorded, and how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.copies.index import CopyRow
from comity.node.services import audit as module
from comity.node.services.audit import AuditServicer
from comity.rules.copy_counts import PASSED, AssessedCopy, AuditResult
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused
from comity.trust.statement import SideObject
from comity.wire import limits
from comity.wire.audit import HoldDecision, HoldOrder

ARTIFACTS = sorted(sha256(b"artifact %d" % number) for number in range(6))
FILE = SideObject(sha256(b"file"), 1)
DECIDED = HoldDecision(b"", 1, (), (), 5)


def rows(artifact: Digest, copies: int, results: int = 0) -> list[CopyRow]:
    audits = tuple(AuditResult(sha256(b"%d" % number), number, PASSED) for number in range(results))
    return [CopyRow(artifact, f"log {number}", sha256(b"n"), FILE, FILE, "", audits) for number in range(copies)]


class Scene:
    """A node with these copies; `acts` are what was recorded, `orders` what was decided."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups = [rows(artifact, 2) for artifact in ARTIFACTS]
        self.acts: list[tuple[str, str, str]] = []
        self.orders: list[HoldOrder] = []
        self.refusal: Exception | None = None
        self.names: dict[Digest, str] = {}
        own = SimpleNamespace(inception=SimpleNamespace(id=sha256(b"member")))
        membership: Any = SimpleNamespace(body=None, own_node=own)
        tables = SimpleNamespace(proven=self)
        ledger: Any = SimpleNamespace(run=self._run, tables=tables)
        copies: Any = SimpleNamespace(index=self, withdrawals=self)
        acts: Any = SimpleNamespace(recorded=self._recorded)
        monkeypatch.setattr(module, "CopyAssessor", Assessor)
        self.service = AuditServicer(ledger, membership, lambda: 5 * 86_400.0 + 1, copies, acts)

    async def _run(self, work: Any, *given: Any) -> Any:
        return work(*given)

    @asynccontextmanager
    async def _recorded(self, act: str, about: str, detail: str) -> AsyncIterator[None]:
        self.acts.append((act, about, detail))
        yield

    def copies(self, artifact: Digest) -> list[CopyRow]:
        return next((group for group in self.groups if group[0].artifact == artifact), [])

    def page(self, after: Digest | None, most: int) -> list[list[CopyRow]]:
        return [group for group in self.groups if after is None or group[0].artifact > after][:most]

    def first_names(self, artifacts: Sequence[Digest]) -> dict[Digest, str]:
        return {artifact: self.names[artifact] for artifact in artifacts if artifact in self.names}

    async def decide(self, order: HoldOrder) -> HoldDecision:
        self.orders.append(order)
        if self.refusal is not None:
            raise self.refusal
        return DECIDED


class Assessor:
    """Counts every copy."""

    def __init__(self, membership: Any, today: int) -> None:
        assert today == 5

    def assess(self, found: list[CopyRow]) -> tuple[AssessedCopy, ...]:
        made: list[Any] = [AssessedCopy(row, "claimed", row.results) for row in found]  # type: ignore[arg-type]
        return tuple(made)

    def names(self, found: Any) -> dict[Digest, str]:
        return {row.artifact: row.log for row in found}


@pytest.fixture(name="scene")
def _scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_one_artifact_is_a_page_of_its_own(scene: Scene) -> None:
    scene.names[ARTIFACTS[1]] = "inst/tiny@v1"
    page = await scene.service.copies(ARTIFACTS[1])
    assert [(listed.artifact, listed.name, len(listed.copies)) for listed in page.artifacts] == [
        (ARTIFACTS[1], "inst/tiny@v1", 2)
    ]
    assert (page.day, page.more) == (5, False)
    assert (await scene.service.copies(sha256(b"unknown"))).artifacts == ()


@pytest.mark.parametrize(("most", "listed", "more"), [(6, 6, False), (5, 5, True), (1, 1, True)])
async def test_a_page_has_so_many_artifacts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, most: int, listed: int, more: bool
) -> None:
    monkeypatch.setattr(limits, "COPIES_PAGE", most)
    page = await scene.service.copies()
    assert (len(page.artifacts), page.more) == (listed, more)


@pytest.mark.parametrize(("results", "listed"), [(12, 6), (11, 5), (4, 2), (3, 1), (1, 1)])
async def test_a_page_has_so_many_copies_and_results_and_at_least_one_artifact(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, results: int, listed: int
) -> None:
    monkeypatch.setattr(module, "PAGE_RESULTS", results)
    page = await scene.service.copies()
    assert (len(page.artifacts), page.more) == (listed, listed < 6)
    after = page.artifacts[-1].artifact
    rest = await scene.service.copies(None, after)
    assert [each.artifact for each in rest.artifacts] == ARTIFACTS[listed : listed + len(rest.artifacts)]


async def test_copies_and_results_beyond_the_bounds_are_left_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPIES", 3)
    monkeypatch.setattr(limits, "AUDIT_RESULTS", 2)
    monkeypatch.setattr(module, "PAGE_RESULTS", 9)
    scene.groups = [rows(ARTIFACTS[0], 5, 4), rows(ARTIFACTS[1], 1)]
    page = await scene.service.copies()
    (listed,) = page.artifacts
    assert len(listed.copies) == 3 and {len(copy.results) for copy in listed.copies} == {2} and page.more


@pytest.mark.parametrize(
    ("order", "act", "detail"),
    [
        ({"reason": "space"}, "copy.drop", "space"),
        ({"reason": "legal"}, "copy.withdraw", "legal"),
        ({"reason": "legal", "force": True}, "copy.withdraw", "legal, forced"),
        ({"reason": "legal", "force": True, "keep": True}, "copy.withdraw", "legal, forced, kept aside"),
        ({"again": True, "reason": "space"}, "copy.restore", ""),
    ],
)
async def test_a_decision_is_recorded_before_it_is_made(
    scene: Scene, order: dict[str, Any], act: str, detail: str
) -> None:
    assert await scene.service.decide(HoldOrder(ARTIFACTS[0], **order)) is DECIDED
    assert scene.acts == [(act, ARTIFACTS[0], detail)]
    scene.refusal = Refused("no", code="TOO-FEW-COPIES")
    with pytest.raises(Refused):
        await scene.service.decide(HoldOrder(ARTIFACTS[0], **order))
    assert len(scene.acts) == len(scene.orders) == 2


async def test_a_trial_is_not_recorded(scene: Scene) -> None:
    await scene.service.decide(HoldOrder(ARTIFACTS[0], "space", trial=True))
    assert scene.acts == [] and [order.trial for order in scene.orders] == [True]
