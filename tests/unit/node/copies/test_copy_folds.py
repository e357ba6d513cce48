"""What logs claim about many artifacts: the same as about each of them, in few queries; and answers about a page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.copies import index as index_module
from comity.node.copies.folds import CopyFolds
from comity.node.copies.index import (
    ClaimsPage,
    CopiesIndex,
    CopyFact,
    HoldFact,
    LoggedClaim,
    ResultFact,
    WithdrawalFact,
)
from comity.rules.copy_counts import CLAIMED, MISSED, PASSED, AssessedCopy, AuditResult, ClaimedCopy, CopyPolicy
from comity.rules.copy_questions import ALL, CopyQuestion
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import SideObject
from comity.wire import limits

LOGS = [f"log-{at}/log+{at}+key" for at in range(4)]
ARTIFACTS = sorted(sha256(b"artifact %d" % at) for at in range(40))
MEMBER = sha256(b"member")
FILE = SideObject(sha256(b"file"), 1)


def facts() -> Iterator[CopyFact]:
    """Holds of two or three logs, some of them withdrawn, and audits of some."""
    for at, artifact in enumerate(ARTIFACTS):
        for log in LOGS[: 2 + at % 2]:
            yield HoldFact(artifact, log, sha256(log.encode()), 1, FILE, FILE)
        if at % 5 == 0:
            yield WithdrawalFact(artifact, LOGS[1], 2, "space" if at % 2 else "legal-order")
        for day in range(at % 4):
            outcome = PASSED if day % 2 else MISSED
            yield ResultFact(artifact, LOGS[0], AuditResult(sha256(b"auditor %d" % day), 100 + day, outcome))


@pytest.fixture(name="index")
def _index(tmp_path: Path) -> Iterator[CopiesIndex]:
    numbers = itertools.count()
    opened = CopiesIndex(tmp_path / "copies.sqlite", LOGS[0], lambda: next(numbers))
    opened.add(facts())
    yield opened
    opened.close()


def one_by_one(index: CopiesIndex, artifact: Digest) -> list[LoggedClaim]:
    return [LoggedClaim(row.log, row.node, row.withdrawn, row.results) for row in index.copies(artifact)]


@pytest.mark.parametrize(("limit", "read"), [(100, 16_384), (7, 16_384), (100, 12), (100, 5), (100, 1)])
def test_pages_have_the_claims_about_each_artifact(
    index: CopiesIndex, monkeypatch: pytest.MonkeyPatch, limit: int, read: int
) -> None:
    monkeypatch.setattr(index_module, "CLAIMS_READ", read)
    found: list[tuple[Digest, tuple[LoggedClaim, ...]]] = []
    while True:
        page = index.claims(found[-1][0] if found else None, limit)
        assert len(page.found) <= limit and (page.found or not page.more)
        found += page.found
        if not page.more:
            break
    assert found == [(artifact, tuple(one_by_one(index, artifact))) for artifact in ARTIFACTS]
    assert index.claims(ARTIFACTS[-1], limit).found == ()


def test_an_artifact_of_which_more_is_known_than_is_read_at_once_is_read_whole(
    index: CopiesIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    audits = [AuditResult(sha256(b"%d" % at), at, PASSED) for at in range(30)]
    index.add([ResultFact(ARTIFACTS[3], LOGS[0], each) for each in audits])
    monkeypatch.setattr(index_module, "CLAIMS_READ", 10)
    page = index.claims(ARTIFACTS[2], 100)
    assert page.found == ((ARTIFACTS[3], tuple(one_by_one(index, ARTIFACTS[3]))),) and page.more


def test_queries_grow_with_different_claims_and_not_with_artifacts(index: CopiesIndex) -> None:
    def queries(count: int) -> int:
        asked: list[str] = []
        index._database.set_trace_callback(asked.append)
        assert len(index.claims(None, count).found) == min(count, 1_040)
        index._database.set_trace_callback(None)
        return len(asked)

    before = queries(40)
    more = (sha256(b"more %d" % at) for at in range(1_000))
    index.add(HoldFact(artifact, log, sha256(log.encode()), 1, FILE, FILE) for artifact in more for log in LOGS[:2])
    assert queries(2_000) == before <= 10


class Assessor:
    """Counts every copy, whose member is its node."""

    def assess(self, found: Sequence[LoggedClaim]) -> tuple[AssessedCopy, ...]:
        return tuple(AssessedCopy(ClaimedCopy(row.node, row.node, "CH", row.withdrawn), CLAIMED, ()) for row in found)


async def test_a_page_ends_where_enough_is_listed_and_names_are_asked_for_once(
    index: CopiesIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FOLD_LISTED", 15)
    asked: list[list[Digest]] = []

    def first_names(some: list[Digest]) -> dict[Digest, str]:
        asked.append([*some])
        return {artifact: f"lab/{artifact[:8]}@v1" for artifact in some[1:]}

    async def run(work: Any, *given: Any) -> Any:
        return work(*given)

    read = list[Digest]()
    claims = index.claims

    def counted_claims(start: Digest | None, limit: int) -> ClaimsPage:
        page = claims(start, limit)
        read.extend(artifact for artifact, _ in page.found)
        return page

    monkeypatch.setattr(index, "claims", counted_claims)
    tables = SimpleNamespace(proven=SimpleNamespace(first_names=first_names))
    ledger: Any = SimpleNamespace(run=run, tables=tables)
    folds, assessor, after = CopyFolds(ledger, index), Assessor(), None
    listed: list[Digest] = []
    for size, more in ((15, True), (15, True), (10, False)):
        question = CopyQuestion((ALL,), named=True)
        given: Any = assessor
        fold, follows = await folds.page(question, after, given, MEMBER, CopyPolicy(1, 1))
        assert (len(fold.listed), fold.counted, follows) == (size, size, more)
        assert fold.names[0] == "" and fold.names[1] == f"lab/{fold.listed[1][:8]}@v1"
        listed += fold.listed
        after = fold.last
    assert listed == ARTIFACTS == read and len(asked) == 3  # no claims are read that are not answered
    short, _ = await folds.page(CopyQuestion(), None, given, MEMBER, CopyPolicy(1, 1))
    assert (short.listed, short.counted, len(asked)) == ((), 40, 3)


def test_the_claims_about_some_artifacts_are_those_about_each(
    index: CopiesIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "ASKED_TOGETHER", 7)
    asked = [*reversed(ARTIFACTS), sha256(b"of which nobody claims a copy"), ARTIFACTS[0]]
    assert index.claims_about(asked) == [tuple(one_by_one(index, artifact)) for artifact in asked]
    asked = [artifact for artifact in ARTIFACTS if not any(row.results for row in index.copies(artifact))]
    monkeypatch.undo()
    queries: list[str] = []
    index._database.set_trace_callback(queries.append)
    shared = index.claims_about(asked)
    index._database.set_trace_callback(None)
    different = len({id(claims) for claims in shared})
    assert different < len(asked) and len(queries) == 2 + different
