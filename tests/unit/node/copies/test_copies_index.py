"""The index of copies: statements of logs, in any order, each once; which copy is audited next; this node's own
results.
"""

from __future__ import annotations

import itertools
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from comity.content.sqlite_cache import MAX_WAL_BYTES
from comity.node import projection
from comity.node.copies import index as index_module
from comity.node.copies.held_files import HeldFiles
from comity.node.copies.index import (
    CopiesIndex,
    CopyFact,
    HoldFact,
    OwnAudit,
    ResultFact,
    WantedEndFact,
    WantedFact,
    WithdrawalFact,
)
from comity.node.projection import START, Position
from comity.rules.copy_counts import MISSED, PASSED, AuditResult, CopyPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import OutOfSpace, Unavailable
from comity.trust.statement import SideObject

OWN, FAR, THIRD = "own/log+1+key", "far/log+2+key", "third/log+3+key"
MODEL, OTHER = sorted((sha256(b"a model"), sha256(b"another model")))
AT = Position(17, sha256(b"the statement that was read last"))
AUDITOR, NONCE = sha256(b"auditor"), sha256(b"nonce")


def hold(log: str, artifact: Digest = MODEL, at: int = 1, node: str = "node") -> HoldFact:
    manifest, pieces = SideObject(artifact, 10), SideObject(sha256(b"index"), 20)
    return HoldFact(artifact, log, sha256(node.encode()), at, manifest, pieces)


def result(outcome: str, day: int, artifact: Digest = MODEL, auditor: Digest = AUDITOR) -> ResultFact:
    return ResultFact(artifact, FAR, AuditResult(auditor, day, outcome))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[CopiesIndex]:
    numbers = itertools.count()
    opened = CopiesIndex(tmp_path / "copies.sqlite", OWN, lambda: next(numbers))
    yield opened
    opened.close()


def test_a_damaged_file_is_made_again_and_kept_for_this_nodes_own_results(tmp_path: Path) -> None:
    damaged = b"no database at all, but as long as a header of one would be" * 10
    (tmp_path / "copies.sqlite").write_bytes(damaged)
    opened = CopiesIndex(tmp_path / "copies.sqlite", OWN, lambda: 0)
    assert opened.position == START
    opened.close()
    assert (tmp_path / "copies.sqlite.damaged").read_bytes() == damaged


