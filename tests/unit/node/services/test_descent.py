"""`ListDescent`: equal roots are counted together, pages follow each other, and questions choose artifacts."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.copies.index import LoggedClaim
from comity.node.descent import CatalogueRow
from comity.node.reading import ReadState
from comity.node.services import descent as module
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.descent import DescentCounter
from comity.rules.copy_counts import CLAIMED, WITHDRAWN, AssessedCopy, ClaimedCopy
from comity.rules.descent import DescentCount, DescentQuestion, LineageFacts, LineageRoot
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused
from comity.wire import limits
from comity.wire.descent import DescentPage

ALICE, BOB = "a" * 64, "b" * 64
HOLDER, NODE = sha256(b"holder"), sha256(b"node")


def row(number: int, author: str = ALICE, *, size: int | None = 10, requiring: bool = False) -> CatalogueRow:
    digest = sha256(b"%d" % number)
    return CatalogueRow(number, digest, size, None if size is None else digest, requiring, True, (author,))


class Assessor:
    """Every claim is a copy of HOLDER on NODE; a withdrawn one does not count."""

    def __init__(self, *arguments: object) -> None: ...

    def assess(self, claims: tuple[LoggedClaim, ...]) -> list[AssessedCopy]:
        copies = [ClaimedCopy(HOLDER, NODE, "CH", claim.withdrawn) for claim in claims]
        return [AssessedCopy(copy, WITHDRAWN if copy.withdrawn else CLAIMED, ()) for copy in copies]


def counter(monkeypatch: pytest.MonkeyPatch, rows: list[CatalogueRow], claims: dict[Digest, str] | None = None) -> Any:
    monkeypatch.setattr(module, "CopyAssessor", Assessor)

    async def call(work: Any, *arguments: Any) -> Any:
        return work(*arguments)

    def known(number: int) -> LineageFacts:
        return LineageFacts(next(each.authors for each in rows if each.number == number))

    stored = SimpleNamespace(
        page=lambda after, most: [each for each in rows if each.number > after][:most],
        known=known,
    )
    copies = SimpleNamespace(
        claims_about=lambda artifacts: [
            (LoggedClaim("log", NODE, (claims or {})[each]),) if each in (claims or {}) else () for each in artifacts
        ]
    )
    pulls = SimpleNamespace(recent=lambda files, weeks: Counter(dict.fromkeys(files, 2)))
    reader: Any = SimpleNamespace(rows=stored, progress=lambda: ReadState(3, 5))
    other: Any = SimpleNamespace(files=call)
    parts: Any = (reader, copies, None, pulls, other, lambda: 86_400.0)
    return DescentCounter(*parts)


async def test_equal_origins_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(1), row(2, requiring=True), row(3, BOB, size=None)]
    page = await counter(monkeypatch, rows).page(DescentQuestion(), 0)
    assert page == DescentPage(
        2,
        (
            DescentCount((LineageRoot(ALICE, "own"),), True, 2, 20, 0, 4, 1),
            DescentCount((LineageRoot(BOB, "own"),), True, 1, 0, 1, 0, 0),
        ),
        0,
        module.PULL_WEEKS,
        (rows[1].digest,),
    )


@pytest.mark.parametrize("artifacts", [0, 1, 4, 5, 6, 10, 11])
async def test_pages_follow_each_other_and_count_each_artifact_once(
    monkeypatch: pytest.MonkeyPatch, artifacts: int
) -> None:
    monkeypatch.setattr(limits, "DESCENT_ARTIFACTS", 5)
    monkeypatch.setattr(limits, "DESCENT_COUNTS", 2)
    monkeypatch.setattr(module, "STEP", 2)
    authors = [ALICE, ALICE, BOB, "c" * 64]
    rows = [row(number, authors[number % 4]) for number in range(1, artifacts + 1)]
    asked, after, counted = counter(monkeypatch, rows), 0, 0
    for _ in range(artifacts + 2):
        page = await asked.page(DescentQuestion(), after)
        assert len(page.counts) <= 2
        counted += sum(each.artifacts for each in page.counts)
        if not page.next:
            break
        assert page.next > after
        after = page.next
    else:
        pytest.fail("the pages do not end")
    assert counted == artifacts


async def test_a_question_chooses_what_is_held_and_who_published(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(1), row(2, BOB), row(3)]
    claims = {rows[0].digest: "", rows[1].digest: "", rows[2].digest: "space"}
    asked = counter(monkeypatch, rows, claims)
    for question, expected in (
        (DescentQuestion(HOLDER), 2),
        (DescentQuestion(NODE), 2),
        (DescentQuestion(sha256(b"another")), 0),
        (DescentQuestion(None, Digest(BOB)), 1),
        (DescentQuestion(HOLDER, Digest(ALICE)), 1),
    ):
        page = await asked.page(question, 0)
        assert sum(each.artifacts for each in page.counts) == expected


async def test_a_front_end_leaves_the_question_to_the_writer() -> None:
    parts: Any = SimpleNamespace(tables=SimpleNamespace(proven=None, proven_times=None))
    with pytest.raises(Refused) as refused:
        await ArtifactServicer(parts, parts, parts).descent(0)
    assert refused.value.code == "FRONT-END"
