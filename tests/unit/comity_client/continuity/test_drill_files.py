"""Drill reports as files: what is proven of their times by the nodes of the pinned charters, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.continuity.drill_report import DrillReport, DrillTimes
from comity.trust.errors import Untrusted
from comity.trust.tlog.note import SignedNote
from comity_client.continuity.drill_files import (
    cosigned_note,
    keep_drill,
    last_drill,
    proof_path,
    read_drill,
    render_drill_report,
)
from comity_client.home import Home
from support.case import nodes
from support.drill_reports import STARTED, a_drill_report, a_failed_drill_report, cosigned_checkpoint, write_drill
from support.world import Log

WRITER, *OTHERS = nodes()
RECORDS = [node.record for node in nodes()]
REPORT = replace(a_drill_report(), before=cosigned_checkpoint(STARTED - 60))


def read(folder: Path, report: DrillReport = REPORT, *, logged_at: int | None = None) -> DrillTimes:
    return read_drill(write_drill(folder, report, logged_at=logged_at), RECORDS).times


def test_cosigners_of_the_checkpoint_and_of_the_log_prove_when_a_drill_took_place(tmp_path: Path) -> None:
    assert read(tmp_path, logged_at=REPORT.ended + 9) == DrillTimes(STARTED - 60, REPORT.ended + 9)


def test_what_no_known_member_cosigned_is_not_proven(tmp_path: Path) -> None:
    path = write_drill(tmp_path, REPORT, logged_at=REPORT.ended)
    assert read_drill(path, ()).times == DrillTimes(None, None)
    assert not read_drill(path, ()).logged
    alone = read_drill(path, [record for record in RECORDS if record in (WRITER.record, OTHERS[0].record)])
    assert (alone.logged, alone.times) == (True, DrillTimes(None, None))
    without = read(tmp_path, replace(REPORT, before=""), logged_at=REPORT.ended)
    assert without == DrillTimes(None, REPORT.ended)


def test_the_writer_of_a_log_does_not_vouch_for_its_own_clock() -> None:
    log = Log(WRITER.origin, WRITER.log)
    checkpoint = log.checkpoint()
    note = SignedNote(checkpoint.text, checkpoint.signed(WRITER.log).signatures + WRITER.cosign(checkpoint, STARTED))
    found = cosigned_note(note, RECORDS)
    assert found is not None and found.times == {}


def test_a_back_dated_report_is_refused(tmp_path: Path) -> None:
    early = replace(REPORT, started=STARTED - 86_400, ended=REPORT.ended - 86_400)
    with pytest.raises(Untrusted, match="before the checkpoint"):
        read(tmp_path, early)
    old = replace(early, before=cosigned_checkpoint(STARTED - 90_000))
    assert read(tmp_path, old).logged_by is None, "alone with its signature, nothing shows that it is new"
    with pytest.raises(Untrusted, match="more than a day after"):
        read(tmp_path, old, logged_at=REPORT.ended + 60)


def test_a_forged_checkpoint_or_proof_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match="note signature"):
        read(tmp_path, replace(REPORT, before=REPORT.before.replace("\n0\n", "\n7\n", 1)))
    path = write_drill(tmp_path, REPORT, logged_at=REPORT.ended)
    proof = proof_path(path).read_bytes()
    write_drill(tmp_path, replace(REPORT, fallback=2))
    proof_path(path).write_bytes(proof)
    with pytest.raises(Untrusted):
        read_drill(path, RECORDS)


def test_the_page_says_what_was_cut_off_and_in_how_many_seconds_it_answered(tmp_path: Path) -> None:
    signed = read_drill(write_drill(tmp_path, REPORT, logged_at=REPORT.ended), RECORDS)
    page = render_drill_report(REPORT, signed)
    for text in (
        "reach:CH",
        "node-ch",
        "answer came after 7 s",
        "after 8 s",
        "capital",
        "Continuity desk",
        REPORT.plan,
    ):
        assert text in page
    assert "<script" not in page
    failed = render_drill_report(a_failed_drill_report())
    assert (
        "FAILED at the step start, link check-failed: the last check of the kit failed: it ended at once"
        in " ".join(failed.split())
    )
    assert "the signature was not checked" in failed


def test_the_newest_drill_of_a_service_and_kit_is_kept(tmp_path: Path) -> None:
    home, report = Home(tmp_path), a_drill_report()
    assert last_drill(home, "chat", report.kit_artifact) is None
    for each in (report, a_failed_drill_report()):
        keep_drill(home, each)
        assert last_drill(home, "chat", report.kit_artifact) == each
    assert last_drill(home, "search", report.kit_artifact) is None