def test_this_nodes_own_audits_survive_a_start_on_a_full_disk(tmp_path: Path) -> None:
    """SQLite cannot create the file by which its connections share the write-ahead log."""
    file, audit = tmp_path / "copies.sqlite", OwnAudit(3, MODEL, sha256(b"node"), True, 1, b"line")
    with closing(CopiesIndex(file, OWN, lambda: 0)) as made:
        made.add_own(audit, NONCE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises((OutOfSpace, Unavailable)):
            CopiesIndex(file, OWN, lambda: 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with closing(CopiesIndex(file, OWN, lambda: 0)) as again:
        assert [found.line for found in again.own_audits(3)] == [b"line"]


def test_an_index_that_cannot_be_read_says_so(index: CopiesIndex, tmp_path: Path) -> None:
    """As a damaged disk, an ended process has closed it."""
    held = HeldFiles(tmp_path / "copies.sqlite", OWN)
    index.close()
    held.close()
    reads: tuple[Callable[[], object], ...] = (
        lambda: index.copies(MODEL),
        lambda: index.page(None, 5),
        lambda: index.next_copies(1, 1, 5),
        lambda: held.days([MODEL]),
        lambda: held.shared(MODEL, [MODEL]),
        lambda: held.unread(None, 5),
    )
    for read in reads:
        with pytest.raises(Unavailable) as failed:
            read()
        assert failed.value.code == "INDEX"


def test_a_withdrawal_ends_the_hold_before_it_and_a_later_hold_counts_again(index: CopiesIndex) -> None:
    index.add([hold(FAR, at=4), WithdrawalFact(MODEL, FAR, 7, "space")])
    assert [row.withdrawn for row in index.copies(MODEL)] == ["space"]
    index.add([hold(FAR, at=9)])
    assert [row.withdrawn for row in index.copies(MODEL)] == [""]
    index.add([hold(FAR, at=4)])  # read again
    assert [row.withdrawn for row in index.copies(MODEL)] == [""]


def test_only_copies_of_artifacts_held_here_are_audited_in_turn(index: CopiesIndex) -> None:
    index.add([hold(FAR), hold(THIRD), hold(FAR, OTHER), hold(OWN)])
    assert {(row.artifact, row.log) for row in index.next_copies(0, 0, 10)} == {(MODEL, FAR), (MODEL, THIRD)}
    seen = []
    for at in range(1, 7):
        (row,) = index.next_copies(0, 0, 1)
        index.tried(row.artifact, row.log, at)
        seen.append(row.log)
    assert sorted(seen[:2]) == sorted(seen[2:4]) == sorted(seen[4:]) == [FAR, THIRD]
    index.add([hold(OWN, OTHER)])
    assert index.next_copies(0, 0, 1)[0].artifact == OTHER
    index.add([WithdrawalFact(MODEL, OWN, 5, "space"), WithdrawalFact(OTHER, FAR, 5, "space")])
    assert index.next_copies(0, 0, 10) == []


def test_a_copy_that_was_tried_lately_is_left_alone(index: CopiesIndex) -> None:
    index.add([hold(FAR), hold(THIRD), hold(OWN)])
    index.tried(MODEL, FAR, 100)
    waiting = {now: [row.log for row in index.next_copies(now, 60, 10)] for now in (99, 100, 159, 160)}
    assert waiting == {99: [THIRD, FAR], 100: [THIRD], 159: [THIRD], 160: [THIRD, FAR]}


def test_the_newest_result_of_an_auditor_is_kept_in_any_order(index: CopiesIndex) -> None:
    index.add([hold(FAR)])
    for order in itertools.permutations([result("digest", 5), result(PASSED, 5), result(PASSED, 4), result(MISSED, 6)]):
        index.add(order)
        (row,) = index.copies(MODEL)
        assert {(item.outcome, item.day) for item in row.results} == {("digest", 5), (MISSED, 6)}


def test_no_later_claim_of_a_day_takes_the_place_of_a_failure_that_was_proven(index: CopiesIndex) -> None:
    claimed = result("digest", 5)
    proven = replace(claimed, result=replace(claimed.result, proven=True))
    for order in ((proven, claimed, result(PASSED, 5)), (claimed, proven, claimed)):
        index.begin_again(OWN)
        index.add([hold(FAR), *order])
        assert index.copies(MODEL)[0].results == (proven.result,)


def test_a_result_about_an_unclaimed_copy_is_not_stored(index: CopiesIndex) -> None:
    index.add([result(PASSED, 1), hold(FAR)])
    assert index.copies(MODEL)[0].results == ()


def test_an_auditor_has_a_bounded_share_of_the_index(index: CopiesIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_RESULTS", 1)
    index.add([hold(FAR), hold(FAR, OTHER), result(PASSED, 1), result(PASSED, 1, OTHER)])
    assert [len(index.copies(artifact)[0].results) for artifact in (MODEL, OTHER)] == [1, 0]
    index.add([result(PASSED, 2), result(PASSED, 1, OTHER, sha256(b"second auditor"))])
    assert index.copies(MODEL)[0].results[0].day == 2
    assert len(index.copies(OTHER)[0].results) == 1


def test_pages_list_every_artifact_once_in_order(index: CopiesIndex) -> None:
    artifacts = sorted(sha256(b"%d" % at) for at in range(25))
    index.add([hold(log, artifact) for artifact in artifacts for log in (FAR, THIRD)])
    seen: list[Digest] = []
    while page := index.page(seen[-1] if seen else None, 10):
        seen += [rows[0].artifact for rows in page]
        assert all(len(rows) == 2 for rows in page)
    assert seen == artifacts


def test_own_audits_are_logged_once_a_day_and_kept_for_a_time(index: CopiesIndex) -> None:
    audit = OwnAudit(5, MODEL, sha256(b"node"), True, 10, b"answer")
    index.add_own(audit, NONCE)
    index.add_own(OwnAudit(6, MODEL, sha256(b"node"), False, 0), NONCE)
    assert index.unlogged_days(5) == []
    assert index.unlogged_days(6) == [5]
    (kept,) = index.own_audits(5)
    assert (kept.line, kept.passed) == (b"answer", True)
    index.logged(5, 6)
    assert index.own_audits(5) == []
    assert index.unlogged_days(7) == [6]


def test_the_index_is_made_again_for_another_ledger_and_own_audits_stay(index: CopiesIndex) -> None:
    index.add([hold(FAR), result(PASSED, 1)], AT)
    index.add_own(OwnAudit(5, MODEL, sha256(b"node"), True, 10, b"answer"), NONCE)
    index.begin_again(OWN)
    assert (index.position, index.copies(MODEL), len(index.own_audits(5))) == (START, [], 1)


def wanted(log: str, artifact: Digest = MODEL, at: int = 1) -> WantedFact:
    return WantedFact(artifact, log, at, CopyPolicy(3, 2, 1))


def test_a_wanted_statement_counts_until_the_same_log_withdraws_it(index: CopiesIndex) -> None:
    index.add([wanted(FAR), wanted(FAR, OTHER, 2), wanted(THIRD)])
    assert index.wanted_in(FAR) == [wanted(FAR), wanted(FAR, OTHER, 2)]
    assert index.wanted_about(MODEL) == [wanted(FAR), wanted(THIRD)]
    index.add([WantedEndFact(MODEL, FAR, 1), WantedEndFact(OTHER, FAR, 1)])  # the second names an older one
    assert index.wanted_in(FAR) == [wanted(FAR, OTHER, 2)]
    assert index.wanted_about(MODEL) == [wanted(THIRD)]
    index.add([wanted(FAR, at=5)])
    assert index.wanted_about(MODEL) == [wanted(FAR, at=5), wanted(THIRD)]
    index.begin_again(OWN)
    assert index.wanted_in(FAR) == index.wanted_in("unknown/log+4+key") == []


def test_wanted_artifacts_of_a_log_are_kept_up_to_the_bound(
    index: CopiesIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MAX_WANTED", 2)
    many = [sha256(b"%d" % number) for number in range(4)]
    index.add([*(wanted(FAR, artifact, at) for at, artifact in enumerate(many)), wanted(THIRD)])
    assert {fact.artifact for fact in index.wanted_in(FAR)} == set(many[:2])
    assert index.wanted_in(THIRD) == [wanted(THIRD)]
    index.add([WantedEndFact(many[0], FAR, 0), wanted(FAR, many[3], 7)])
    assert {fact.artifact for fact in index.wanted_in(FAR)} == {many[1], many[3]}


def test_many_facts_are_added_in_short_transactions_that_leave_a_small_write_ahead_log(
    index: CopiesIndex, tmp_path: Path
) -> None:
    index.add((hold(FAR, sha256(b"%d" % number)) for number in range(8_000)), AT)
    assert (tmp_path / "copies.sqlite-wal").stat().st_size <= MAX_WAL_BYTES
    assert index.position == AT


def test_facts_of_a_failed_addition_are_read_again_and_added_once(
    index: CopiesIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "TOGETHER", 2)
    facts: list[CopyFact] = [
        hold(FAR),
        result(PASSED, 3),
        hold(FAR, OTHER),
        WithdrawalFact(OTHER, FAR, 5, "space"),
        hold(OWN),
    ]
    add, added = index._add_withdrawal, list[WithdrawalFact]()

    def failing(database: sqlite3.Connection, fact: WithdrawalFact) -> None:
        added.append(fact)
        if len(added) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        add(database, fact)

    monkeypatch.setattr(index, "_add_withdrawal", failing)
    with pytest.raises(Unavailable):
        index.add(facts, AT)
    assert (index.position, len(index.copies(MODEL)), index.copies(OTHER)) == (START, 1, [])
    index.add(facts, AT)
    assert index.position == AT
    assert [(row.log, row.withdrawn, len(row.results)) for row in index.copies(MODEL)] == [(FAR, "", 1), (OWN, "", 0)]
    assert [row.withdrawn for row in index.copies(OTHER)] == ["space"]


def test_a_full_disk_is_named_and_the_same_facts_are_added_when_there_is_space(index: CopiesIndex) -> None:
    facts = [hold(FAR, sha256(b"%d" % number)) for number in range(2_000)]
    (pages,) = index._database.execute("PRAGMA page_count").fetchone()
    index._database.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(OutOfSpace):
        index.add(facts, AT)
    index._database.execute("PRAGMA max_page_count = 100000")
    index.add(facts, AT)
    assert (index.position, len(index.page(None, 3_000))) == (AT, 2_000)
